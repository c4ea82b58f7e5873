"""Verdicts, case by case."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from chatgate.drill.answers import TEXT, WORDS
from chatgate.drill.caller import Received
from chatgate.drill.catalogue import parts
from chatgate.drill.course import Course, Place
from chatgate.drill.judge import Judgement, Scene, Verdict, judge
from chatgate.drill.provider import Attempt
from chatgate.drill.scenarios import Part
from chatgate.drill.stage import Stage
from chatgate.drill.timing import short
from chatgate.vocabulary.upstreams import Timeouts

PACE = short(Timeouts(), 1.0)
MAIN = Place("main", 1, "gpt", is_own=True)
OTHER_KEY = Place("main", 2, "gpt", is_own=True)
BACKUP = Place("backup", 1, "llama", is_own=False)
WHOLE = Received(200, "whole", text=TEXT, model="llama", has_usage=True)
ERROR = Received(502, "error", code="upstream_error", message="no")
HALF = Received(200, "error", text=" ".join(WORDS[:40]), code="upstream_error", message="no")
SLOW = 30.0


def part(name: str, *, stream: bool = True) -> Part:
    """Return a scenario by its name."""
    return next(each for each in parts() if each.scenario.name == name and each.stream is stream)


def attempt(place: Place, at: float = 0.0, **more: Any) -> Attempt:
    """Return an attempt at a place that has ended."""
    return Attempt(place.upstream, place.key_number, place.model, True, True, None, at, ended="answered", **more)  # noqa: FBT003 - its fields in their order


def judged(
    name: str,
    received: Received | list[Received],
    *attempts: Attempt,
    places: tuple[Place, ...] = (MAIN, BACKUP),
    stream: bool = True,
    **more: Any,
) -> Judgement:
    """Judge a scenario in which these attempts arrived and this was received."""
    chosen = part(name, stream=stream)
    course = Course("gpt", places)
    stage = Stage(chosen.scenario, course, PACE, lambda: 0.0)
    for each in attempts:
        stage.conduct(each)
    calls = received if isinstance(received, list) else [received]
    usual: dict[str, Any] = {"max_retries": 2, "resumes": True, "left_open": [], "misframed": 0}
    return judge(
        Scene(part=chosen, course=course, timing=PACE, stage=stage, received=calls, attempts=attempts, **usual | more)
    )


AT_MAIN = attempt(MAIN)
SPOKE = attempt(MAIN, spoke=True)
AT_BACKUP = attempt(BACKUP, 0.1, spoke=True)


def test_a_rescue_passes() -> None:
    """The whole answer, from who was well, under its name."""
    assert judged("overloaded", WHOLE, AT_MAIN, AT_BACKUP) == Judgement(Verdict.PASS, "rescued by backup/llama")


FAILURES: list[tuple[str, str, Received, tuple[Attempt, ...], str]] = [
    ("a hang", "overloaded", structs.replace(ERROR, ending="hang", elapsed_seconds=9), (AT_MAIN,), "no end after 9 s"),
    ("no end", "overloaded", Received(200, "broken", "cut"), (AT_MAIN,), "neither an answer nor an error: cut"),
    ("cut", "stream cut", structs.replace(WHOLE, text=HALF.text), (SPOKE,), "40 words, not 60"),
    (
        "doubled",
        "stream cut",
        structs.replace(WHOLE, text=f"{HALF.text} {TEXT}"),
        (SPOKE, AT_BACKUP),
        "word 41 is tok0",
    ),
    ("mixed", "stream cut", structs.replace(HALF, text=f"{HALF.text} tok7"), (SPOKE,), "word 41 is tok7, not tok40"),
    ("our fault", "overloaded", structs.replace(ERROR, code="internal_error"), (AT_MAIN,), "a fault of the gateway"),
    ("a bare error", "overloaded", structs.replace(ERROR, code=""), (AT_MAIN,), "code none"),
    ("a key", "overloaded", structs.replace(ERROR, raw=b"sk-drill-0-1"), (AT_MAIN,), "a provider's key"),
    ("another name", "who answered", structs.replace(WHOLE, model="gpt"), (AT_MAIN, AT_BACKUP), "names gpt, not llama"),
    ("nobody called", "overloaded", ERROR, (), "no provider was called"),
    ("too many", "overloaded", WHOLE, (*[AT_MAIN] * 4, AT_BACKUP), "main was called 4 times"),
    ("not rescued", "overloaded", ERROR, (AT_MAIN,), "although backup/llama was well"),
    ("not retried", "one server error", ERROR, (AT_MAIN,), "although backup/llama was well"),
    ("not skipped", "malformed event", HALF, (SPOKE,), "although the answer was there"),
    ("routed around", "content refused", WHOLE, (AT_MAIN, AT_BACKUP), "routed around, to backup/llama"),
    ("tried elsewhere", "content refused", ERROR, (AT_MAIN, AT_BACKUP), "2 attempts were made"),
    ("turned into another", "content refused", ERROR, (AT_MAIN,), "came out as status 502"),
    (
        "reason lost",
        "content refused",
        Received(400, "error", code="x", message="no"),
        (AT_MAIN,),
        "the provider's reason was lost",
    ),
    ("asked again", "context too long", WHOLE, (AT_MAIN, AT_MAIN, AT_BACKUP), "asked again, 2 times"),
    ("from nowhere", "everything down", structs.replace(WHOLE), (AT_MAIN,), "an answer came from nowhere"),
]


@pytest.mark.parametrize(
    ("name", "received", "attempts", "why"), [each[1:] for each in FAILURES], ids=[each[0] for each in FAILURES]
)
def test_a_failure_fails(name: str, received: Received, attempts: tuple[Attempt, ...], why: str) -> None:
    """Whatever a caller or a provider would suffer from fails, and the reason says what it was."""
    judgement = judged(name, received, *attempts)
    assert (judgement.verdict, why in judgement.why) == (Verdict.FAIL, True), judgement


def test_leaks_fail() -> None:
    """An attempt that is still open, or one that was no HTTP, spoils even a whole answer."""
    assert judged("overloaded", WHOLE, AT_MAIN, AT_BACKUP, left_open=[AT_MAIN]).verdict is Verdict.FAIL
    assert judged("overloaded", WHOLE, AT_MAIN, AT_BACKUP, misframed=1).verdict is Verdict.FAIL


def test_an_honest_error_is_safe_where_nobody_is_well() -> None:
    """The advice says what would have helped."""
    assert judged("overloaded", ERROR, AT_MAIN, places=(MAIN,)) == Judgement(
        Verdict.SAFE, "an honest error (upstream_error, status 502)", "a fallback at another upstream"
    )
    once = judged("one server error", ERROR, AT_MAIN, places=(MAIN,), max_retries=0)
    assert (once.verdict, once.advice) == (Verdict.SAFE, "a fallback at another upstream, or max_retries above 0")
    assert judged("one server error", ERROR, AT_MAIN, places=(MAIN,)).verdict is Verdict.FAIL


def test_a_cut_that_is_not_rescued_names_the_setting() -> None:
    """Who chose an error instead of a rescue is told so."""
    assert judged("stream cut", HALF, SPOKE, resumes=False).advice == 'recovery = "resume"'
    assert not judged("stream cut", HALF, SPOKE).advice


@pytest.mark.parametrize(
    ("main", "backup", "verdict"),
    [(8, 32, Verdict.FAIL), (8, None, Verdict.SAFE), (None, 32, Verdict.SAFE), (32, 8, Verdict.SAFE)],
)
def test_only_a_larger_window_must_help(main: int | None, backup: int | None, verdict: Verdict) -> None:
    """A refusal for length must be rescued where a larger window is known, and may be passed on elsewhere."""
    places = (structs.replace(MAIN, context_tokens=main), structs.replace(BACKUP, context_tokens=backup))
    refused = Received(400, "error", code="context_length_exceeded", message="too long")
    assert judged("context too long", refused, AT_MAIN, places=places).verdict is verdict
    assert judged("context too long", WHOLE, AT_MAIN, AT_BACKUP, places=places).verdict is Verdict.PASS


def test_a_wait_is_kept_or_avoided() -> None:
    """The same place after its wait, or another place for the same model at once, but not another model."""
    name, again = "rate limit with a wait", structs.replace(WHOLE, model="gpt")
    kept = judged(name, again, AT_MAIN, attempt(MAIN, 1.0, spoke=True))
    hurried = judged(name, again, AT_MAIN, attempt(MAIN, 0.2, spoke=True))
    other_key = judged(name, again, AT_MAIN, attempt(OTHER_KEY, 0.1, spoke=True), places=(MAIN, OTHER_KEY, BACKUP))
    other_model = judged(name, WHOLE, AT_MAIN, AT_BACKUP)
    verdicts = [kept.verdict, hurried.verdict, other_key.verdict, other_model.verdict]
    assert verdicts == [Verdict.PASS, Verdict.PARTIAL, Verdict.PASS, Verdict.PARTIAL]


REMARKS = [
    ("silent twice", "no answer at all", WHOLE, (AT_MAIN, AT_MAIN, AT_BACKUP), "tried 2 times in vain"),
    ("slow", "no answer at all", structs.replace(WHOLE, elapsed_seconds=SLOW), (AT_MAIN, AT_BACKUP), "took 30.0 s"),
    ("no usage", "no [DONE]", structs.replace(WHOLE, model="gpt", has_usage=False), (SPOKE,), "not told the usage"),
    ("again", "malformed event", WHOLE, (SPOKE, AT_BACKUP), "2 attempts for an answer that was good"),
]


@pytest.mark.parametrize(
    ("name", "received", "attempts", "why"), [each[1:] for each in REMARKS], ids=[each[0] for each in REMARKS]
)
def test_what_could_be_better_is_remarked(
    name: str, received: Received, attempts: tuple[Attempt, ...], why: str
) -> None:
    """The caller was served, and yet it is not a pass."""
    judgement = judged(name, received, *attempts)
    assert (judgement.verdict, why in judgement.why) == (Verdict.PARTIAL, True), judgement


def test_who_is_known_to_be_down_is_told_quickly() -> None:
    """The last of several calls into nothing has to end at once."""
    calls = [ERROR] * 7
    attempts = [AT_MAIN] * 8
    assert judged("everything down", [*calls, ERROR], *attempts).verdict is Verdict.PASS
    late = judged("everything down", [*calls, structs.replace(ERROR, elapsed_seconds=1.5)], *attempts)
    assert late.verdict is Verdict.PARTIAL


def test_a_refused_key_is_not_shown_again_while_another_one_is_there() -> None:
    """With another key a refusal is one attempt; with a fallback alone it may be tried again."""
    calls = [structs.replace(WHOLE, model="gpt")] * 3
    other = attempt(OTHER_KEY, spoke=True)
    places = (MAIN, OTHER_KEY, BACKUP)
    assert judged("key refused", calls, AT_MAIN, other, other, other, places=places).verdict is Verdict.PASS
    again = judged("key refused", calls, AT_MAIN, other, AT_MAIN, other, other, places=places)
    assert (again.verdict, "shown 2 times" in again.why) == (Verdict.FAIL, True)
    alone = judged("key refused", [WHOLE] * 3, *[AT_MAIN, AT_BACKUP] * 3)
    assert alone.verdict is Verdict.PASS


def test_a_release_needs_somebody_to_release() -> None:
    """A caller who left before anybody was called shows nothing."""
    left = Received(0, "left")
    assert judged("caller leaves early", left, AT_MAIN).verdict is Verdict.PASS
    assert judged("caller leaves early", left).verdict is Verdict.PARTIAL
