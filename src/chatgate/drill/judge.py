"""Holds what happened against what had to happen. Pure: what was received and attempted goes in, a verdict comes out.

A lie, a hang, a leak, a call too many and an answer that was not rescued though a place was well are failures. An error
that says so is safe where nothing else could be had. The verdicts are those of Failover Bench (see `scenarios`).
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from chatgate.drill.answers import OTHER_TEXT, TEXT, WORDS
from chatgate.drill.caller import Received
from chatgate.drill.course import Course, Place
from chatgate.drill.provider import Attempt
from chatgate.drill.scenarios import Aim, Part, Scenario, Strikes
from chatgate.drill.stage import Stage
from chatgate.drill.timing import Timing

SLACK_SECONDS: Final = 5.0
"""What a call may take beyond the timeouts it had to wait for."""

KNOWN_DOWN_SECONDS: Final = 1.0
"""When everything is known to be down, a caller learns it within this time."""

RETURN_SECONDS: Final = 30.0
"""How long after its return a place may be left alone. Source: S15 of Failover Bench."""

_EARLY: Final = 0.9
"""A wait is kept when this share of it has passed; clocks differ by a little."""

_SECRET: Final = b"sk-drill"
_OK: Final = 200
_REFUSED: Final = 400


class Verdict(enum.StrEnum):
    """How a scenario went."""

    PASS = "pass"  # noqa: S105 - no secret
    """What had to come of it came of it."""
    PARTIAL = "partial"
    """The same, but not in the best way."""
    SAFE = "safe"
    """No answer, an error that says so, and nowhere else to go."""
    FAIL = "fail"


class Scene(Struct, frozen=True):
    """A scenario that has been played.

    `left_open` are the attempts that the gateway had not ended in time after the last call; `misframed` counts requests
    that were no HTTP.
    """

    part: Part
    course: Course
    timing: Timing
    stage: Stage
    max_retries: int
    resumes: bool
    received: Sequence[Received]
    attempts: Sequence[Attempt]
    left_open: Sequence[Attempt]
    misframed: int

    @property
    def scenario(self) -> Scenario:
        """Return the scenario."""
        return self.part.scenario


class Judgement(Struct, frozen=True):
    """A verdict, why in a few words, and what the operator could do about it, "" for nothing."""

    verdict: Verdict
    why: str
    advice: str = ""


def judge(scene: Scene) -> Judgement:
    """Return the verdict; the first thing that went wrong is the reason."""
    problems = [*_lies(scene), *_leaks(scene), *_excesses(scene)]
    if problems:
        return Judgement(Verdict.FAIL, problems[0])
    match scene.scenario.aim:
        case Aim.ANSWER:
            return _answered(scene)
        case Aim.PASSED_ON:
            return _passed_on(scene)
        case Aim.FAILURE:
            return _failed(scene)
        case Aim.RELEASE:
            return _remarked("the gateway left too", [] if scene.attempts else ["nobody had been called yet"])


def _lies(scene: Scene) -> Iterator[str]:
    """Yield what no caller may ever see."""
    for received in scene.received:
        if _SECRET in received.raw:
            yield "the caller was shown a provider's key"
        match received.ending:
            case "hang":
                yield f"no end after {received.elapsed_seconds:.0f} s"
            case "broken":
                yield f"neither an answer nor an error: {received.why}"
            case "whole" if received.text != TEXT and not _is_other_text(scene, received):
                yield f"a wrong answer was shown as whole: {_difference(received.text)}"
            case "error" | "left" if not TEXT.startswith(received.text):
                yield f"wrong text was shown: {_difference(received.text)}"
            case "error" if received.code in {"", "internal_error"}:
                yield f"the error is a fault of the gateway: status {received.status}, code {received.code or 'none'}"


def _is_other_text(scene: Scene, received: Received) -> bool:
    """Tell whether an answer is all of another place's own, which is honest as long as nothing else was said before."""
    return scene.scenario.has_other_text and received.text == OTHER_TEXT


def _difference(text: str) -> str:
    words = text.split()
    for number, (came, right) in enumerate(zip(words, WORDS, strict=False), 1):
        if came != right:
            return f"word {number} is {came[:20]}, not {right}"
    return f"{len(words)} words, not {len(WORDS)}"


def _leaks(scene: Scene) -> Iterator[str]:
    """Yield what is wrong with the calls to providers as such."""
    if scene.left_open:
        yield f"{len(scene.left_open)} calls to providers were still open after the end"
    if not scene.attempts and scene.scenario.strikes is not Strikes.UPSTREAM and scene.scenario.aim is not Aim.RELEASE:
        yield "no provider was called at all"
    if scene.misframed:
        yield "a request to a provider was no HTTP"


def _excesses(scene: Scene) -> Iterator[str]:
    """Yield what no provider may ever see."""
    scenario, calls = scene.scenario, len(scene.received)
    for place, attempts in _by_place(scene.attempts).items():
        # A place that refuses to continue a text may be asked for all of it besides.
        prefills = sum(attempt.prefill is not None for attempt in attempts)
        if len(attempts) - prefills > calls * (1 + scene.max_retries):
            yield f"{place[0]} was called {len(attempts)} times"
    if scenario.is_refused and len(scene.stage.struck) > calls:
        yield f"what was refused was asked again, {len(scene.stage.struck)} times in all"
    own = [place for place in scene.stage.well if place.is_own]
    if scenario.calls > 1 and scenario.aim is Aim.ANSWER and not scenario.is_outage and own:
        shown = len(scene.stage.struck)
        if shown > 1:
            yield f"a refused key was shown {shown} times, though another one was there"


def _passed_on(scene: Scene) -> Judgement:
    """Judge a refusal that the caller has to hear."""
    received = scene.received[0]
    if received.ending == "whole":
        return Judgement(Verdict.FAIL, f"the refusal was routed around, to {_last_place(scene)}")
    if len(scene.attempts) > 1:
        return Judgement(Verdict.FAIL, f"{len(scene.attempts)} attempts were made after a refusal")
    if received.status != _REFUSED:
        return Judgement(Verdict.FAIL, f"the refusal came out as status {received.status}, {received.code}")
    if scene.scenario.words not in received.message:
        return Judgement(Verdict.FAIL, f"the provider's reason was lost: {received.message[:60]}")
    return Judgement(Verdict.PASS, f"passed on: {received.code}")


def _failed(scene: Scene) -> Judgement:
    """Judge calls that nobody could answer."""
    if any(_is_other_text(scene, each) for each in scene.received):
        return Judgement(Verdict.PASS, "another whole answer, and nothing of the first")
    if any(each.ending == "whole" for each in scene.received):
        return Judgement(Verdict.FAIL, "an answer came from nowhere")
    return _remarked(_honest(scene), _remarks(scene))


def _answered(scene: Scene) -> Judgement:
    """Judge calls that deserve an answer."""
    whole = [each for each in scene.received if each.ending == "whole"]
    if wrong := _after_the_outage(scene):
        return Judgement(Verdict.FAIL, wrong)
    if len(whole) == len(scene.received):
        return _named_rightly(scene) or _remarked(_rescue(scene), _remarks(scene))
    helper = _helper(scene)
    missing = f"{len(scene.received) - len(whole)} of {len(scene.received)} calls " if len(scene.received) > 1 else ""
    if helper is not None:
        last = scene.received[-1]
        advice = 'recovery = "resume"' if last.text and not scene.resumes else ""
        return Judgement(Verdict.FAIL, f"{missing}not rescued ({last.code}), although {helper}", advice)
    if scene.scenario.is_refused and scene.received[-1].status != _REFUSED:
        return Judgement(Verdict.FAIL, f"the refusal came out as status {scene.received[-1].status}")
    return Judgement(Verdict.SAFE, _honest(scene), _advice(scene))


def _after_the_outage(scene: Scene) -> str | None:
    """Say what is wrong when the place that was out is not used again; None for all else."""
    if not scene.scenario.is_outage or not scene.timing.is_full:
        return None
    struck = scene.stage.struck
    again = [each for each in scene.attempts if each not in struck and scene.stage.is_struck(_place(each))]
    if again and again[0].arrived_at <= scene.stage.ends_at + RETURN_SECONDS:
        return None
    return f"{scene.stage.victims[0]} was not used again within {RETURN_SECONDS:.0f} s after its return"


def _helper(scene: Scene) -> str | None:
    """Say who could have helped; None when nobody could."""
    scenario, well = scene.scenario, scene.stage.well
    if scenario.in_place or not scene.stage.victims:
        return "the answer was there"
    if scenario.needs_larger_window:
        known = max((place.context_tokens or 0 for place in scene.stage.victims), default=0)
        well = [place for place in well if known and (place.context_tokens or 0) > known]
    if well:
        return f"{well[0]} was well"
    if scenario.times is not None and scene.max_retries >= scenario.times:
        return f"{scene.stage.victims[0]} was well again"
    return None


def _advice(scene: Scene) -> str:
    scenario = scene.scenario
    if scenario.needs_larger_window:
        return "a fallback with larger context_tokens, where both are stated"
    if scenario.times is not None:
        return "a fallback at another upstream, or max_retries above 0"
    return "a fallback at another upstream"


def _honest(scene: Scene) -> str:
    last = scene.received[-1]
    where = "inside the stream" if last.status == _OK else f"status {last.status}"
    return f"an honest error ({last.code}, {where})"


def _rescue(scene: Scene) -> str:
    if not scene.stage.struck or scene.scenario.in_place:
        return f"answered by {_last_place(scene)}"
    if scene.stage.is_struck(_place(scene.attempts[-1])):
        return f"answered by {_last_place(scene)} at another attempt"
    return f"rescued by {_last_place(scene)}"


def _named_rightly(scene: Scene) -> Judgement | None:
    """Return a failure when the answer names a model that did not give it; a rescued stream may name either."""
    received = scene.received[-1]
    may = {attempt.model for attempt in scene.attempts if attempt.spoke}
    if received.model in may:
        return None
    return Judgement(Verdict.FAIL, f"the answer names {received.model or 'no model'}, not {' or '.join(sorted(may))}")


def _remarks(scene: Scene) -> list[str]:
    """Return what could have been better."""
    return [*_about_attempts(scene), *_about_time(scene), *_about_answers(scene)]


def _about_attempts(scene: Scene) -> Iterator[str]:
    scenario = scene.scenario
    if scenario.in_place and len(scene.attempts) > 1:
        yield f"{len(scene.attempts)} attempts for an answer that was good"
    if scenario.once or scenario.is_silent:
        most = max((len(attempts) for attempts in _by_place(scene.stage.struck).values()), default=0)
        if most > 1:
            yield f"{scene.stage.victims[0]} was tried {most} times in vain"
    if scenario.waits and scene.stage.struck:
        yield from _about_the_wait(scene)


def _about_the_wait(scene: Scene) -> Iterator[str]:
    """Yield when the wait was not kept, or not used though nothing else serves the model itself."""
    first = scene.attempts[0]
    again = [each for each in scene.attempts[1:] if _key_of(each) == _key_of(first)]
    wait = scene.timing.retry_after_seconds
    if again and again[0].arrived_at - first.arrived_at < wait * _EARLY:
        yield f"called again after {again[0].arrived_at - first.arrived_at:.1f} s, not {wait} s"
    last = scene.attempts[-1]
    is_own = any(place.is_own and _key_of(last) == place.key for place in scene.course.places)
    if not again and not is_own:
        yield f"another model answered, though the right one asked for {wait} s only"


def _about_time(scene: Scene) -> Iterator[str]:
    scenario, timeouts = scene.scenario, scene.timing.timeouts
    last = scene.received[-1]
    if scenario.is_silent:
        places = len(_by_place(scene.stage.struck))
        allowed = places * max(timeouts.first_token_seconds, timeouts.idle_seconds) + SLACK_SECONDS
        if last.elapsed_seconds > allowed:
            yield f"took {last.elapsed_seconds:.1f} s"
    if scenario.aim is Aim.FAILURE and scenario.calls > 1 and last.elapsed_seconds > KNOWN_DOWN_SECONDS:
        yield f"known to be down, it was still told after {last.elapsed_seconds:.1f} s"


def _about_answers(scene: Scene) -> Iterator[str]:
    scenario, last = scene.scenario, scene.received[-1]
    if scenario.needs_usage and last.ending == "whole" and not last.has_usage:
        yield "the caller was not told the usage"


def _remarked(why: str, remarks: Sequence[str]) -> Judgement:
    if remarks:
        return Judgement(Verdict.PARTIAL, f"{why}, but {remarks[0]}")
    return Judgement(Verdict.PASS, why)


def _key_of(attempt: Attempt) -> tuple[str, int, str]:
    return _place(attempt).key


def _place(attempt: Attempt) -> Place:
    return Place(attempt.upstream, attempt.key_number, attempt.model, is_own=True)


def _last_place(scene: Scene) -> str:
    return str(_place(scene.attempts[-1])) if scene.attempts else "nobody"


def _by_place(attempts: Sequence[Attempt]) -> dict[tuple[str, int, str], list[Attempt]]:
    """Return the attempts of each place."""
    places = Counter(_key_of(attempt) for attempt in attempts)
    return {key: [attempt for attempt in attempts if _key_of(attempt) == key] for key in places}
