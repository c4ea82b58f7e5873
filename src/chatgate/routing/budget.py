"""How many further attempts an upstream may see: a fifth of its first calls, and a few.

Owns the counting for one upstream and nothing else: it does not know why a call is tried again, nor where. The attempts
ask it before each one at an upstream that has already seen the call.

Law. In every window of 10 s, wherever it begins, an upstream sees at most

    calls / 5 + 10

further attempts, when `calls` is the number of first calls in that window. With everything down a busy gateway thus
sends 1.2 times what it was asked for, and a quiet one may still retry.

Theory. No window may be over, so none of those that begin between two events and are still going on: what matters is,
over all moments s of the last 10 s, the largest number of attempts since s less a fifth of the calls since s. Call that
the debt. An attempt adds 1 to it. A call takes 1/5 from it, unless it is 0: an attempt that comes later begins windows
of its own, which do not hold that call. And when the window moves on, what is left of the oldest attempt drops out.
So an attempt owes five calls, the newest one is paid first, and after 10 s it owes nothing. A queue with the attempt's
time for each call that is owed is all there is to know, and it is never longer than fifty.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_SECONDS: Final = 10.0
"""How long first calls speak for further attempts, as in Finagle's retry budgets: long enough for a few calls a second
to count, short enough for yesterday's calm not to pay for today's storm."""

CALLS_PER_RETRY: Final = 5
"""20 %, as in Envoy's and Finagle's retry budgets."""

FREE_RETRIES: Final = 10
"""What a window allows without any call: a gateway for one person makes a call a minute, and wants it rescued."""


class RetryBudget:
    """What one upstream has been asked again, and what was earned by first calls."""

    __slots__ = ("owed",)

    def __init__(self) -> None:
        """Owe nothing."""
        self.owed: deque[float] = deque()

    def note_call(self) -> None:
        """Take note of a first attempt of a call; while nothing is `owed` that changes nothing."""
        if self.owed:
            self.owed.pop()

    def try_take(self, now: float) -> bool:
        """Tell whether a further attempt may go there, and take note of it if so. `now` is in monotonic seconds."""
        owed = self.owed
        while owed and owed[0] <= now - WINDOW_SECONDS:
            owed.popleft()
        if len(owed) > (FREE_RETRIES - 1) * CALLS_PER_RETRY:
            return False
        owed.extend((now,) * CALLS_PER_RETRY)
        return True
