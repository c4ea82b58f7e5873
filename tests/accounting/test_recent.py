"""What was written lately is told from memory, as long as nothing of it is missing there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chatgate.accounting.recent import Recent
from chatgate.accounting.records import Failure
from chatgate.accounting.segments import START, Position

RECORDS = [Failure(f"c{number}", 1, datetime(2026, 11, 23, tzinfo=UTC), "x") for number in range(6)]
ENDS = [Position(1, 10), Position(1, 20), Position(1, 30), Position(2, 10), Position(2, 20), Position(2, 30)]


def filled(max_records: int = 100) -> Recent:
    """Return one that began at the first segment."""
    recent = Recent(max_records)
    recent.begin_at(Position(1, 0))
    for end, record in zip(ENDS, RECORDS, strict=True):
        recent.written.append((end, record))
    return recent


def test_it_has_nothing_until_it_begins() -> None:
    """Not even nothing: what there is must be looked for elsewhere."""
    assert Recent().after(START, ENDS[-1], 10) is None


def test_records_are_told_in_order_between_two_places() -> None:
    """So many at most, across segments, and again and again until they are forgotten."""
    recent = filled()
    whole = list(zip(ENDS, RECORDS, strict=True))
    assert recent.after(Position(1, 0), ENDS[-1], 100) == whole
    assert recent.after(ENDS[1], ENDS[4], 100) == whole[2:5]
    assert recent.after(ENDS[1], ENDS[4], 2) == whole[2:4]
    assert recent.after(ENDS[-1], Position(9, 0), 2) == []


def test_what_is_before_its_beginning_is_not_there() -> None:
    """Whoever has come less far reads the files."""
    recent = filled()
    assert recent.after(START, ENDS[-1], 100) is None
    recent.forget(ENDS[2])
    assert recent.after(ENDS[1], ENDS[-1], 100) is None
    assert recent.after(ENDS[2], ENDS[3], 100) == [(ENDS[3], RECORDS[3])]
    recent.forget(ENDS[0])
    assert recent.begin == ENDS[2]


def test_too_many_are_left_to_the_files() -> None:
    """A look at them has all that was written forgotten then; it goes on with what comes after."""
    recent = filled(len(ENDS))
    recent.look(ENDS[-1])
    assert recent.begin == Position(1, 0)
    recent.written.append((Position(2, 40), RECORDS[0]))
    recent.look(Position(2, 40))
    assert (recent.begin, recent.written) == (Position(2, 40), [])
    assert recent.after(ENDS[-1], Position(2, 50), 100) is None
    recent.written.append((Position(2, 50), RECORDS[1]))
    assert recent.after(Position(2, 40), Position(2, 50), 100) == [(Position(2, 50), RECORDS[1])]


def test_whoever_folds_is_told_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, until some of them are folded: while the database is away, telling again would only hurry."""
    monkeypatch.setattr("chatgate.accounting.recent.MANY", 3)
    recent = filled()
    looks: list[int] = []
    recent.on_many = lambda: looks.append(len(recent.written))
    recent.look(ENDS[-1])
    recent.look(ENDS[-1])
    assert looks == [6]
    recent.forget(ENDS[1])
    recent.look(ENDS[-1])
    assert looks == [6, 4]
    recent.forget(ENDS[3])
    recent.look(ENDS[-1])
    assert looks == [6, 4]
