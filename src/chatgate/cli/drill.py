"""Own the command `chatgate drill`: show how this configuration copes with providers that misbehave.

Calls no provider and touches nothing of the gateway that runs. Exit codes: 0 fine, 1 a scenario failed, 2 wrong usage,
78 bad configuration. Run by the command line.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from chatgate.cli.options import load_or_exit, settings_options

if TYPE_CHECKING:
    from chatgate.drill.course import Course
    from chatgate.drill.run import Result
    from chatgate.drill.scenarios import Part

FEW_MODELS = 3
"""So many models are drilled unless all are asked for."""


@click.command("drill")
@settings_options
@click.option("--model", "models", multiple=True, metavar="NAME", help="Drill this model; may be given again.")
@click.option("--all", "every_model", is_flag=True, help=f"Drill every model, not only the first {FEW_MODELS}.")
@click.option("--only", multiple=True, metavar="TEXT", help="Play what has this number, or this in its name.")
@click.option("--full", is_flag=True, help="Keep the configured timeouts, and see outages end; takes minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def drill(
    *,
    models: tuple[str, ...],
    every_model: bool,
    only: tuple[str, ...],
    full: bool,
    as_json: bool,
    **arguments: object,
) -> None:
    """Run this configuration against providers that misbehave, inside this process."""
    settings = load_or_exit(arguments)
    import uvloop  # noqa: PLC0415 - a bad configuration is told before anything heavy loads

    from chatgate.drill import run, scorecard, timing  # noqa: PLC0415 - as above

    courses = run.every_course(settings)
    chosen = _chosen_courses(courses, models, every_model=every_model)
    parts = _chosen_parts(only)
    paced = (timing.full if full else timing.short)(settings.timeouts, settings.streams.drain_seconds)
    began = time.monotonic()
    if as_json:
        results = uvloop.run(run.drill(settings, paced, chosen, parts, lambda _course, _result: None))
        click.echo(scorecard.as_json(results, paced, time.monotonic() - began))
    else:
        click.echo(scorecard.opening(paced, parts))
        results = uvloop.run(run.drill(settings, paced, chosen, parts, _Printer().report))
        click.echo(f"\n{scorecard.summary(results, time.monotonic() - began)}")
        if not models and len(chosen) < len(courses):
            click.echo(f"{len(courses) - len(chosen)} more models were left out; --all drills them too")
    sys.exit(scorecard.exit_code(results))


class _Printer:
    """Prints results as they come, each model under its name."""

    def __init__(self) -> None:
        self._model = ""

    def report(self, course: Course, result: Result) -> None:
        """Print one result."""
        from chatgate.drill import scorecard  # noqa: PLC0415 - as above

        if course.asked_model != self._model:
            self._model = course.asked_model
            click.echo(f"\n{scorecard.heading(course)}")
        click.secho(scorecard.line(result), fg=_COLOURS[result.verdict])
        if result.verdict == "fail":
            click.echo(scorecard.details(result))


_COLOURS = {"pass": "green", "partial": "yellow", "safe": "cyan", "fail": "red"}


def _chosen_courses(courses: list[Course], models: tuple[str, ...], *, every_model: bool) -> list[Course]:
    if not models:
        return courses if every_model else courses[:FEW_MODELS]
    known = {course.asked_model: course for course in courses}
    if unknown := [name for name in models if name not in known]:
        raise click.BadParameter(f"{unknown[0]} is none of {', '.join(known)}", param_hint="--model")
    return [known[name] for name in models]


def _chosen_parts(only: tuple[str, ...]) -> list[Part]:
    from chatgate.drill.catalogue import parts  # noqa: PLC0415 - as above

    texts = [text.lower() for text in only]
    chosen = [part for part in parts() if not texts or any(_is_meant(part, text) for text in texts)]
    if not chosen:
        raise click.BadParameter("no scenario has this in its name", param_hint="--only")
    return chosen


def _is_meant(part: Part, text: str) -> bool:
    return text == part.public.lower() or text in part.name.lower()
