"""Own the command `chatgate usage`: what was used, by key, model, day and more, for people and for programs.

Reads one moment of the database, which a running gateway brings up to date about every second, and changes nothing.
Exit codes: 0 fine, 1 when the database or the file cannot be used, 2 wrong usage, 78 bad configuration. Run by the
command line.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from chatgate.administration.usages import described, read_groupings, read_since
from chatgate.cli.options import load_or_exit, storage_options
from chatgate.cli.storage import opened
from chatgate.cli.usage_table import table
from chatgate.storage.usage import GROUPINGS
from chatgate.storage.usage import usage as read_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from chatgate.storage.usage import Grouping, Usage

Result = TypeVar("Result")

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins with one of these for a formula."""


@click.command("usage")
@click.option("--by", default="key,model", metavar="LIST", help=f"Groups: {', '.join(GROUPINGS)}; else key,model.")
@click.option("--since", metavar="TIME", help="Only calls since then: 90m, 24h, 7d, 2w ago, or 2026-11-01 (UTC).")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of groups.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write a table for spreadsheets; - for standard output.")
@storage_options
def usage(by: str, since: str | None, csv_file: str | None, *, as_json: bool, **arguments: object) -> None:
    """Show calls, tokens and cost."""
    groupings = _read(by, read_groupings, "--by")
    first = None if since is None else _read(since, lambda text: read_since(text, datetime.now(UTC)), "--since")
    settings = load_or_exit(arguments)
    with opened(settings) as database:
        groups = database.read(read_usage, groupings, since=first)
    if csv_file is not None:
        _write_csv(groupings, groups, csv_file)
    if as_json:
        click.echo(json.dumps([described(groupings, group) for group in groups], ensure_ascii=False, indent=2))
    elif csv_file is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in table(groupings, groups, first, width, blocks=_takes_blocks()):
            click.echo(line)


def _read(text: str, read: Callable[[str], Result], option: str) -> Result:
    """Read an option's text. Raises `click.BadParameter`."""
    try:
        return read(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _write_csv(groupings: Sequence[Grouping], groups: Sequence[Usage], target: str) -> None:
    if target == "-":
        _write_rows(sys.stdout, groupings, groups)
        return
    try:
        with Path(target).open("w", encoding="utf-8", newline="") as file:
            _write_rows(file, groupings, groups)
    except OSError as error:
        click.echo(f"chatgate: {target} cannot be written: {error.strerror}", err=True)
        sys.exit(1)
    click.echo(f"{len(groups)} groups are in {target}", err=True)


def _write_rows(file: TextIO, groupings: Sequence[Grouping], groups: Sequence[Usage]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    names = [name for grouping in groupings for name in ((grouping, "key_name") if grouping == "key" else (grouping,))]
    numbers = ["calls", "input_tokens", "output_tokens", "cost_usd", "unknown_calls", "unknown_usd"]
    numbers += ["own_key_calls", "own_key_usd"]
    writer.writerow(names + numbers)
    for group in groups:
        told = described(groupings, group)
        writer.writerow([*_safe(told[name] for name in names), *(told[name] for name in numbers)])


def _safe(texts: Iterator[str | None]) -> Iterator[str]:
    """Yield texts so that no spreadsheet takes one for a formula; a caller chooses the model's name."""
    for text in texts:
        cell = text or ""
        yield f"'{cell}" if cell.startswith(_FORMULA) else cell


def _takes_blocks() -> bool:
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
