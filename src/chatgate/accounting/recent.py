"""What was written to a journal lately, in memory, so that it need not be read again to be folded.

Owns no more than a shortcut: whatever is not here, or not any more, is in the journal's files. Filled by `journal`,
emptied by `folding`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from chatgate.accounting.records import Record
from chatgate.accounting.segments import Position

MANY: Final = 2048
"""So many records are worth folding before their time: long before memory has no room for more."""


class Recent:
    """Records by where they end. It has all that was written after `begin`, which is None while that is nothing.

    `on_many` is called whenever their number comes to `MANY`.
    """

    def __init__(self, max_records: int = 8 * MANY) -> None:
        """Begin with none; when there would be more than `max_records`, the files are what has them."""
        self._max_records = max_records
        self._ends: list[Position] = []
        self._records: list[Record] = []
        self.begin: Position | None = None
        self.on_many: Callable[[], object] = _nobody

    def add(self, end: Position, record: Record) -> None:
        """Take a record that was written."""
        records = self._records
        if len(records) >= self._max_records:
            self.begin_at(end)
            return
        self._ends.append(end)
        records.append(record)
        if len(records) == MANY:
            self.on_many()

    def begin_at(self, place: Position) -> None:
        """Have nothing, and all that is written after a place."""
        self._ends.clear()
        self._records.clear()
        self.begin = place

    def after(self, place: Position, through: Position, most: int) -> list[tuple[Position, Record]] | None:
        """Return the first `most` records between two places, with where they end; None when some may be missing."""
        if self.begin is None or place < self.begin:
            return None
        first = bisect_right(self._ends, place)
        last = min(bisect_right(self._ends, through), first + most)
        return list(zip(self._ends[first:last], self._records[first:last], strict=True))

    def forget(self, through: Position) -> None:
        """Let go of what lies before a place."""
        if self.begin is None or through <= self.begin:
            return
        count = bisect_right(self._ends, through)
        del self._ends[:count], self._records[:count]
        self.begin = through


def _nobody() -> None:
    """Tell nobody."""
