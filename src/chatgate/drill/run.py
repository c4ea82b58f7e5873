"""Plays the scenarios: for each a gateway of its own, with the operator's settings turned towards a provider of ours.

The gateway is the real one, on a real port of 127.0.0.1, and knows nothing of the drill. Nothing that a scenario leaves
behind in a gateway, open circuits or refused keys, can touch the next. Called by the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct, structs

from chatgate.app import App, plain_model
from chatgate.drill.caller import Received, call
from chatgate.drill.course import Course, courses, without_demo
from chatgate.drill.judge import Scene, Verdict, judge
from chatgate.drill.provider import KEY, Attempt, Provider
from chatgate.drill.scenarios import Part, Scenario, Strikes
from chatgate.drill.stage import Stage
from chatgate.drill.timing import Timing
from chatgate.providers import spec
from chatgate.settings import OPENAI_COMPATIBLE, Settings
from chatgate.vocabulary.upstreams import Origin

AT_ONCE: Final = 6
"""How many scenarios are played at a time. They mostly wait, but one's work must not be another's silence."""

RELEASE_SECONDS: Final = 1.0
"""How long after the end of a call its attempts may take to end."""

_HOST: Final = "127.0.0.1"
_LOOK_SECONDS: Final = 0.02

StartGateway: TypeAlias = Callable[[Settings], AbstractAsyncContextManager[tuple[str, int]]]
"""Runs a gateway with these settings for as long as it is entered, and tells its host and port."""


class Result(Struct, frozen=True):
    """What became of one scenario for one model. `attempts` are those that arrived, in their order."""

    part: Part
    verdict: Verdict
    why: str
    advice: str
    seconds: float
    attempts: tuple[Attempt, ...]

    @property
    def path(self) -> str:
        """Return where the calls went, for people: `main/gpt (3 times), backup/gpt`."""
        places = Counter(f"{attempt.upstream}/{attempt.model}" for attempt in self.attempts)
        return (
            ", ".join(f"{place} ({count} times)" if count > 1 else place for place, count in places.items())
            or "nowhere"
        )


class ModelResult(Struct, frozen=True):
    """The results for one model, in the order of the catalogue."""

    course: Course
    results: tuple[Result, ...]


@contextlib.asynccontextmanager
async def real_gateway(settings: Settings) -> AsyncIterator[tuple[str, int]]:
    """Run the gateway of these settings; its log goes nowhere."""
    app = App(settings, write_log=lambda _data: None)
    async with app.listening(settings.server.host, settings.server.port) as address:
        yield address


def every_course(settings: Settings) -> list[Course]:
    """Return a course for each model that callers may ask for, in the order of the configuration; never empty."""
    return courses(settings, plain_model(settings, spec.load()))


async def drill(
    settings: Settings,
    timing: Timing,
    chosen: Sequence[Course],
    parts: Sequence[Part],
    report: Callable[[Course, Result], None],
    *,
    start_gateway: StartGateway = real_gateway,
) -> list[ModelResult]:
    """Play the parts for each chosen model; report each result as soon as its turn has come."""
    turns = asyncio.Semaphore(AT_ONCE)
    results = []
    with tempfile.TemporaryDirectory(prefix="chatgate-drill-") as data:
        elsewhere = structs.replace(settings, data=Path(data))

        async def played(course: Course, part: Part) -> Result:
            async with turns:
                return await play(elsewhere, timing, course, part, start_gateway)

        async with asyncio.TaskGroup() as group:
            tasks = [(course, [group.create_task(played(course, part)) for part in parts]) for course in chosen]
            for course, waiting in tasks:
                done = []
                for task in waiting:
                    done.append(await task)
                    report(course, done[-1])
                results.append(ModelResult(course, tuple(done)))
    return results


async def play(
    settings: Settings, timing: Timing, course: Course, part: Part, start_gateway: StartGateway = real_gateway
) -> Result:
    """Play one scenario for one model."""
    scenario = part.scenario
    stage = Stage(scenario, course, timing, time.monotonic)
    began = time.monotonic()
    async with Provider([upstream.name for upstream in settings.upstreams], stage.conduct) as provider:
        turned = turn(settings, timing, provider.ports)
        async with start_gateway(turned) as (host, port):
            if scenario.strikes is Strikes.UPSTREAM:
                provider.shut(course.places[0].upstream)

            async def ask(number: int) -> Received:
                return await call(
                    host,
                    port,
                    question(course, part, number),
                    limit_seconds=limit_seconds(timing, course, settings.retry.max_retries),
                    leave_after_words=scenario.leave_after_words,
                )

            received = await _calls(scenario, timing, began, ask)
            left_open = await _left_open(provider, settings, timing, scenario)
            seconds = time.monotonic() - began
    scene = Scene(
        part=part,
        course=course,
        timing=timing,
        stage=stage,
        max_retries=settings.retry.max_retries,
        resumes=settings.retry.recovery == "resume",
        received=received,
        attempts=provider.attempts,
        left_open=left_open,
        misframed=len(provider.misframed),
    )
    judgement = judge(scene)
    return Result(part, judgement.verdict, judgement.why, judgement.advice, seconds, tuple(provider.attempts))


def turn(settings: Settings, timing: Timing, ports: dict[str, int]) -> Settings:
    """Return the settings with every upstream turned to its port here, under keys of ours, and the door open to us.

    What is kept is what decides where calls go: models, targets, weights, fallbacks, the number of keys, retries.
    """
    catalogue = spec.load()
    upstreams = []
    keys: list[str] = []
    for index, upstream in enumerate(settings.upstreams):
        count = max(len(upstream.api_keys), 1 if upstream.key_needed else 0)
        own = tuple(KEY.format(upstream=index, number=number) for number in range(1, count + 1))
        origin = Origin("http", _HOST, ports[upstream.name])
        # The providers here speak OpenAI's protocol, whatever the real ones do.
        provider = upstream.provider if catalogue[upstream.provider].protocol == "openai_chat" else OPENAI_COMPATIBLE
        upstreams.append(
            structs.replace(upstream, provider=provider, origin=origin, base_path=f"/drill-{index}", api_keys=own)
        )
        keys += own
    return structs.replace(
        settings,
        server=structs.replace(settings.server, host=_HOST, port=0, workers=1, trusted_proxies=()),
        access=structs.replace(settings.access, allow=(), anonymous=True),
        limits=(),
        timeouts=timing.timeouts,
        streams=structs.replace(settings.streams, drain_seconds=timing.drain_seconds),
        database_url=None,
        redis=None,
        upstreams=tuple(upstreams),
        models=tuple(structs.replace(model, fallbacks=without_demo(model)) for model in settings.models),
        secret_values=settings.secret_values.union(keys),
    )


def question(course: Course, part: Part, number: int) -> dict[str, object]:
    """Return what is asked; the number makes it another conversation."""
    asked: dict[str, object] = {
        "model": course.asked_model,
        "messages": [{"role": "user", "content": f"Count to sixty, please ({number})."}],
    }
    if part.stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked


def limit_seconds(timing: Timing, course: Course, max_retries: int) -> float:
    """Return after how long a call counts as hung: every place silent, twice, and all retries waited for."""
    timeouts = timing.timeouts
    silences = timeouts.connect_seconds + 2 * (timeouts.first_token_seconds + timeouts.idle_seconds)
    return min(len(course.places) * (silences + 2.0 * max_retries), timeouts.total_seconds) + 10.0


async def _calls(
    scenario: Scenario, timing: Timing, began: float, ask: Callable[[int], Awaitable[Received]]
) -> list[Received]:
    """Make the scenario's calls one after the other, those of an outage at their times."""
    if not scenario.is_outage:
        return [await ask(number) for number in range(scenario.calls)]
    received = []
    for number in range(timing.outage_calls):
        await asyncio.sleep(began + number * timing.outage_pause_seconds - time.monotonic())
        received.append(await ask(number))
    return received


async def _left_open(provider: Provider, settings: Settings, timing: Timing, scenario: Scenario) -> list[Attempt]:
    """Return the attempts that the gateway has not ended in time."""
    drains = scenario.leave_after_words is not None and settings.streams.on_disconnect == "drain"
    ends_at = time.monotonic() + RELEASE_SECONDS + (timing.drain_seconds if drains else 0.0)
    while provider.running and time.monotonic() < ends_at:  # noqa: ASYNC110 - sockets close when they close
        await asyncio.sleep(_LOOK_SECONDS)
    return provider.running
