"""What the store counts: exact windows in a bounded memory, slots that die with their owner, and no key that stays."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

import pytest

from chatgate.storage.redis import statements
from chatgate.storage.redis.statements import Ask, Correction, NoSession, Took
from storage.redis.blocking import Blocking
from storage.redis.redis_server import RedisServer

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
LATER_US = 2**53
LIFE_SECONDS = 20.0
EXACT = 2048


@pytest.fixture(scope="module")
def clockwork(redis_of_file: RedisServer) -> Iterator[Blocking]:
    """Connect to a server with a clock of ours."""
    connection = Blocking(redis_of_file)
    yield connection
    connection.close()


@pytest.fixture
def store(clockwork: Blocking) -> Blocking:
    """Return the connection with a session of the process `p`, and nothing else in the store."""
    clockwork.begin()
    open_session(clockwork, "p", 1)
    return clockwork


def open_session(
    store: Blocking, process: str, number: int, slots: tuple[tuple[bytes, int], ...] = (), life_seconds: float = 10**6
) -> None:
    """Begin a session."""
    statements.session_of(store.ask(statements.open_session(process, number, life_seconds, "e", slots)))


def window(amount: int, most: int, length_us: int = MINUTE_US) -> Ask:
    """Return what is asked of a window."""
    return Ask("window", statements.limit_key("window", length_us), amount, most, length_us)


def slots(most: int, amount: int = 1) -> Ask:
    """Return what is asked of slots."""
    return Ask("slots", statements.limit_key("slots"), amount, most, 0)


def take(store: Blocking, *asks: Ask, session: str = "p.1", until_us: int = LATER_US) -> Took:
    """Take a call."""
    return statements.took(store.ask(statements.take(session, until_us, asks)), asks)


def wait(store: Blocking, microseconds: int) -> None:
    """Let time pass."""
    store.move_to(store.now_us + microseconds)


@pytest.mark.parametrize("most", [EXACT, 50 * EXACT])
def test_a_large_limit_is_never_exceeded_and_takes_bounded_memory(store: Blocking, most: int) -> None:
    """However its calls come, large and small; above 2048 a few may leave a window late, less than 1 in 500."""
    chance = random.Random(most)
    held: deque[tuple[int, int]] = deque()
    used = 0
    for _ in range(3 * EXACT):
        wait(store, chance.choice((0, 1, 1000, 20_000, 40_000)))
        amount = chance.randrange(1, 2 * most // EXACT + 1)
        while held and held[0][0] <= store.now_us - MINUTE_US:
            used -= held.popleft()[1]
        took = take(store, window(amount, most))
        left = most - used
        assert took.is_taken <= (amount <= left)
        assert used <= took.rooms[0].used <= used + (0 if most <= EXACT else most // 500)
        if took.is_taken:
            held.append((store.now_us, amount))
            used += amount
    assert store.command("STRLEN", window(1, most).key) <= 16 * (2 * EXACT + 1) + 40


def test_calls_that_all_came_in_one_moment_are_one_entry(store: Blocking) -> None:
    """They leave together."""
    for _ in range(5):
        assert take(store, window(2, 10)).is_taken
    assert not take(store, window(1, 10)).is_taken
    assert store.command("STRLEN", window(1, 10).key) == 40 + 16
    wait(store, MINUTE_US - 1)
    assert take(store, window(1, 10)).rooms[0].wait_us == 1
    wait(store, 1)
    assert take(store, window(10, 10)).is_taken


def test_what_was_taken_before_the_store_forgot_is_not_given_back_to_others(store: Blocking) -> None:
    """Nothing of another call's is freed by a settlement that comes late."""
    first = take(store, window(8, 10))
    store.command("DEL", window(1, 10).key)
    wait(store, 1)
    assert take(store, window(8, 10)).is_taken
    store.ask(statements.settle("p.1", [Correction("window", window(1, 10).key, -8, first.at_us, 10, MINUTE_US)]))
    assert take(store, window(3, 10)).rooms[0].used == 8


@pytest.mark.parametrize("back_us", [1, 3600 * SECOND_US])
def test_a_clock_that_is_set_back_locks_nobody_out_for_longer_than_a_window(store: Blocking, back_us: int) -> None:
    """And lets nothing leave early: what was taken a moment ago counts for a whole window yet."""
    first = take(store, window(4, 10))
    wait(store, 10 * SECOND_US)
    take(store, window(6, 10))
    store.move_to(store.now_us - back_us)
    open_session(store, "p", 2)
    took = take(store, window(4, 10), session="p.2")
    assert not took.is_taken
    assert took.rooms[0].wait_us == 50 * SECOND_US
    wait(store, 50 * SECOND_US)
    assert take(store, window(4, 10), session="p.2").is_taken
    assert not take(store, window(1, 10), session="p.2").is_taken
    # What was taken before is not found any more, and so is not given back: strict, and never wrong.
    store.ask(statements.settle("p.2", [Correction("window", window(1, 10).key, -4, first.at_us, 10, MINUTE_US)]))
    assert take(store, window(10, 10), session="p.2").rooms[0].used in {6, 10}


def test_a_refused_call_takes_nothing_of_anything(store: Blocking) -> None:
    """Of several limits, any one that has no room keeps the others as they were."""
    small = window(1, 1, SECOND_US)
    assert take(store, small, window(1, 10), slots(5)).is_taken
    refused = take(store, small, window(1, 10), slots(5))
    assert not refused.is_taken
    assert [room.used for room in refused.rooms] == [1, 1, 1]
    assert [room.used for room in take(store, window(0, 10), slots(5, 0)).rooms] == [1, 1]


def test_looking_takes_nothing_and_needs_no_session(store: Blocking) -> None:
    """It says how things stand."""
    take(store, window(3, 10))
    looking = statements.take("nobody.1", 0, [window(1, 10)], looks=True)
    assert statements.took(store.ask(looking), [window(1, 10)]).rooms[0].used == 3
    assert statements.took(store.ask(looking), [window(1, 10)]).rooms[0].used == 3


def test_slots_of_a_process_that_has_died_are_free_within_its_life(store: Blocking) -> None:
    """And not before that: it may be slow."""
    open_session(store, "dies", 1, life_seconds=LIFE_SECONDS)
    assert take(store, slots(2), session="dies.1").is_taken
    assert take(store, slots(2)).is_taken
    wait(store, round(LIFE_SECONDS * SECOND_US) - 1)
    assert not take(store, slots(2)).is_taken
    wait(store, 1)
    assert take(store, slots(2)).is_taken
    assert not take(store, slots(2)).is_taken


def test_slots_are_freed_once_and_never_those_of_others(store: Blocking) -> None:
    """A process cannot free more than it has, whatever it says."""
    open_session(store, "other", 1)
    take(store, slots(3))
    take(store, slots(3), session="other.1")
    for _ in range(2):
        store.ask(statements.settle("p.1", [Correction("slots", slots(3).key, -1, 0, 3, 0)]))
    assert take(store, slots(3)).rooms[0].used == 1


def test_a_process_that_comes_back_has_what_it_says_in_flight_and_no_more(store: Blocking) -> None:
    """What it had in its former session is not counted twice, and a store that has forgotten learns of it."""
    for _ in range(2):
        take(store, slots(3))
    open_session(store, "p", 2, ((slots(3).key, 2),))
    assert take(store, slots(3), session="p.2").is_taken
    assert not take(store, slots(3), session="p.2").is_taken
    store.command("FLUSHALL")
    store.move_to(store.now_us)
    open_session(store, "p", 3, ((slots(3).key, 3),))
    assert not take(store, slots(3), session="p.3").is_taken


@pytest.mark.parametrize("how", ["former", "unknown", "dead", "late"])
def test_what_nobody_waits_for_any_more_takes_nothing(store: Blocking, how: str) -> None:
    """A question of a session that has ended, or one that lay in the mail of a store that was frozen."""
    session, until_us = "p.1", LATER_US
    if how == "former":
        open_session(store, "p", 2)
    elif how == "unknown":
        session = "q.1"
    elif how == "dead":
        open_session(store, "p", 1, life_seconds=LIFE_SECONDS)
        wait(store, round(LIFE_SECONDS * SECOND_US))
    else:
        until_us = store.now_us - 1
    with pytest.raises(NoSession):
        take(store, window(1, 10), slots(5), session=session, until_us=until_us)
    open_session(store, "last", 1)
    assert [room.used for room in take(store, window(1, 10), slots(5), session="last.1").rooms] == [0, 0]


def test_a_session_that_begins_late_does_not_end_a_later_one(store: Blocking) -> None:
    """The store may come to both at once, after it was frozen."""
    open_session(store, "p", 3)
    with pytest.raises(NoSession):
        open_session(store, "p", 2)
    with pytest.raises(NoSession):
        statements.session_of(store.ask(statements.renew("p", 1, LIFE_SECONDS, "e")))
    assert take(store, window(1, 10), session="p.3").is_taken


def test_who_lives_is_told_at_every_session(store: Blocking) -> None:
    """By the names of processes, until they end or die."""
    open_session(store, "q", 7, life_seconds=LIFE_SECONDS)
    assert statements.session_of(store.ask(statements.renew("p", 1, 2 * LIFE_SECONDS, "e"))).alive == {"p", "q"}
    wait(store, round(LIFE_SECONDS * SECOND_US))
    assert statements.session_of(store.ask(statements.renew("p", 1, LIFE_SECONDS, "e"))).alive == {"p"}
    open_session(store, "q", 8)
    store.ask(statements.close_session("q", 8))
    assert statements.session_of(store.ask(statements.renew("p", 1, LIFE_SECONDS, "e"))).alive == {"p"}


def test_amounts_beyond_what_lua_counts_are_strict(store: Blocking) -> None:
    """The largest amount of a rule is more than a double holds: it counts as the most that is exact."""
    most = 2**63 - 1
    assert take(store, window(most, most)).is_taken
    assert not take(store, window(1, most)).is_taken


def test_no_key_stays_for_ever(store: Blocking) -> None:
    """Whatever was counted, every key has its end."""
    money = statements.Money("e", "c1", 5, [("key/k/ever/1970-01-01", 1000)], [(0, 100, 50)])
    store.ask(statements.join("e", "p"))
    store.ask(statements.tell_money("e", "c0", 7, None, money.accounts))
    store.ask(statements.tell_money("e", "c9", None, 7, money.accounts))
    keys = set(store.command("KEYS", "{chatgate}*"))
    store.ask(statements.load_account("e", money.accounts[0], 3, ["c0", "c9"]))
    asks = [window(1, 10), window(1, 10, SECOND_US), slots(5)]
    assert statements.took(store.ask(statements.take("p.1", LATER_US, asks, money)), asks, money).is_taken
    keys |= set(store.command("KEYS", "{chatgate}*"))
    kinds = {key.split(b":")[1] for key in keys}
    assert kinds == {b"sessions", b"epoch", b"joined", b"limit", b"account", b"calls", b"hold"}
    assert all(store.command("PTTL", key) > 0 for key in store.command("KEYS", "{chatgate}*"))
