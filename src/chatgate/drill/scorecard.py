"""The verdicts of a drill, for people and for programs. Prints nothing itself; called by the command line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from chatgate import __version__
from chatgate.drill.course import Course
from chatgate.drill.judge import Verdict
from chatgate.drill.run import ModelResult, Result
from chatgate.drill.scenarios import Part
from chatgate.drill.timing import Timing

EXIT_FAILED: Final = 1
_NAME_CHARACTERS: Final = 41
_INDENT_CHARACTERS: Final = 14


def opening(timing: Timing, parts: Sequence[Part]) -> str:
    """Say what is about to happen."""
    timeouts = timing.timeouts
    pace = "with the configured timeouts" if timing.is_full else "with short timeouts"
    return (
        f"chatgate {__version__} · {len(parts)} scenarios for each model, {pace} "
        f"(first token {timeouts.first_token_seconds:g} s, silence {timeouts.idle_seconds:g} s)"
    )


def heading(course: Course) -> str:
    """Name a model and where its calls can go."""
    return f"{course.asked_model} → {', '.join(course.sites)}"


def line(result: Result) -> str:
    """Say how one scenario went."""
    part = result.part
    kind = "stream" if part.stream else "whole"
    name = f"{part.scenario.name} ({kind})"
    return f"  {result.verdict:<8}{part.public:<4}{name:<{_NAME_CHARACTERS}}{result.seconds:5.1f} s  {result.why}"


def details(result: Result) -> str:
    """Return the lines that a person needs to understand a failure."""
    lines = [f"the provider {result.part.scenario.does}", f"calls went to: {result.path}"]
    if result.advice:
        lines.append(f"what would rescue it: {result.advice}")
    return "\n".join(f"{'':<{_INDENT_CHARACTERS}}{each}" for each in lines)


def summary(models: Sequence[ModelResult], seconds: float) -> str:
    """Return the lines with the sum of it."""
    return "\n".join(_summary([result for model in models for result in model.results], seconds))


def _summary(results: Sequence[Result], seconds: float) -> Iterator[str]:
    counts = Counter(result.verdict for result in results)
    yield f"{', '.join(f'{counts[verdict]} {verdict}' for verdict in Verdict)}, in {seconds:.0f} s"
    public = [result for result in results if result.part.public]
    if public:
        passed = sum(result.verdict is Verdict.PASS for result in public)
        yield f"{passed} of {len(public)} public scenarios (S01 to S16) passed"
    if counts[Verdict.SAFE]:
        yield "safe: no answer could be had, and the caller was told so. What would rescue them:"
        advice = Counter(result.advice for result in results if result.verdict is Verdict.SAFE)
        for text, times in advice.most_common():
            yield f"  {times:>3} of them: {text}"
    if counts[Verdict.PARTIAL]:
        yield "partial: the caller was served, but not in the best way"
    if counts[Verdict.FAIL]:
        yield "fail: callers or providers would suffer from this"


def exit_code(models: Sequence[ModelResult]) -> int:
    """Return 1 when anything failed, else 0."""
    failed = any(result.verdict is Verdict.FAIL for model in models for result in model.results)
    return EXIT_FAILED if failed else 0


def as_json(models: Sequence[ModelResult], timing: Timing, seconds: float) -> str:
    """Return everything as one JSON object."""
    results = [result for model in models for result in model.results]
    counts = Counter(result.verdict for result in results)
    card = {
        "version": __version__,
        "full": timing.is_full,
        "seconds": round(seconds, 3),
        "summary": {str(verdict): counts[verdict] for verdict in Verdict},
        "models": [
            {
                "model": model.course.asked_model,
                "places": list(model.course.sites),
                "results": [_plain(result) for result in model.results],
            }
            for model in models
        ],
    }
    return json.dumps(card, indent=2, ensure_ascii=False)


def _plain(result: Result) -> dict[str, object]:
    began = result.attempts[0].arrived_at if result.attempts else 0.0
    return {
        "scenario": result.part.scenario.name,
        "public": result.part.public or None,
        "stream": result.part.stream,
        "does": result.part.scenario.does,
        "verdict": str(result.verdict),
        "why": result.why,
        "advice": result.advice or None,
        "seconds": round(result.seconds, 3),
        "attempts": [
            {
                "at_seconds": round(attempt.arrived_at - began, 3),
                "place": f"{attempt.upstream}/{attempt.model}",
                "key": attempt.key_number,
                "did": attempt.did,
                "ended": attempt.ended,
            }
            for attempt in result.attempts
        ],
    }
