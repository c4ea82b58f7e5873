"""What was written to a journal lately, in memory, so that it need not be read again to be folded.

Owns no more than a shortcut: whatever is not here, or not any more, is in the journal's files. Filled by `journal`,
emptied by `folding`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from operator import itemgetter
from typing import Final

from chatgate.accounting.records import Record
from chatgate.accounting.segments import Position

_end_of = itemgetter(0)

MANY: Final = 1024
"""So many records are worth folding before their time: long before memory has no room for more."""

MAX_RECORDS: Final = 16_384
"""So many are kept in memory, and what comes until the next look at them."""


class Recent:
    """Records by where they end. It has all that was written after `begin`, which is None while that is nothing.

    Whoever writes a record appends it to `written`, with where it ends, and has a `look` at times. `on_many` is called
    once when there are `MANY` then, and again after some were forgotten.
    """

    def __init__(self, max_records: int = MAX_RECORDS) -> None:
        """Begin with none; when there are more than `max_records`, the files are what has them."""
        self._max_records = max_records
        self._has_told = False
        self.written: list[tuple[Position, Record]] = []
        self.begin: Position | None = None
        self.on_many: Callable[[], object] = _nobody

    def look(self, end: Position) -> None:
        """Have no more than memory has room for, and tell of many; `end` is where the last record ends."""
        if len(self.written) > self._max_records:
            self.begin_at(end)
        if len(self.written) >= MANY and not self._has_told:
            self._has_told = True
            self.on_many()

    def begin_at(self, place: Position) -> None:
        """Have nothing, and all that is written after a place."""
        self.written.clear()
        self.begin = place
        self._has_told = False

    def after(self, place: Position, through: Position, most: int) -> list[tuple[Position, Record]] | None:
        """Return the first `most` records between two places, with where they end; None when some may be missing."""
        if self.begin is None or place < self.begin:
            return None
        first = bisect_right(self.written, place, key=_end_of)
        last = bisect_right(self.written, through, first, key=_end_of)
        return self.written[first : min(last, first + most)]

    def forget(self, through: Position) -> None:
        """Let go of what lies before a place."""
        if self.begin is None or through <= self.begin:
            return
        del self.written[: bisect_right(self.written, through, key=_end_of)]
        self.begin = through
        self._has_told = False


def _nobody() -> None:
    """Tell nobody."""
