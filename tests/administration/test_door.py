"""Who may administer: by a key of theirs, and for those who guess, not often."""

from __future__ import annotations

import pytest

from chatgate.administration.door import MAX_ADDRESSES, WRONG_KEYS_PER_MINUTE, Admin, Door
from chatgate.admission.address_limits import AddressLimits
from chatgate.admission.rules import rule_of
from chatgate.vocabulary.errors import CallerError, Kind

ROOT, ALICE = Admin("root"), Admin("alice", "alice", may_change=False)
KEY, KEY_OF_ALICE = "test-admin-root-0123456789-0123456789", "test-admin-alice-0123456789-0123456789"
MINUTE_NS = 60 * 10**9


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now = 10**15

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return the clock."""
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Door:
    """Return a door with two keys to it."""
    rule = rule_of(WRONG_KEYS_PER_MINUTE, "minute", ("address",), "requests")
    return Door([(ROOT, KEY), (ALICE, KEY_OF_ALICE)], AddressLimits([rule], clock, max_callers=MAX_ADDRESSES, seed=1))


def shown(key: str) -> dict[bytes, bytes]:
    """Return the head that shows a key."""
    return {b"authorization": f"Bearer {key}".encode("latin-1")}


def refused(door: Door, headers: dict[bytes, bytes], address: int = 1) -> CallerError:
    """Return how somebody is refused."""
    with pytest.raises(CallerError) as error:
        door.enter(headers, address)
    return error.value


def test_each_key_is_somebodys(door: Door) -> None:
    """In either case of the word before it."""
    assert door.enter(shown(KEY), 1) is ROOT
    assert door.enter({b"authorization": f"bearer {KEY_OF_ALICE}".encode()}, 1) is ALICE


@pytest.mark.parametrize("headers", [{}, {b"authorization": b""}, {b"authorization": b"Bearer "}, {b"x-api-key": b"x"}])
def test_without_a_key_there_is_a_challenge(door: Door, headers: dict[bytes, bytes]) -> None:
    """Whoever shows none has not guessed, however often."""
    for _ in range(3 * WRONG_KEYS_PER_MINUTE):
        assert refused(door, headers).kind is Kind.MISSING_KEY
    assert door.enter(shown(KEY), 1) is ROOT


@pytest.mark.parametrize("key", [KEY[:-1], f"{KEY}x", KEY.upper(), "sk-cg-x", "é", "\N{NO-BREAK SPACE}"])
def test_nothing_else_opens(door: Door, key: str) -> None:
    """Nearly right is wrong."""
    assert refused(door, shown(key)).kind is Kind.INVALID_KEY


def test_who_guesses_has_to_wait(door: Door, clock: Clock) -> None:
    """After ten wrong keys an address is told nothing for a minute, not even that a key is right; others come in."""
    for _ in range(WRONG_KEYS_PER_MINUTE):
        assert refused(door, shown("wrong")).kind is Kind.INVALID_KEY
    for key in ("wrong", KEY):
        error = refused(door, shown(key))
        assert (error.kind, error.retry_after_seconds) == (Kind.RATE_LIMIT_EXCEEDED, 60.0)
    assert door.enter(shown(KEY), 2) is ROOT
    clock.now += MINUTE_NS
    assert door.enter(shown(KEY), 1) is ROOT
    assert refused(door, shown("wrong")).kind is Kind.INVALID_KEY


def test_wrong_keys_from_everywhere_take_bounded_memory(door: Door) -> None:
    """So many addresses are known one by one, and no more."""
    for address in range(MAX_ADDRESSES + 100):
        refused(door, shown("wrong"), address << 24)
    callers = door._wrong_keys._books[0][1]
    assert len(callers.own) <= MAX_ADDRESSES
