"""The accounts of budgets in the store: held and settled once, and known only when every call of them is."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatgate.storage.redis import statements
from chatgate.storage.redis.statements import Money, OtherEpoch, Took, UnknownAccounts
from storage.redis.blocking import Blocking
from storage.redis.redis_server import RedisServer

LATER_US = 2**53
LIFE_MS = 10**6
A, B = "key/k/day/2026-11-23", "global//ever/1970-01-01"


@pytest.fixture(scope="module")
def clockwork(redis_of_file: RedisServer) -> Iterator[Blocking]:
    """Connect to a server with a clock of ours."""
    connection = Blocking(redis_of_file)
    yield connection
    connection.close()


@pytest.fixture
def store(clockwork: Blocking) -> Blocking:
    """Return the connection with a session, in an epoch in which nothing is known."""
    begin(clockwork)
    return clockwork


def begin(store: Blocking) -> None:
    """Forget everything, and begin a session."""
    store.begin()
    store.ask(statements.open_session("p", 1, 10**6, "e", []))


def with_lives(*names: str) -> list[tuple[str, int]]:
    """Return accounts and how long they are remembered."""
    return [(name, LIFE_MS) for name in names]


def money(call_id: str, amount: int, most: int = 100, *names: str, percent: int = 0) -> Money:
    """Return what a call asks of accounts, each with the same limit."""
    accounts = with_lives(*(names or (A,)))
    return Money("e", call_id, amount, accounts, [(place, most, percent) for place in range(len(accounts))])


def reserve(store: Blocking, asked: Money) -> Took:
    """Set money aside."""
    return statements.took(store.ask(statements.take("p.1", LATER_US, [], asked)), [], asked)


def settle(store: Blocking, call_id: str, cost: int, *names: str) -> int:
    """Settle a call."""
    return statements.check(store.ask(statements.settle_money("e", call_id, cost, with_lives(*(names or (A,))))))


def load(store: Blocking, spent: int, *call_ids: str, name: str = A) -> int:
    """Bring what the ledger says."""
    return statements.check(store.ask(statements.load_account("e", (name, LIFE_MS), spent, call_ids)))


def sums(store: Blocking, name: str = A) -> tuple[int, int]:
    """Return what is spent and held."""
    spent, held = store.command("HMGET", f"{{chatgate}}:account:{name}", "spent", "held")
    return int(spent or 0), int(held or 0)


def test_an_account_that_is_not_known_lets_nothing_be_spent(store: Blocking) -> None:
    """It never begins at nothing; once it is known the same call is taken."""
    with pytest.raises(UnknownAccounts):
        reserve(store, money("c1", 10))
    assert load(store, 95) == 1
    assert not reserve(store, money("c1", 10)).is_taken
    took = reserve(store, money("c2", 5))
    assert (took.is_taken, took.sums) == (True, [(95, 5)])


def test_only_the_first_who_brings_a_sum_is_heard(store: Blocking) -> None:
    """Whoever comes second would wipe out what was spent since."""
    assert load(store, 10) == 1
    reserve(store, money("c1", 5))
    settle(store, "c1", 5)
    assert load(store, 10) == 0
    assert sums(store) == (15, 0)


def test_a_call_is_held_in_every_account_or_in_none(store: Blocking) -> None:
    """One that has no room keeps the other as it was."""
    load(store, 0)
    load(store, 95, name=B)
    took = reserve(store, money("c1", 10, 100, A, B))
    assert (took.is_taken, took.sums) == (False, [(0, 0), (95, 0)])
    assert (sums(store), sums(store, B)) == ((0, 0), (95, 0))
    assert reserve(store, money("c1", 5, 100, A, B)).is_taken
    assert (sums(store), sums(store, B)) == ((0, 5), (95, 5))


def test_a_call_is_settled_once(store: Blocking) -> None:
    """However often that is told; a true cost above the bound is spent all the same."""
    load(store, 0)
    reserve(store, money("c1", 10))
    assert [settle(store, "c1", 30), settle(store, "c1", 30), settle(store, "never", 30)] == [1, 0, 0]
    assert sums(store) == (30, 0)


def test_a_call_that_has_a_hold_gets_no_other(store: Blocking) -> None:
    """Its id is one call's."""
    load(store, 0)
    reserve(store, money("c1", 10))
    with pytest.raises(ValueError, match="says no"):
        reserve(store, money("c1", 10))
    assert sums(store) == (0, 10)


def test_a_soft_threshold_warns_once(store: Blocking) -> None:
    """Whichever process brings the account there; a refused call does not."""
    load(store, 0)
    assert not any(reserve(store, money("big", 101, percent=80)).warnings)
    assert [reserve(store, money(f"c{n}", 40, percent=80)).warnings for n in range(2)] == [[False], [True]]
    assert reserve(store, money("c3", 10, percent=80)).warnings == [False]


def test_in_another_epoch_nothing_is_believed(store: Blocking) -> None:
    """What a process knows of a store that has forgotten is not to be mixed with what comes after."""
    load(store, 0)
    store.command("SET", "{chatgate}:epoch", "f")
    with pytest.raises(OtherEpoch):
        reserve(store, money("c1", 10))
    for statement in (
        statements.settle_money("e", "c1", 1, with_lives(A)),
        statements.tell_money("e", "c1", 1, None, with_lives(A)),
        statements.join("e", "p"),
        statements.ask_accounts("e", [A]),
        statements.load_account("e", (A, LIFE_MS), 0, []),
    ):
        with pytest.raises(OtherEpoch):
            statements.check(store.ask(statement))


def test_calls_that_are_told_of_are_counted_whatever_becomes_of_them(store: Blocking) -> None:
    """Under way, ended before the account was known and after: each once, and beside what the ledger says of others."""
    for call_id, held, cost in (("open", 20, None), ("ends", 30, None), ("ended", None, 7)):
        for _ in range(2):
            statements.check(store.ask(statements.tell_money("e", call_id, held, cost, with_lives(A))))
    assert settle(store, "ends", 4) == 1
    answer = store.ask(statements.ask_accounts("e", [A, B]))
    found = statements.calls_of(answer, [A, B])
    assert {name: sorted(ids) for name, ids in found.items()} == {A: ["ended", "ends", "open"], B: []}
    with pytest.raises(UnknownAccounts):
        load(store, 50, "open", "ends")
    assert load(store, 50, *found[A]) == 1
    assert sums(store) == (50 + 4 + 7, 20)
    assert statements.calls_of(store.ask(statements.ask_accounts("e", [A])), [A]) == {}
    assert settle(store, "open", 1) == 1
    assert sums(store) == (62, 0)


def test_who_tells_late_is_counted_all_the_same(store: Blocking) -> None:
    """Once, and rather twice in the sum than not at all."""
    load(store, 50)
    for _ in range(2):
        store.ask(statements.tell_money("e", "open", 20, None, with_lives(A)))
        store.ask(statements.tell_money("e", "ended", None, 7, with_lives(A)))
    assert sums(store) == (57, 20)


class Calls:
    """What is held for calls and what they cost, by their ids; and the ledger's `rows` of those that it has by now."""

    def __init__(self, store: Blocking, chance: random.Random) -> None:
        """Begin with none."""
        self._store = store
        self._chance = chance
        self.held: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        self.rows: dict[str, int] = {}

    def reserve(self, call_id: str, amount: int) -> None:
        """Set an amount aside if there is room for it, and see that the store thinks the same."""
        has_room = sum(self.held.values()) + sum(self.spent.values()) + amount <= 100
        assert reserve(self._store, money(call_id, amount)).is_taken == has_room
        if has_room:
            self.held[call_id] = amount

    def settle_some(self, count: int) -> None:
        """End calls that are under way, as far as there are any."""
        for call_id in self._chance.sample(sorted(self.held), min(count, len(self.held))):
            self.spent[call_id] = self._chance.randrange(self.held.pop(call_id) + 2)
            assert settle(self._store, call_id, self.spent[call_id]) == 1

    def forget(self) -> None:
        """Have the store forget everything, and do what processes do then."""
        begin(self._store)
        # The rows are brought up to a moment. What has not ended by then is told of.
        self.rows |= dict(list(self.spent.items())[: len(self.spent) // 2])
        for call_id, amount in self.held.items():
            self._store.ask(statements.tell_money("e", call_id, amount, None, with_lives(A)))
        for call_id in self.spent.keys() - self.rows.keys():
            self._store.ask(statements.tell_money("e", call_id, None, self.spent[call_id], with_lives(A)))
        # Before the account is known some end, and the ledger may have them by the time it is read.
        self.settle_some(len(self.held) // 2)
        if self._chance.random() < 0.5:
            self.rows |= self.spent
        named = statements.calls_of(self._store.ask(statements.ask_accounts("e", [A])), [A])[A]
        of_others = sum(cost for call_id, cost in self.rows.items() if call_id not in named)
        assert load(self._store, of_others, *named) == 1


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_what_the_store_says_is_what_the_calls_add_up_to(clockwork: Blocking, seed: int) -> None:
    """Reserved, settled, settled again, told anew after the store has forgotten: no order of these loses a dollar.

    The ledger has each call that ended some time later, as the journal's folding does.
    """
    chance = random.Random(seed)
    begin(clockwork)
    load(clockwork, 0)
    calls = Calls(clockwork, chance)
    for step in range(40):
        what = chance.choice(("reserve", "reserve", "settle", "again", "fold", "forget"))
        if what == "reserve":
            calls.reserve(f"c{step}", chance.randrange(30))
        elif what == "settle":
            calls.settle_some(1)
        elif what == "again" and calls.spent:
            assert settle(clockwork, chance.choice(sorted(calls.spent)), 99) == 0
        elif what == "fold":
            calls.rows |= calls.spent
        elif what == "forget" and chance.random() < 0.3:
            calls.forget()
        assert sums(clockwork) == (sum(calls.spent.values()), sum(calls.held.values()))
