"""Redis and the process itself decide alike: the same calls at the same times, and the same answers to the digit."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from chatgate.admission.limits import Bound, Facts, Limits, Rule, Standing, Ticket
from chatgate.admission.rules import rule_of
from chatgate.counters.asking import Asking, Counted, Share, standing
from chatgate.storage.redis import statements
from chatgate.storage.redis.statements import Correction
from chatgate.vocabulary.errors import CallerError
from storage.redis.blocking import BEGINNING_US, Blocking
from storage.redis.redis_server import RedisServer

SECOND_US = 1_000_000
LATER_US = 2**53


@pytest.fixture(scope="module")
def store() -> Iterator[Blocking]:
    """Run a server with a clock of ours."""
    server = RedisServer()
    connection = Blocking(server)
    yield connection
    connection.close()
    server.remove()


class Redis:
    """`Limits`, as far as they are asked here, with what the store counts."""

    def __init__(self, rules: tuple[Rule, ...], store: Blocking) -> None:
        """Begin with an empty store."""
        self._asking = Asking(rules)
        self._store = store
        store.begin()
        store.ask(statements.open_session("p", 1, 10**6, "e", []))

    def admit(self, facts: Facts, bound: Bound, rules: tuple[Rule, ...]) -> tuple[Standing, object]:
        """Take a call."""
        counted = self._asking.of_call(facts, bound, rules)
        asks = [each.ask for each in counted]
        took = statements.took(self._store.ask(statements.take("p.1", LATER_US, asks)), asks)
        receipt = (took.at_us, counted) if took.is_taken else None
        return standing(counted, took.rooms, is_taken=took.is_taken), receipt

    def standing(self, facts: Facts, rules: tuple[Rule, ...]) -> Standing:
        """Look."""
        counted = self._asking.of_call(facts, None, rules)
        asks = [each.ask for each in counted]
        took = statements.took(self._store.ask(statements.take("p.1", 0, asks, looks=True)), asks)
        return standing(counted, took.rooms, is_taken=False)

    def correct(self, receipt: tuple[int, list[Counted]], used: Bound | None) -> None:
        """Settle with what was used, or release with None."""
        at_us, counted = receipt
        corrections = []
        for _, resource, (kind, key, amount, most, length_us) in counted:
            actual = (0 if used is None else used.amounts[resource]) if kind == "window" else 0
            if actual is not None:
                corrections.append(Correction(kind, key, actual - amount, at_us, most, length_us))
        if corrections:
            self._store.ask(statements.settle("p.1", corrections))


RULES = (
    rule_of(3, "second", ("address",), "requests"),
    rule_of(5, "minute", ("address",), "requests"),
    rule_of(4, "second", ("global",), "requests"),
    rule_of(3, "second", ("key", "model"), "requests"),
    rule_of(20, "second", ("key",), "tokens"),
    rule_of(15, "second", ("address",), "input_tokens"),
    rule_of(30, "minute", ("global",), "usd"),
    rule_of(3, "", ("global",), "in_flight"),
)
OF_KEY = (rule_of(2, "second", ("key",), "requests", "a*"), rule_of(12, "minute", ("key",), "output_tokens"))

STEPS_US = (1, SECOND_US // 4, SECOND_US // 4, SECOND_US // 2, SECOND_US - 1, SECOND_US, 20 * SECOND_US)
"""How far the clock is moved: mostly so that something leaves a window at this very moment."""


@given(st.sets(st.sampled_from(RULES), min_size=1), st.integers(0, 2**32))
@settings(max_examples=100)
def test_the_store_decides_as_the_process_does(store: Blocking, some: set[Rule], seed: int) -> None:
    """Admissions, waits, what is left and when it is back: the same by either, for any rules in any order of events."""
    chance = random.Random(seed)
    rules = tuple(sorted(some, key=RULES.index))
    there = Redis(rules, store)
    here = Limits(rules, lambda: (store.now_us - BEGINNING_US + SECOND_US) * 1000)
    under_way: list[tuple[Ticket, tuple[int, list[Counted]]]] = []

    def some_bound() -> Bound:
        return Bound(chance.choice((0, 1, 3, 7, 22)), chance.choice((0, 1, 2, 5, 14)), chance.choice((0, 1, 9, 34)))

    for _ in range(60):
        who = Facts(chance.randrange(1, 3), chance.choice((None, "k1", "k1", "k2")), chance.choice(("ab", "b")))
        own = chance.choice(((), OF_KEY))
        what = chance.choice(("take", "take", "take", "take", "look", "settle", "release", "wait", "wait"))
        if what == "take":
            bound = some_bound()
            stands = here.admit(who, bound, own)
            found, receipt = there.admit(who, bound, own)
            assert found == structs.replace(stands, ticket=None)
            if stands.ticket is not None:
                assert isinstance(receipt, tuple)
                under_way.append((stands.ticket, receipt))
        elif what == "look":
            assert there.standing(who, own) == here.standing(who, own)
        elif what == "wait":
            store.move_to(store.now_us + chance.choice(STEPS_US))
        elif under_way:
            ticket, taken = under_way.pop(chance.randrange(len(under_way)))
            if what == "settle":
                used = some_bound()
                here.settle(ticket, used)
                there.correct(taken, used)
            else:
                here.release(ticket)
                there.correct(taken, None)


def test_a_model_without_a_price_is_refused_where_money_is_limited() -> None:
    """It is never free, whoever counts."""
    asking = Asking([rule_of(30, "minute", ("global",), "usd")])
    with pytest.raises(CallerError) as refused:
        asking.of_call(Facts(1, None, "odd"), Bound(1, 1, None), ())
    assert refused.value.reason == "price_unknown"


def test_attempts_are_asked_for_by_their_upstream_alone() -> None:
    """A rule by upstream holds for attempts, all others for calls."""
    asking = Asking([rule_of(5, "minute", ("upstream",), "requests"), rule_of(9, "minute", ("global",), "requests")])
    assert asking.limit_attempts
    (of_call,) = asking.of_call(Facts(1), Bound(), ())
    (of_attempt,) = asking.of_attempt(Facts(1, upstream="u"), Bound())
    assert (of_call.ask.most, of_attempt.ask.most) == (9, 5)
    assert of_call.ask.key != of_attempt.ask.key


def test_what_is_counted_and_for_whom_is_not_shown_in_the_store() -> None:
    """Its keys are digests of one length, whatever a caller calls a model."""
    asking = Asking([rule_of(5, "minute", ("address", "model"), "requests")])
    keys = {asking.of_call(Facts(1, None, model), Bound(), ())[0].ask.key for model in ("a", "b" * 10_000, "\ud800")}
    assert len(keys) == 3
    assert {len(key) for key in keys} == {len(b"{chatgate}:limit:") + 30}


@pytest.mark.parametrize(("amount", "processes", "part"), [(100, 4, 25), (3, 4, 1), (10, 3, 3), (7, 1, 7)])
def test_a_process_alone_has_its_part_of_every_limit(amount: int, processes: int, part: int) -> None:
    """A fair share, rounded down, and at least one of everything; of a key's own limits too."""
    share = Share([rule_of(amount, "minute", ("global",), "requests")], lambda: 10**9, processes)
    admitted = [share.limits.admit(Facts(1)).admitted for _ in range(amount + 1)]
    assert sum(admitted) == part
    own = (rule_of(amount, "minute", ("key",), "requests"),)
    assert share.of_key("k", own)[0].amount == part
    assert share.of_key("k", own) is share.of_key("k", own)
    assert share.of_key(None, own) == ()
