"""Records to be written, a clock for their journal, and what is read of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from chatgate.accounting.journal import Journal
from chatgate.accounting.records import Dispatch, Failure, Record, Settlement
from chatgate.accounting.segments import START, Position, replay
from chatgate.accounting.usage import Usage

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        """Start somewhere in an uptime."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def dispatch(call_id: str, asked_model: str = "gpt-5-mini") -> Dispatch:
    """Return a record."""
    return Dispatch(call_id, 1, NOON, "chat", "openai", "k1", "alice", "192.0.2.1", asked_model, "m", "up", stream=True)


def settlement(call_id: str) -> Settlement:
    """Return another."""
    return Settlement(call_id, 1, NOON, "completed", 200, "", "m", Usage(3, 4, 2), 8750, "input=0.25 output=2")


RECORDS: list[Record] = [
    dispatch("c1"),
    Failure("c1", 1, NOON, "upstream_timeout", 504, 120, abandoned=True),
    settlement("c1"),
    dispatch("c2", "模型 ☃"),
]


def records(directory: Path, after: Position = START) -> list[Record]:
    """Return the whole records."""
    return [entry.record for entry in replay(directory, after) if entry.record is not None]


def damaged(directory: Path) -> list[bytes]:
    """Return what is no record."""
    return [entry.damaged for entry in replay(directory) if entry.record is None]


def write(directory: Path, clock: Clock, *what: Record) -> None:
    """Write records as one process."""
    journal = Journal(directory, clock)
    for record in what:
        journal.write(record)
    journal.close()
