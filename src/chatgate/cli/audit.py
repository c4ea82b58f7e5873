"""Own the command `chatgate audit`: whether every counter of the ledger is what its rows add up to.

Reads one moment of the database, while the gateway runs or not, and changes nothing. The last line is `drift 0`, or how
many counters differ. Exit codes: 0 none does, 1 some do or the database cannot be used, 78 bad configuration. Run by
the command line.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from chatgate.cli.chat.printable import printable
from chatgate.cli.options import load_or_exit, storage_options
from chatgate.cli.storage import opened
from chatgate.storage.audit import audit as recompute
from chatgate.vocabulary.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatgate.storage.audit import Audit, Difference


@click.command("audit")
@click.option("--json", "as_json", is_flag=True, help="For programs: the counts, and every difference.")
@storage_options
def audit(*, as_json: bool, **arguments: object) -> None:
    """Recompute every counter from the ledger's rows."""
    settings = load_or_exit(arguments)
    with opened(settings) as database:
        found = database.read(recompute)
    drift = len(found.differences)
    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(found), "drift": drift}, ensure_ascii=False, indent=2))
    else:
        for line in described(found):
            click.echo(line)
        click.echo(f"drift {drift}")
    sys.exit(1 if drift else 0)


def described(found: Audit) -> Iterator[str]:
    """Yield what was found as lines, all but the last."""
    calls, attempts = _counted(found.calls, "call"), _counted(found.attempts, "attempt")
    yield f"{calls} in {attempts}, {_counted(found.accounts, 'account')}"
    if found.open_calls:
        yield f"{_counted(found.open_calls, 'call')} under way"
    if found.unknown_calls:
        yield f"{_counted(found.unknown_calls, 'call')} interrupted: what was reserved counts as spent"
    if found.quarantined:
        yield f"{_counted(found.quarantined, 'record')} in quarantine: no row could be made of that"
    yield from map(_described, found.differences)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _described(difference: Difference) -> str:
    subject = printable(difference.subject)
    if difference.counter == "endings":
        return f"call {subject}: {difference.stored} of its rows end it"
    word = "spent" if difference.counter == "spent_nano_usd" else "reserved"
    stored, computed = format_usd(difference.stored), format_usd(difference.computed)
    return f"{subject}: {word} is ${stored}, its rows add up to ${computed}"
