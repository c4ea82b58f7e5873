"""A thousand callers leave in the middle of a stream: each pays for what was produced, once, and frees its place."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from fakes import fleet, scripts
from fakes import http_client as http
from fakes.gateway import Gateway
from fakes.site import Row, site
from fakes.upstream import Exchange, FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
CALLERS = 500
"""With each of the two settings."""
AT_ONCE = 250
NOTICED_SECONDS = 0.5
"""How long a busy machine may take to tell the gateway that a caller has left."""

PIECE = "word"
"""Four bytes, which is what an estimate takes for a token."""

INPUT_TOKENS = 7
NANO_USD = 1_000
"""Of each token."""


@dataclass
class Callers:
    """Callers who leave at random, and the upstream's side of it. Every one asks for a model of its own."""

    chance: random.Random
    produced: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By model, when each piece of the answer was written."""
    planned: dict[str, int] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    left_at: dict[str, float] = field(default_factory=dict)

    async def produce(self, exchange: Exchange) -> None:
        """Say as many pieces as were planned, slowly, and count them at the end."""
        model = exchange.call.json()["model"]
        pieces = self.planned[model] = self.chance.randint(10, 25)
        events = scripts.told(PIECE * pieces, characters=len(PIECE), usage=True)
        await exchange.send(scripts.STREAM_HEAD + scripts.framed(events[0]))
        for event in events[1 : pieces + 1]:
            await asyncio.sleep(self.chance.uniform(0.02, 0.06))
            self.produced[model].append(time.monotonic())
            await exchange.send(scripts.framed(event))
        await exchange.send(b"".join(map(scripts.framed, [*events[pieces + 1 :], scripts.DONE, b""])))

    async def leave(self, gateway: Gateway, model: str, key: str) -> None:
        """Call, hear some of the answer, and go without a word."""
        async with http.open_stream(gateway.port, CHAT, asking(model), [http.bearer(key)]) as stream:
            assert stream.head.status == 200
            for _ in range(self.chance.randint(0, 4)):
                await stream.next_piece()
            self.heard[model] = stream.so_far.count(b'"word"')
            self.left_at[model] = time.monotonic()


def asking(model: str) -> dict[str, object]:
    """Return the body of a call."""
    return {**http.chat("Hi", model), "stream": True, "max_tokens": 40}


def configuration(upstream: FakeUpstream, on_disconnect: str) -> str:
    """Return a configuration that has room for everybody."""
    names = [f"m{number}" for number in range(CALLERS)]
    return (
        f'[streams]\non_disconnect = "{on_disconnect}"\ndrain_seconds = 20\ndrain_calls = {CALLERS}\n'
        + fleet.upstream("a", upstream.base_url)
        + fleet.model("m*", [{"upstream": "a"}])
        + "".join(fleet.price(name, 1, 1) for name in names)
    )


@pytest.mark.parametrize("on_disconnect", ["cancel", "drain"])
async def test_streams_whose_callers_left_are_charged_for_what_was_produced(
    tmp_path: Path, upstream: FakeUpstream, on_disconnect: Literal["cancel", "drain"]
) -> None:
    """An answer that is read on costs what its provider counts; one that is not costs what had come of it."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    callers = Callers(random.Random(seed))
    async with site(tmp_path, configuration(upstream, on_disconnect)) as place:
        limits = ("--limit", f"in_flight={CALLERS}")
        key = await place.make_key("leaving", "--budget-usd", "1000", "--per", "ever", *limits)
        gateway = await place.start()
        places = asyncio.Semaphore(AT_ONCE)

        async def call(number: int) -> None:
            async with places:
                upstream.on_model(f"m{number}", callers.produce)
                await callers.leave(gateway, f"m{number}", key)

        await asyncio.gather(*(call(number) for number in range(CALLERS)))
        await asyncio.gather(*(asyncio.wait_for(call.over.wait(), 10) for call in upstream.calls))
        rows = {row.asked_model: row for row in await place.folded(gateway)}
        assert len(await place.rows()) == len(rows) == len(upstream.calls) == CALLERS
        for row in rows.values():
            assert (row.state, row.ends_call) == ("settled", True)
            assert row.charged_nano_usd == (row.input_tokens + row.output_tokens) * NANO_USD
        judge_left(rows, callers)
        if on_disconnect == "drain":
            judge_drained(rows, callers)
        else:
            judge_cancelled(rows, callers)
        assert (await place.audited()).open_calls == 0
        assert await gateway.metric("chatgate_calls_in_flight") == 0
        assert await gateway.metric("chatgate_answers_drained") == 0
        await every_slot_is_free(gateway, upstream, key)
        await place.stop(gateway)


async def every_slot_is_free(gateway: Gateway, upstream: FakeUpstream, key: str) -> None:
    """Have as many calls under way as there may be, and see that there is room for no more."""
    upstream.forget()
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    for number in range(CALLERS):
        upstream.on_model(f"m{number}", waits)
    headers = [http.bearer(key)]
    calls = [
        asyncio.create_task(http.post_json(gateway.port, CHAT, http.chat("Hi", f"m{number}"), headers))
        for number in range(CALLERS)
    ]
    await upstream.called(CALLERS)
    refused = await http.post_json(gateway.port, CHAT, http.chat("Hi", "m0"), headers)
    assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    tap.let(CALLERS)
    assert {answer.status for answer in await asyncio.gather(*calls)} == {200}


def judge_left(rows: dict[str, Row], callers: Callers) -> None:
    """Who was so slow to leave that all had been said got a whole answer; they are few."""
    completed = {model for model, row in rows.items() if row.outcome == "completed"}
    assert {row.outcome for row in rows.values()} <= {"client_left", "completed"}
    assert all(callers.produced[model][-1] <= callers.left_at[model] + NOTICED_SECONDS for model in completed)
    assert len(completed) < CALLERS / 20


def judge_drained(rows: dict[str, Row], callers: Callers) -> None:
    """Everything was produced, and the provider told how much."""
    for model, row in rows.items():
        assert (row.input_tokens, row.output_tokens) == (INPUT_TOKENS, callers.planned[model])


def judge_cancelled(rows: dict[str, Row], callers: Callers) -> None:
    """At least what the caller heard and at most what the upstream said; together, within 1 % of that."""
    charged, until_they_left = 0, 0
    for model, row in rows.items():
        if row.outcome == "client_left":
            assert row.usage_source == "estimated"
            assert row.input_tokens == math.ceil(len(json.dumps(asking(model))) / 4)
        assert callers.heard[model] <= row.output_tokens <= len(callers.produced[model])
        charged += row.output_tokens
        until_they_left += sum(at <= callers.left_at[model] for at in callers.produced[model])
    print(f"{charged} charged of {until_they_left}")  # noqa: T201 - shown when the test fails
    assert charged >= 0.99 * until_they_left
