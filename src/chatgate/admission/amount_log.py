"""How much of something one caller took, and when, in a bounded number of entries.

Owns the adding up and nothing else: it knows no rules and no callers. `meters` keeps one per caller.

Theory. What is taken of a limit counts for a window W from the moment it was taken; so the entries of the last W are
all there is to know, and their sum is kept. Entries are in ascending order of time, in integer nanoseconds, no two of
one time. What was taken exactly W ago is out of the window.

An amount that was reserved shrinks when the truth is known. Where it stands need not be remembered: neighbours that are
merged hold the later of their times, so what was taken at a time is in the first entry that is not earlier.

There is room for twice `exact` entries. When that is used up, those that say nothing go; when more than `exact` are
left, neighbours are merged as long as they hold no more than a grain together, `4 / exact` of the limit, and so is what
comes later, until the window is empty. The sum stays exact; no more than a grain at a time may leave a window late,
never early. A limit of no more than `exact` entries of 1 or more is thus counted exactly.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from msgspec import Struct

_GRAINS = 4
_HIGHEST = 2**63 - 1


class AmountLog(Struct, gc=False, eq=False):
    """What was taken, oldest first; entries before `first` have left the window, `total` is the sum of the others."""

    stamps: array[int]
    amounts: array[int]
    first: int = 0
    total: int = 0
    grain: int = 0

    @classmethod
    def empty(cls) -> AmountLog:
        """Return a log of nothing."""
        return cls(array("q"), array("q"))

    def copy(self) -> AmountLog:
        """Return a log of the same that goes its own way."""
        return AmountLog(self.stamps[:], self.amounts[:], self.first, self.total, self.grain)

    def used(self, edge_ns: int) -> int:
        """Return how much was taken after a time, the edge of the window, which never goes back."""
        stamps, first = self.stamps, self.first
        if first < len(stamps) and stamps[first] <= edge_ns:
            while first < len(stamps) and stamps[first] <= edge_ns:
                self.total -= self.amounts[first]
                first += 1
            self.first = first
        return self.total

    def add(self, now_ns: int, amount: int, exact: int, limit: int) -> None:
        """Record what is taken of a limit now; `now_ns` never goes back."""
        stamps, amounts = self.stamps, self.amounts
        if not amount:
            return
        total = self.total + amount
        if total > _HIGHEST:
            amount, total = amount - (total - _HIGHEST), _HIGHEST
        self.total = total
        if self.first < len(stamps):
            if stamps[-1] == now_ns or amounts[-1] + amount <= self.grain:
                stamps[-1] = now_ns
                amounts[-1] += amount
                return
        else:
            self.grain = 0
        stamps.append(now_ns)
        amounts.append(amount)
        if len(stamps) > 2 * exact:
            self._shorten(exact, limit)

    def give_back(self, at_ns: int, amount: int) -> None:
        """Take back a part of what was taken at a time that is still in the window."""
        stamps, amounts = self.stamps, self.amounts
        amounts[bisect_left(stamps, at_ns, self.first)] -= amount
        self.total -= amount
        while len(stamps) > self.first and not amounts[-1]:
            stamps.pop()
            amounts.pop()

    def freed_by(self, amount: int) -> int:
        """Return the time of the entry with whose leaving so much has left; that much is there."""
        for at in range(self.first, len(self.stamps)):
            amount -= self.amounts[at]
            if amount <= 0:
                break
        return self.stamps[at]

    def _shorten(self, exact: int, limit: int) -> None:
        """Drop the entries that say nothing; merge neighbours if many are left nevertheless."""
        old_stamps, old_amounts = self.stamps[self.first :], self.amounts[self.first :]
        entries = sum(map(bool, old_amounts))
        grain = self.grain = max(limit, self.total) * _GRAINS // exact if entries > exact else 0
        stamps, amounts = array("q"), array("q")
        for stamp, amount in zip(old_stamps, old_amounts, strict=True):
            if not amount:
                continue
            if amounts and amounts[-1] + amount <= grain:
                stamps[-1] = stamp
                amounts[-1] += amount
            else:
                stamps.append(stamp)
                amounts.append(amount)
        self.stamps, self.amounts, self.first = stamps, amounts, 0
