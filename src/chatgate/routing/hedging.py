"""When a second call may be sent for one that is late, and how often.

Owns what the decision rests on: a model's usual time to the first token, and the share of extra calls so far. It starts
no call. The attempts ask both, and only when hedging is switched on.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import Final

SAMPLES: Final = 128
"""How many of the latest calls say what is usual: six of them lie above the 95th percentile, so that no single one
decides, and a provider's change of pace is followed within a hundred calls."""

MIN_SAMPLES: Final = 20
"""With fewer, the 95th percentile is no more than the slowest call."""

WINDOW_CALLS: Final = 200
"""Over how many calls the share of extra ones is kept: what was not used in a calm hour must not double the load of a
provider that becomes slow."""


class FirstTokenTimes:
    """How long a model's latest calls took to their first token.

    The samples are kept twice, by age and in ascending order. That costs a binary search and moving half of 1 KiB per
    call, and makes the percentile exact and a mere look-up. An estimate in a few numbers (P²) would be smaller, but it
    never forgets the calls of last week.
    """

    __slots__ = ("_ascending", "_latest")

    def __init__(self) -> None:
        """Know nothing."""
        self._latest: deque[float] = deque()
        self._ascending: list[float] = []

    def note(self, seconds: float) -> None:
        """Take note of a call's time to the first token.

        A call that was given up because another was faster counts as well, with the time it was given: without the slow
        ones the percentile would sink with each extra call, and ask for more of them.
        """
        latest, ascending = self._latest, self._ascending
        if len(latest) == SAMPLES:
            del ascending[bisect_left(ascending, latest.popleft())]
        latest.append(seconds)
        insort(ascending, seconds)

    def p95(self) -> float | None:
        """Return the least of the noted times that 95 % of them do not exceed, None with too few to tell."""
        count = len(self._ascending)
        if count < MIN_SAMPLES:
            return None
        return self._ascending[(95 * count + 99) // 100 - 1]


class HedgeShare:
    """How many extra calls there may be.

    Law. Of any `WINDOW_CALLS` calls in a row, and of the first n, at most `share` as many again are extra.
    """

    __slots__ = ("_calls", "_share", "_taken")

    def __init__(self, share: float) -> None:
        """Take the share, from 0 for none to 1 for as many again as there are calls."""
        self._share = share
        self._calls = 0
        self._taken: deque[int] = deque()  # how many calls there had been at each of the latest extra ones

    def note_call(self) -> None:
        """Take note of a call that is not extra."""
        self._calls += 1

    def try_take(self) -> bool:
        """Tell whether an extra call may be sent, and take note of it if so."""
        taken = self._taken
        while taken and taken[0] <= self._calls - WINDOW_CALLS:
            taken.popleft()
        if len(taken) + 1 > self._share * min(self._calls, WINDOW_CALLS):
            return False
        taken.append(self._calls)
        return True
