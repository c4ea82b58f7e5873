"""Calls in flight, as slots that are leased.

Owns who has how many and until when. An owner is a process, and says now and then that it lives; when it has not for
`ttl_seconds`, all of its slots are free again, so that none leaks for ever, however a process ends. Does no I/O and
holds no lock: a decision and what it changes are one step. One process owns the leases of a host.

Laws. A call has a slot in each of its limits or in none. No limit is ever exceeded by slots of living owners. A lease
ends once: given back, or with its owner; again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

TTL_SECONDS: Final = 30.0
"""How long an owner may be silent; it should say that it lives every ten seconds."""


class SlotLimit(Struct, frozen=True, gc=False):
    """At most `limit` calls at once under a name, such as `key/k1` or `upstream/openai`."""

    name: str
    limit: int


class Lease(Struct, frozen=True, gc=False):
    """A slot under each of these names. `number` is never used again."""

    owner: str
    number: int
    names: tuple[str, ...]


class Leases:
    """All slots that are taken."""

    def __init__(self, ttl_seconds: float = TTL_SECONDS) -> None:
        """Begin with none."""
        self._ttl_seconds = ttl_seconds
        self._taken: dict[str, int] = {}
        self._held: dict[str, dict[int, Lease]] = {}
        self._silent_after: dict[str, float] = {}
        self._last_number = 0

    def acquire(self, owner: str, limits: Sequence[SlotLimit], now: float) -> Lease | tuple[SlotLimit, ...]:
        """Take a slot of every limit; or of none, and return those without a free one. `now` is monotonic seconds.

        Whoever takes a slot lives.
        """
        reached = tuple(limit for limit in limits if self._taken.get(limit.name, 0) >= limit.limit)
        if reached and self.expire(now):
            reached = tuple(limit for limit in limits if self._taken.get(limit.name, 0) >= limit.limit)
        if reached:
            return reached
        self._last_number += 1
        lease = Lease(owner, self._last_number, tuple(dict.fromkeys([limit.name for limit in limits])))
        for name in lease.names:
            self._taken[name] = self._taken.get(name, 0) + 1
        self._held.setdefault(owner, {})[lease.number] = lease
        self._silent_after[owner] = now + self._ttl_seconds
        return lease

    def release(self, lease: Lease) -> bool:
        """Give the slots of a lease back; False when it had ended already."""
        if self._held.get(lease.owner, {}).pop(lease.number, None) is None:
            return False
        self._free(lease)
        return True

    def renew(self, owner: str, now: float) -> bool:
        """Note that an owner lives; False when it has no slots, or was taken for dead and has lost them."""
        self.expire(now)
        if owner not in self._silent_after:
            return False
        self._silent_after[owner] = now + self._ttl_seconds
        return True

    def expire(self, now: float) -> int:
        """End the leases of owners that have been silent for too long; return how many there were."""
        silent = [owner for owner, after in self._silent_after.items() if after <= now]
        return sum(self.end_owner(owner) for owner in silent)

    def end_owner(self, owner: str) -> int:
        """End the leases of an owner that is known to have ended; return how many there were."""
        self._silent_after.pop(owner, None)
        leases = self._held.pop(owner, {})
        for lease in leases.values():
            self._free(lease)
        return len(leases)

    def in_flight(self, name: str) -> int:
        """Return how many slots are taken under a name."""
        return self._taken.get(name, 0)

    def _free(self, lease: Lease) -> None:
        for name in lease.names:
            left = self._taken[name] - 1
            if left:
                self._taken[name] = left
            else:
                del self._taken[name]
