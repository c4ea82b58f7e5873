"""Which log holds what a caller took, in bounded memory whatever the number of callers.

Owns the table of callers and what happens when it is full; knows neither rules nor clocks, nor what a log holds.
`address_limits` and `meters` are the users.

A caller has a log of its own while there is room. Each newcomer first has a few old entries looked at, in turn, and
those are forgotten of which everything has left the longest window: there is nothing to know about them. When the table
is full nevertheless, newcomers share logs by neighbourhood (IPv4 /20, IPv6 /40; for other callers, by chance). A shared
log counts every call of each caller in it and those of others too, so a limit may come early but is never exceeded; and
nobody who has a log of his own loses it while a call in it still counts. Who later gets one of his own takes what the
shared one holds along.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from array import array

    from chatgate.admission.rules import Subject

_LOOKED_AT = 4
"""Entries examined per newcomer: so they leave faster than they come, and no call pays for all."""


class Log(Protocol):
    """What a table keeps of a caller: something with times, oldest first."""

    stamps: array[int]


LogType = TypeVar("LogType", bound=Log)


class Callers(Generic[LogType]):
    """A bounded table of logs."""

    def __init__(
        self,
        window_ns: int,
        empty: Callable[[], LogType],
        copy: Callable[[LogType], LogType],
        *,
        max_callers: int,
        max_shared: int,
        seed: int,
    ) -> None:
        """`window_ns` is the longest window, after which a call is forgotten; `empty` and `copy` make logs.

        There are at most `max_callers` logs of their own and `max_shared` shared ones. `seed` decides which
        neighbourhoods share, so that nobody outside can choose whom to share with.
        """
        self._window_ns = window_ns
        self._empty = empty
        self._copy = copy
        self._max_callers = max_callers
        self._max_shared = max_shared
        self._seed = seed
        self.own: dict[Subject, LogType] = {}
        self._shared: dict[int, LogType] = {}
        self._turn: list[Subject] = []
        self._next = 0

    def shared(self, who: Subject) -> LogType | None:
        """Return the log that counts for a caller without one of its own; None when it has not called."""
        return self._shared.get(self._slot(who)) if self._shared else None

    def welcome(self, who: Subject, now_ns: int) -> LogType:
        """Return a log for a caller without one: its own, or when there is no room, its neighbourhood's."""
        self._forget_some(now_ns)
        slot = self._slot(who)
        shared = self._shared.get(slot)
        if shared is not None and self._is_over(shared, now_ns):
            del self._shared[slot]
            shared = None
        if len(self.own) >= self._max_callers:
            return self._shared.setdefault(slot, shared or self._empty())
        log = self.own[who] = self._empty() if shared is None else self._copy(shared)
        self._turn.append(who)
        return log

    def entries(self) -> Iterator[tuple[Subject, bool, LogType]]:
        """Yield whose each log is, and whether it is shared: then by the number of its neighbourhood."""
        for who, log in self.own.items():
            yield who, False, log
        for slot, log in self._shared.items():
            yield slot, True, log

    def restore(self, who: Subject, log: LogType, *, is_shared: bool) -> None:
        """Put back what another table of the same size and seed had among its `entries`, into an empty one."""
        if not is_shared:
            self.own[who] = log
            self._turn.append(who)
        elif isinstance(who, int):
            self._shared[who] = log

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

    def _is_over(self, log: LogType, now_ns: int) -> bool:
        return not log.stamps or log.stamps[-1] <= now_ns - self._window_ns

    def _slot(self, who: Subject) -> int:
        """Return the shared log of a neighbourhood."""
        return hash((self._seed, _neighbourhood(who))) % self._max_shared


def _neighbourhood(who: Subject) -> Hashable:
    """Return what near callers have in common. IPv6 callers are their upper 64 bits under a flag bit."""
    if isinstance(who, int):
        return who >> 24 if who >> 64 else who >> 12
    return who if isinstance(who, str) else tuple([_neighbourhood(part) for part in who])
