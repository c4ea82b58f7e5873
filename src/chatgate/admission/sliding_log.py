"""The times of one caller's admitted calls, in a bounded number of stamps.

Owns the counting and nothing else: it knows no rules and no callers. `address_limits` reads it to judge, `callers`
keeps one per caller.

Theory. A limit of N per window W holds for every window when, at each admission, fewer than N calls were admitted in
the W before it; so the times of the last N admissions are all there is to know. A log stores them in ascending order as
integer nanoseconds. A call exactly W ago is out of the window.

When there would be too many stamps, two neighbours become one that stands for both calls and holds the later time, and
again when that is still too many. So each stamp stands for `grain` calls, a power of two, except the last, which may
have room for `spare` more. The calls are still counted exactly; only those of the one stamp at a window's edge leave it
late, all together. The count of a window is therefore never too low, and too high by fewer than `grain` calls.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from msgspec import Struct


class SlidingLog(Struct, gc=False, eq=False):
    """Admission times, oldest first. They are read by those who judge.

    Calls at or after index `first` of the stamps number `(len(stamps) - first) * grain - spare`, and 0 when `first` is
    the length. Whoever judges may note what came of it: before `calm_until` no call leaves a window that is asked for,
    and `left` more may be admitted, `form` being what tells of it. `count` leaves that to be kept up, anything else
    that changes the log ends the calm.
    """

    stamps: array[int]
    grain: int = 1
    spare: int = 0
    calm_until: int = 0
    left: int = 0
    form: bytes = b""

    @classmethod
    def empty(cls) -> SlidingLog:
        """Return a log of no calls."""
        return cls(array("q"))

    def copy(self) -> SlidingLog:
        """Return a log of the same calls that goes its own way."""
        return SlidingLog(self.stamps[:], self.grain, self.spare)

    def add(self, now_ns: int, window_ns: int, max_stamps: int) -> None:
        """Record a call, as `count`. Those that are older than the window may be dropped."""
        self.drop(bisect_right(self.stamps, now_ns - window_ns))
        self.count(now_ns, max_stamps)
        self.calm_until = 0

    def drop(self, gone: int) -> None:
        """Drop the first stamps, for which nobody asks any more, once they are worth it.

        An eighth at a time, so that the cost of moving the rest is constant per call.
        """
        stamps = self.stamps
        if gone > len(stamps) >> 3:
            del stamps[:gone]
            if not stamps:
                self.grain, self.spare = 1, 0

    def count(self, now_ns: int, max_stamps: int) -> None:
        """Record a call; `now_ns` never goes back. More stamps than `max_stamps`, an odd number, make the log coarser.

        When at most N calls are recorded in any window, and what has left it is dropped before others leave, there are
        never more than 8/7 N stamps, however long it goes on.
        """
        if self.spare:
            self.stamps[-1] = now_ns
            self.spare -= 1
            return
        stamps = self.stamps
        stamps.append(now_ns)
        self.spare = self.grain - 1
        if len(stamps) > max_stamps:
            self.stamps = stamps[1::2]
            self.grain *= 2

    def remove(self, at_ns: int) -> None:
        """Forget a call that was recorded at a time, as far as it can be told from others; at once, it always can."""
        stamps = self.stamps
        self.calm_until = 0
        if self.grain > 1:
            if stamps and stamps[-1] == at_ns:
                self.spare += 1
                if self.spare == self.grain:
                    stamps.pop()
                    self.spare = 0
            return
        at = bisect_left(stamps, at_ns)
        if at < len(stamps) and stamps[at] == at_ns:
            del stamps[at]
