"""Count what is taken, in the name of each who takes it.

Owns two ways to count: over a window, and what is taken at this moment. Knows no rules: the limit is named by whoever
asks, so it may change while the counts go on. `limits` asks, decides and tells.

A meter first says how much is used (`used`), then takes (`take`), at one and the same time; nothing comes between.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from chatgate.admission.amount_log import AmountLog
from chatgate.admission.callers import Callers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatgate.admission.rules import Identity, Subject

_MEMORY_BYTES = 256 << 20
"""What the logs of a meter may take together when each is as long as it can get."""

_ENTRY_BYTES = 500
_STAMP_BYTES = 18
"""What a caller takes besides its entries (measured), and per entry, with what two arrays keep in reserve."""

_EXACT = 2048
_EXACT_OF_MANY = 256
"""Up to so many entries a log is exact; logs are shorter where everybody on the internet may have one."""

_MAX_SUBJECTS = 100_000
_MAX_SHARED = 8192

_RETRY_NS = 1_000_000_000
"""The wait until a slot may be free is not known; after so long it is worth another try."""


class WindowMeter:
    """Counts what was taken in the last `window_ns`."""

    def __init__(
        self,
        identity: Identity,
        *,
        of_keys: bool = False,
        exact: int | None = None,
        max_subjects: int = _MAX_SUBJECTS,
        seed: int | None = None,
    ) -> None:
        """`identity` is what is counted, and `of_keys` says that it is so by keys' own rules; together they name it.

        Its scope says how many there may be in whose name is counted; `exact` is as in `amount_log`.
        At most `max_subjects` are remembered one by one, and fewer where anyone can be one, by an address or by a name
        that he makes up: so many that their logs fit into a fixed memory. `seed` decides who shares a log when there
        are more; by default it is random.
        """
        scope, self.resource, window_ns, _ = identity
        self.name = of_keys, identity
        self._window_ns = window_ns
        self._exact = exact or (_EXACT_OF_MANY if "address" in scope else _EXACT)
        fitting = _MEMORY_BYTES // (_ENTRY_BYTES + _STAMP_BYTES * 2 * self._exact)
        if "address" in scope or "model" in scope:
            max_subjects = min(max_subjects, fitting * 3 // 4)
        self._logs = Callers(
            window_ns,
            AmountLog.empty,
            AmountLog.copy,
            max_callers=max_subjects,
            max_shared=min(_MAX_SHARED, fitting // 4),
            seed=secrets.randbits(64) if seed is None else seed,
        )

    def entries(self) -> Iterator[tuple[Subject, bool, AmountLog]]:
        """Yield all that is counted, as `Callers.entries` does."""
        return self._logs.entries()

    def restore(self, who: Subject, log: AmountLog, *, is_shared: bool) -> None:
        """Put one of another meter's `entries` into a new one; see `Callers.restore`."""
        self._logs.restore(who, log, is_shared=is_shared)

    def used(self, subject: Subject, now_ns: int) -> int:
        """Return how much of a limit is used."""
        log = self._logs.own.get(subject) or self._logs.shared(subject)
        return log.used(now_ns - self._window_ns) if log is not None else 0

    def take(self, subject: Subject, now_ns: int, amount: int, limit: int) -> None:
        """Count an amount against a limit."""
        log = self._logs.own.get(subject) or self._logs.welcome(subject, now_ns)
        log.add(now_ns, amount, self._exact, limit)

    def add(self, subject: Subject, now_ns: int, amount: int) -> None:
        """Count what was used beyond what was taken, from now on."""
        self.used(subject, now_ns)
        self.take(subject, now_ns, amount, 1)

    def give_back(self, subject: Subject, at_ns: int, now_ns: int, amount: int) -> None:
        """Give back a part of what was taken at a time; what has left the window needs no giving back."""
        if amount and at_ns > now_ns - self._window_ns:
            log = self._logs.own.get(subject) or self._logs.shared(subject)
            if log is not None:
                log.give_back(at_ns, amount)

    def wait_ns(self, subject: Subject, now_ns: int, amount: int) -> int:
        """Return in how long so much will be free again that is used now."""
        log = self._logs.own.get(subject) or self._logs.shared(subject)
        return log.freed_by(amount) + self._window_ns - now_ns if log is not None else 0

    def reset_ns(self, subject: Subject, now_ns: int) -> int:
        """Return in how long nothing is used any more."""
        log = self._logs.own.get(subject) or self._logs.shared(subject)
        return max(0, log.stamps[-1] + self._window_ns - now_ns) if log is not None and log.stamps else 0


class SlotMeter:
    """Counts what is in flight. Whoever counts for other processes gives their slots back when they end."""

    resource = "in_flight"

    def __init__(self) -> None:
        """Begin with nothing in flight."""
        self._taken: dict[Subject, int] = {}

    def used(self, subject: Subject, _now_ns: int) -> int:
        """Return how many slots are taken."""
        return self._taken.get(subject, 0)

    def take(self, subject: Subject, _now_ns: int, amount: int, _limit: int) -> None:
        """Take slots."""
        self._taken[subject] = self._taken.get(subject, 0) + amount

    def add(self, subject: Subject, now_ns: int, amount: int) -> None:
        """Take slots without asking."""
        self.take(subject, now_ns, amount, 0)

    def give_back(self, subject: Subject, _at_ns: int, _now_ns: int, amount: int) -> None:
        """Free slots."""
        left = self._taken[subject] - amount
        if left:
            self._taken[subject] = left
        else:
            del self._taken[subject]

    def wait_ns(self, _subject: Subject, _now_ns: int, _amount: int) -> int:
        """Return how long to wait before another try."""
        return _RETRY_NS

    def reset_ns(self, _subject: Subject, _now_ns: int) -> int:
        """Return 0: there is no window."""
        return 0
