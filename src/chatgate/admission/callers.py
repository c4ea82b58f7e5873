"""Which log holds a caller's calls, in bounded memory whatever the number of callers.

Owns the table of callers and what happens when it is full; knows neither rules nor clocks. `limits` is the only user.

A caller has a log of its own while there is room. Each newcomer first has a few old entries looked at, in turn, and
those are forgotten whose calls have all left the longest window: there is nothing to know about them. When the table
is full nevertheless, newcomers share logs by neighbourhood (IPv4 /20, IPv6 /40). A shared log counts every call of each
caller in it and those of others too, so a limit may come early but is never exceeded; and nobody who has a log of his
own loses it while a call in it still counts. Who later gets one of his own takes what the shared one holds along.
"""

from __future__ import annotations

from chatgate.admission.sliding_log import SlidingLog

_LOOKED_AT = 4
"""Entries examined per newcomer: so they leave faster than they come, and no call pays for all."""


class Callers:
    """A bounded table of logs."""

    def __init__(self, window_ns: int, *, max_stamps: int, max_callers: int, max_shared: int, seed: int) -> None:
        """`window_ns` is the longest window, after which a call is forgotten; `max_stamps` bounds one log.

        There are at most `max_callers` logs of their own and `max_shared` shared ones. `seed` decides which
        neighbourhoods share, so that nobody outside can choose whom to share with.
        """
        self._window_ns = window_ns
        self._max_stamps = max_stamps
        self._max_callers = max_callers
        self._max_shared = max_shared
        self._seed = seed
        self.own: dict[int, SlidingLog] = {}
        self._shared: dict[int, SlidingLog] = {}
        self._turn: list[int] = []
        self._next = 0

    def shared(self, who: int) -> SlidingLog | None:
        """Return the log that counts for a caller without one of its own; None when it has not called."""
        return self._shared.get(self._slot(who)) if self._shared else None

    def record(self, who: int, now_ns: int) -> None:
        """Record a call; makes room for the caller when it is new."""
        log = self.own.get(who)
        if log is None:
            log = self._welcome(who, now_ns)
        log.add(now_ns, self._window_ns, self._max_stamps)

    def _welcome(self, who: int, now_ns: int) -> SlidingLog:
        """Return a log for a newcomer: its own, or when there is no room, its neighbourhood's."""
        self._forget_some(now_ns)
        slot = self._slot(who)
        shared = self._shared.get(slot)
        if shared is not None and self._is_over(shared, now_ns):
            del self._shared[slot]
            shared = None
        if len(self.own) >= self._max_callers:
            return self._shared.setdefault(slot, shared or SlidingLog.empty())
        log = self.own[who] = SlidingLog.empty() if shared is None else shared.copy()
        self._turn.append(who)
        return log

    def _forget_some(self, now_ns: int) -> None:
        """Look at the next few entries, and forget those that say nothing any more."""
        for _ in range(min(_LOOKED_AT, len(self._turn))):
            at = self._next % len(self._turn)
            self._next = at + 1
            who = self._turn[at]
            if self._is_over(self.own[who], now_ns):
                del self.own[who]
                self._turn[at] = self._turn[-1]
                self._turn.pop()

    def _is_over(self, log: SlidingLog, now_ns: int) -> bool:
        return log.stamps[-1] <= now_ns - self._window_ns

    def _slot(self, who: int) -> int:
        """Return the shared log of a neighbourhood. IPv6 callers are their upper 64 bits under a flag bit."""
        neighbourhood = who >> 24 if who >> 64 else who >> 12
        return hash((self._seed, neighbourhood)) % self._max_shared
