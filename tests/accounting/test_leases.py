"""Leases: never more slots than allowed, and none that outlives its owner."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chatgate.accounting.leases import TTL_SECONDS, Lease, Leases, SlotLimit

KEY = SlotLimit("key/k1", 2)
ALL = SlotLimit("global", 3)


def test_slots_are_taken_from_every_limit_or_from_none() -> None:
    """A call that finds one limit full takes nothing of the others."""
    leases = Leases()
    assert isinstance(leases.acquire("w1", [KEY, ALL], 0.0), Lease)
    assert isinstance(leases.acquire("w1", [KEY, ALL], 0.0), Lease)
    assert leases.acquire("w1", [ALL, KEY], 0.0) == (KEY,)
    assert (leases.in_flight("key/k1"), leases.in_flight("global")) == (2, 2)


def test_a_slot_is_given_back_once() -> None:
    """Giving it back again frees nobody else's."""
    leases = Leases()
    first = leases.acquire("w1", [KEY], 0.0)
    leases.acquire("w1", [KEY], 0.0)
    assert isinstance(first, Lease)
    assert leases.release(first)
    assert not leases.release(first)
    assert leases.in_flight("key/k1") == 1


def test_a_limit_that_is_named_twice_counts_a_call_once() -> None:
    """Two rules for one thing are both kept, and a call takes one slot of it."""
    leases = Leases()
    lease = leases.acquire("w1", [KEY, SlotLimit("key/k1", 1)], 0.0)
    assert isinstance(lease, Lease)
    assert leases.in_flight("key/k1") == 1
    assert leases.acquire("w1", [KEY, SlotLimit("key/k1", 1)], 0.0) == (SlotLimit("key/k1", 1),)


def test_the_slots_of_a_dead_owner_are_free_within_thirty_seconds() -> None:
    """Whoever says nothing for so long is gone, and the next call finds the slots without any sweep."""
    leases = Leases()
    for _ in range(2):
        leases.acquire("dead", [KEY], 100.0)
    assert leases.acquire("w2", [KEY], 100.0 + TTL_SECONDS - 0.001) == (KEY,)
    assert isinstance(leases.acquire("w2", [KEY], 100.0 + TTL_SECONDS), Lease)
    assert leases.in_flight("key/k1") == 1
    assert TTL_SECONDS <= 30


def test_a_living_owner_keeps_its_slots_for_as_long_as_a_call_takes() -> None:
    """Saying now and then that it lives is enough for all of them."""
    leases = Leases()
    lease = leases.acquire("w1", [KEY], 0.0)
    for seconds in range(10, 600, 10):
        assert leases.renew("w1", float(seconds))
    assert isinstance(lease, Lease)
    assert leases.release(lease)


def test_an_owner_that_was_taken_for_dead_is_told() -> None:
    """It has lost its slots, and giving them back later frees nothing."""
    leases = Leases()
    lease = leases.acquire("w1", [KEY], 0.0)
    assert isinstance(lease, Lease)
    assert not leases.renew("w1", TTL_SECONDS + 1)
    assert not leases.release(lease)
    assert leases.in_flight("key/k1") == 0


def test_the_end_of_an_owner_that_is_known_frees_at_once() -> None:
    """A parent that sees its worker die does not wait."""
    leases = Leases()
    leases.acquire("w1", [KEY], 0.0)
    leases.acquire("w1", [KEY], 0.0)
    assert leases.end_owner("w1") == 2
    assert leases.end_owner("w1") == 0
    assert leases.in_flight("key/k1") == 0


class LeasesAndTruth(RuleBasedStateMachine):
    """Leases against a list of who holds what."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.leases = Leases()
        self.now = 0.0
        self.limits = {name: SlotLimit(name, limit) for name, limit in (("a", 1), ("b", 2), ("c", 3))}
        self.heard: dict[str, float] = {}
        self.live: list[Lease] = []
        self.ended: list[Lease] = []

    def bury(self) -> None:
        """End what silent owners held."""
        dead = {owner for owner, heard in self.heard.items() if heard + TTL_SECONDS <= self.now}
        for owner in dead:
            del self.heard[owner]
        self.ended += [lease for lease in self.live if lease.owner in dead]
        self.live = [lease for lease in self.live if lease.owner not in dead]

    def taken(self, name: str) -> int:
        """Count."""
        return sum(name in lease.names for lease in self.live)

    @rule(owner=st.sampled_from("xyz"), names=st.sets(st.sampled_from("abc"), min_size=1))
    def acquire(self, owner: str, names: set[str]) -> None:
        """Take slots if there are any, of living or of dead."""
        limits = [self.limits[name] for name in sorted(names)]
        answer = self.leases.acquire(owner, limits, self.now)
        if isinstance(answer, tuple) or any(self.taken(limit.name) >= limit.limit for limit in limits):
            self.bury()
        full = tuple(limit for limit in limits if self.taken(limit.name) >= limit.limit)
        if full:
            assert answer == full
        else:
            assert isinstance(answer, Lease)
            self.live.append(answer)
            self.heard[owner] = self.now

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Give one back, perhaps again."""
        everything = self.live + self.ended
        if everything:
            lease = data.draw(st.sampled_from(everything))
            assert self.leases.release(lease) == (lease in self.live)
            if lease in self.live:
                self.live.remove(lease)
                self.ended.append(lease)

    @rule(owner=st.sampled_from("xyz"))
    def renew(self, owner: str) -> None:
        """Say that an owner lives."""
        self.bury()
        assert self.leases.renew(owner, self.now) == (owner in self.heard)
        if owner in self.heard:
            self.heard[owner] = self.now

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        """Let time pass, and sweep."""
        self.now += seconds
        self.leases.expire(self.now)
        self.bury()

    @invariant()
    def counts_are_sums(self) -> None:
        """Hold as many as the living do, and never too many."""
        for name, limit in self.limits.items():
            assert self.leases.in_flight(name) == self.taken(name) <= limit.limit


TestLeasesAndTruth = LeasesAndTruth.TestCase
TestLeasesAndTruth.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
