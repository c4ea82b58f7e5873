"""The rows that records add up to, and the balances that rows add up to.

Owns what a record means, as pure functions: the definition that storage follows in SQL, and what a start or an audit
computes from a journal. Folding a record again changes nothing, and records of different calls may come in any order.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from msgspec import Struct

from chatgate.accounting.records import Dispatch, Failure, Record, Settlement


class State(enum.StrEnum):
    """What is known of a call."""

    DISPATCHED = "dispatched"
    """It is under way: what it reserved is held."""
    SETTLED = "settled"
    """It has ended: what it cost is spent."""
    UNKNOWN = "unknown"
    """Its process ended first: what it reserved counts as spent, as an upper bound."""


class Row(Struct):
    """A call, with its attempts by number; a failed attempt is there with its failure, any other with None.

    `first` is None for a call whose `Dispatch` was lost: it has no accounts.
    """

    state: State = State.DISPATCHED
    first: Dispatch | None = None
    settlement: Settlement | None = None
    attempts: dict[int, Failure | None] = {}


def fold(rows: dict[str, Row], record: Record) -> None:
    """Add a record to the rows, which are by the call's id."""
    row = rows.get(record.call_id)
    if row is None:
        row = rows[record.call_id] = Row()
    if isinstance(record, Dispatch):
        if row.first is None or record.attempt < row.first.attempt:
            row.first = record
        row.attempts.setdefault(record.attempt, None)
    elif isinstance(record, Failure):
        row.attempts[record.attempt] = record
    elif row.settlement is None:
        row.settlement = record
        row.state = State.SETTLED
        row.attempts.setdefault(record.attempt, None)


def interrupt(rows: Iterable[Row]) -> int:
    """Say of all calls under way that their process has ended; return how many there were."""
    interrupted = [row for row in rows if row.state is State.DISPATCHED]
    for row in interrupted:
        row.state = State.UNKNOWN
    return len(interrupted)


def totals(rows: Iterable[Row]) -> Mapping[str, tuple[int, int]]:
    """Return what is spent and what is held in each account that has something of either, in nano-USD."""
    sums: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.first is None:
            continue
        reserved = row.first.reserved_nano_usd
        spent = row.settlement.charged_nano_usd if row.settlement else reserved if row.state is State.UNKNOWN else 0
        held = reserved if row.state is State.DISPATCHED else 0
        if spent or held:
            for account in row.first.accounts:
                before = sums.get(account, (0, 0))
                sums[account] = before[0] + spent, before[1] + held
    return sums
