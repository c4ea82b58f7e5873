"""The owner of the counters of several workers: the same decisions as in one process, and what becomes of the dead."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from chatgate.accounting.holds import Budget, Hold, Holds, Refusal
from chatgate.admission.limits import NOTHING, Bound, Facts, Limits, Rule
from chatgate.counters.local import LocalCounters
from chatgate.counters.notes import LEAST_BYTES, Notes
from chatgate.counters.owner import GATHERING_SECONDS, SILENT_SECONDS, Member, Owner
from chatgate.counters.port import Taken
from chatgate.counters.wire import (
    ATTEMPT,
    CALL,
    LOOK,
    Answer,
    Ask,
    Configure,
    Hello,
    Level,
    Marked,
    Order,
    Outdated,
    Read,
    Release,
    Report,
    Request,
    Resume,
    Retake,
    Settle,
    Spend,
    Spent,
    address_of,
    encode_parts,
    frame,
    orders_of,
    requests_of,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PERIODS = ("day/2026-11-23", "week/2026-11-23", "month/2026-11-01", "ever/1970-01-01")
IN_FLIGHT = Rule(2, 0.0, "", ("key",), "in_flight")
RULES = (
    Rule(20, 60.0, "minute"),
    Rule(30, 1.0, "second", ("global",)),
    Rule(4000, 60.0, "minute", ("key",), "tokens"),
    Rule(5, 60.0, "minute", ("upstream",)),
)
KEY_RULES = (IN_FLIGHT, Rule(9, 1.0, "second", ("key",)), Rule(900, 60.0, "minute", ("key",), "usd"))
BUDGETS = (Budget("key", "k1", "day", 1000, 50), Budget("global", "", "ever", 5000))
ACCOUNT = "key/k1/day/2026-11-23"


class Worker:
    """A worker as the owner sees it; what is said goes over the wire's bytes, without a wire."""

    def __init__(self, office: Office) -> None:
        """Join."""
        self.office = office
        self.said: list[Order] = []
        self.member: Member = office.owner.join(self.hear)
        self.numbers = 0
        self.process = id(self)
        self.receipts: dict[int, Retake] = {}
        self.holds: dict[str, Hold] = {}

    def hear(self, order: Order) -> None:
        """Take an order as it comes out of a frame."""
        self.said += orders_of(frame([order])[4:])

    def say(self, *requests: Request) -> None:
        """Say something, and have what is due be done."""
        for request in requests:
            if isinstance(request, Settle | Release):
                self.receipts.pop(request.number, None)
            elif isinstance(request, Spend):
                self.holds.pop(request.call_id, None)
        self.office.owner.hear(self.member, requests_of(frame(requests)[4:]))
        self.office.proceed()

    def ask(
        self,
        facts: Facts,
        bound: Bound = NOTHING,
        rules: tuple[Rule, ...] = (),
        call_id: str = "",
        budgets: tuple[Budget, ...] = (),
        what: int = CALL,
        generation: bytes = b"g1",
    ) -> Answer:
        """Ask, and return the answer."""
        self.numbers += 1
        question = Ask(
            self.numbers,
            what,
            generation,
            address_of(facts.address),
            facts.key,
            facts.model,
            facts.upstream,
            bound.input_tokens,
            bound.output_tokens,
            bound.nano_usd,
            encode_parts(rules),
            call_id,
            encode_parts(budgets),
        )
        self.say(question)
        (answer,) = [order for order in self.said if isinstance(order, Answer)]
        self.said.remove(answer)
        assert answer.number == self.numbers
        if answer.has_receipt:
            self.receipts[answer.number] = Retake(question, answer.at_ns)
        if answer.hold is not None:
            self.holds[answer.hold.call_id] = answer.hold
        return answer

    def join_again(self, rules: tuple[Rule, ...] = RULES) -> None:
        """Tell another owner what a link tells it."""
        self.said.clear()
        self.member = self.office.owner.join(self.hear)
        self.say(Configure(b"g1", rules), *self.receipts.values(), Hello(tuple(self.holds.values()), self.process))

    def answers(self) -> list[Answer]:
        """Return what was answered, and forget all."""
        found = [order for order in self.said if isinstance(order, Answer)]
        self.said.clear()
        return found

    def heard(self, kind: type[Order]) -> list[Order]:
        """Return what was said of a kind, and forget all."""
        found = [order for order in self.said if isinstance(order, kind)]
        self.said.clear()
        return found

    def read(self) -> int:
        """Return the reading that was asked for last."""
        reads = [order.serial for order in self.said if isinstance(order, Read)]
        self.said.clear()
        return reads[-1]

    def leave(self) -> None:
        """End."""
        self.office.owner.leave(self.member)
        self.office.proceed()


class Office:
    """An owner whose clocks stand still."""

    def __init__(self, least_bytes: int = LEAST_BYTES) -> None:
        """Begin at noon, with notes that are begun anew from so many bytes on."""
        self.now = 1000.0
        self.notes = Notes(least_bytes)
        self.open()

    def open(self) -> None:
        """Let another owner take its place, who finds the notes."""
        self.owner = Owner(
            lambda: self.now,
            lambda: round(self.now * 1e9),
            lambda: NOON + timedelta(seconds=self.now),
            copy.deepcopy(self.notes),
        )

    def proceed(self) -> None:
        """Do what is due."""
        while self.owner.readings.is_due:
            self.owner.readings.proceed()

    def wait(self, seconds: float) -> None:
        """Let time pass, and the owner look at its clock."""
        self.now += seconds
        self.owner.tick()
        self.proceed()

    def worker(self, rules: tuple[Rule, ...] = RULES) -> Worker:
        """Return another worker, whose first generation has these rules."""
        worker = Worker(self)
        worker.say(Configure(b"g1", rules), Hello((), worker.process))
        return worker

    def load(self, worker: Worker, spent: dict[str, int] | None = None) -> None:
        """Carry a reading out that only this worker takes part in."""
        serial = worker.read()
        worker.say(Marked(serial), Level(serial, is_possible=True))
        assert worker.heard(Report)
        worker.say(Spent(serial, PERIODS, spent or {}))
        assert worker.heard(Resume) == [Resume(is_loaded=True)]


@pytest.fixture
def office() -> Iterator[Office]:
    """Return an owner."""
    made = Office()
    yield made
    made.notes.close()


# --- The same decisions -----------------------------------------------------------------------------------------------

_facts = st.builds(
    Facts,
    st.sampled_from([7, (1 << 64) | 12345]),
    st.sampled_from([None, "k1", "k2"]),
    st.sampled_from(["m", "other"]),
    st.just("up"),
)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), _facts, st.integers(0, 1500), st.booleans(), st.booleans()),
        st.tuples(st.just("attempt"), _facts),
        st.tuples(st.just("look"), _facts, st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 50), st.none() | st.integers(0, 3000)),
        st.tuples(st.just("wait"), st.sampled_from([0.001, 0.3, 1.0, 61.0])),
        st.tuples(st.just("succeed")),
    ),
    max_size=60,
)


class Pair:
    """Counters of one process, and an owner with two workers, to whom all the same happens."""

    def __init__(self) -> None:
        """Begin with nothing spent."""
        self.office = Office(least_bytes=600)
        self.workers = [self.office.worker(), self.office.worker()]
        self.holds = Holds()
        self.has_succeeded = False
        self._read()
        self.local = LocalCounters(Limits(RULES, lambda: round(self.office.now * 1e9)), self._reserve)
        self.calls: list[tuple[Worker, int, object, str]] = []

    def _reserve(self, call_id: str, budgets: tuple[Budget, ...], nano_usd: int | None) -> Hold | Refusal:
        assert nano_usd is not None
        return self.holds.reserve(call_id, budgets, nano_usd, NOON + timedelta(seconds=self.office.now))

    def _read(self) -> None:
        """Carry out the reading that was asked for last."""
        serial = self.workers[1].read()
        for worker in self.workers:
            worker.say(Marked(serial), Level(serial, is_possible=True))
        (teller,) = [worker for worker in self.workers if worker.heard(Report)]
        teller.say(Spent(serial, PERIODS, {account: spent for account, (spent, _) in self.holds.totals().items()}))

    def succeed(self, _turn: int) -> None:
        """Have another owner take over."""
        self.has_succeeded = True
        self.office.open()
        for worker in self.workers:
            worker.join_again()
        self._read()

    def wait(self, _turn: int, seconds: float) -> None:
        """Let time pass."""
        self.office.now += seconds

    def look(self, turn: int, facts: Facts, has_rules: bool) -> None:  # noqa: FBT001 - as drawn
        """Ask where a caller stands."""
        rules = KEY_RULES if has_rules and facts.key else ()
        answer = self.workers[turn % 2].ask(facts, NOTHING, rules, what=LOOK)
        assert answer.standing == structs.replace(self.local.standing(facts, rules), ticket=None)

    def attempt(self, turn: int, facts: Facts) -> None:
        """Take an attempt."""
        worker = self.workers[turn % 2]
        self._compare(worker, worker.ask(facts, what=ATTEMPT), self.local.take_attempt(facts, NOTHING), "")

    def take(self, turn: int, facts: Facts, amount: int, has_rules: bool, has_budgets: bool) -> None:  # noqa: FBT001 - as drawn
        """Take a call."""
        worker, bound, call_id = self.workers[turn % 2], Bound(amount, 1, amount), f"c{turn}"
        rules = KEY_RULES if has_rules and facts.key else ()
        budgets = BUDGETS if has_budgets and facts.key == "k1" else ()
        answer = worker.ask(facts, bound, rules, call_id, budgets)
        self._compare(worker, answer, self.local.take(facts, bound, rules, call_id, budgets), call_id)

    def end(self, _turn: int, index: int, cost: int | None) -> None:
        """Settle a call that is under way, or release it when there is no cost."""
        if not self.calls:
            return
        worker, number, receipt, call_id = self.calls.pop(index % len(self.calls))
        worker.say(Release(number) if cost is None else Settle(number, cost, 1, cost), Spend(call_id, cost or 0))
        self.holds.settle(call_id, cost or 0)
        if receipt is None:
            return
        if cost is None:
            self.local.release(receipt)
        else:
            self.local.settle(receipt, Bound(cost, 1, cost))

    def _compare(self, worker: Worker, answer: Answer, taken: Taken, call_id: str) -> None:
        assert answer.standing == structs.replace(taken.standing, ticket=None)
        got, expected = answer.hold or answer.refusal, taken.hold
        if self.has_succeeded and isinstance(got, Hold) and isinstance(expected, Hold):
            # Another owner warns once more.
            got, expected = structs.replace(got, warnings=()), structs.replace(expected, warnings=())
        assert got == expected
        assert answer.has_receipt == (taken.receipt is not None)
        if taken.receipt is not None or isinstance(taken.hold, Hold):
            self.calls.append((worker, answer.number, taken.receipt, call_id))


@settings(max_examples=200, deadline=None)
@given(_steps)
def test_shared_and_local_decide_alike(steps: list[tuple[Any, ...]]) -> None:
    """Whichever of two workers asks, and whichever owner answers: all is as in one process that never ends.

    The same standings, the same holds and the same balances.
    """
    pair = Pair()
    for turn, (step, *arguments) in enumerate(steps):
        getattr(pair, step)(turn, *arguments)
        assert pair.office.owner.holds.totals() == pair.holds.totals()
    pair.office.notes.close()


def test_an_unknown_price_and_unknown_balances_are_told_as_reasons(office: Office) -> None:
    """Nothing is taken then, of either."""
    worker = office.worker()
    facts = Facts(7, "k1", "m")
    assert worker.ask(facts, Bound(1, 1, None), KEY_RULES).error == "price_unknown"
    assert worker.ask(facts, Bound(1, 1, 1), KEY_RULES, "c1", BUDGETS).error == "accounting_unavailable"
    assert worker.ask(facts, NOTHING, KEY_RULES, what=LOOK).remaining == 9
    assert not worker.member.receipts


def test_amounts_beyond_what_can_be_written_are_refused(office: Office) -> None:
    """The largest number fits into no limit."""
    worker = office.worker()
    answer = worker.ask(Facts(7, "k1", "m"), Bound(2**64 - 1, 2**64 - 1, 0), KEY_RULES)
    assert (answer.admitted, answer.fits) == (False, False)


def test_a_fault_of_ours_costs_one_request(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    """The asker is told, and the next one is served."""
    worker = Worker(office)
    assert worker.ask(Facts(7)).error == "overloaded"
    assert "fault of ours" in caplog.text
    worker.say(Configure(b"g1", RULES))
    assert worker.ask(Facts(7)).admitted


# --- Generations ------------------------------------------------------------------------------------------------------


def test_a_new_generation_goes_on_with_the_counts(office: Office) -> None:
    """Whoever has the old one still counts in the same place."""
    first, second = office.worker((Rule(3, 60.0, "minute", ("global",)),)), office.worker()
    second.say(Configure(b"g2", (Rule(2, 60.0, "minute", ("global",)),)))
    assert first.ask(Facts(7)).remaining == 2
    assert second.ask(Facts(7), generation=b"g2").remaining == 0
    assert first.ask(Facts(7)).remaining == 0


def test_generations_that_nobody_uses_are_forgotten(office: Office) -> None:
    """A worker's last four are kept; a call of an older one goes by its newest."""
    worker = office.worker()
    for number in range(2, 9):
        worker.say(Configure(b"g%d" % number, (Rule(number, 60.0, "minute", ("global",)),)))
    assert len(office.owner._generations) == 4
    assert worker.ask(Facts(7), generation=b"g1").limit == 8


# --- The dead ---------------------------------------------------------------------------------------------------------


def test_slots_are_free_when_their_worker_ends_and_the_rest_stays_taken(office: Office) -> None:
    """What it may have used is taken as used."""
    rules = (IN_FLIGHT, Rule(100, 60.0, "minute", ("key",), "tokens"))
    dead, alive = office.worker(()), office.worker(())
    for _ in range(2):
        assert dead.ask(Facts(7, "k1"), Bound(20, 20, 0), rules).admitted
    assert not alive.ask(Facts(7, "k1"), Bound(1, 1, 0), rules).admitted
    dead.leave()
    standing = alive.ask(Facts(7, "k1"), Bound(1, 1, 0), rules).standing
    assert standing.admitted
    assert standing.tokens is not None
    assert standing.tokens.remaining == 100 - 80 - 2


def test_money_of_the_dead_is_spent_until_the_rows_tell_the_truth(office: Office) -> None:
    """First at its bound, as it may have cost that; a reading corrects it, whichever way."""
    worker = office.worker(())
    office.load(worker, {ACCOUNT: 100})
    dead = office.worker(())
    assert dead.ask(Facts(7, "k1"), Bound(1, 1, 400), (), "c1", BUDGETS).hold is not None
    assert office.owner.holds.totals()[ACCOUNT] == (100, 400)
    worker.said.clear()
    dead.leave()
    assert office.owner.holds.totals()[ACCOUNT] == (500, 0)
    assert worker.heard(Read) == []
    office.wait(1)
    office.load(worker, {ACCOUNT: 130})
    assert office.owner.holds.totals()[ACCOUNT] == (130, 0)


def test_a_silent_worker_is_taken_for_dead(office: Office) -> None:
    """Thirty seconds after it last said something."""
    quiet, loud = office.worker(()), office.worker(())
    office.now += SILENT_SECONDS - 1
    assert office.owner.tick() == []
    loud.say()
    office.now += 1
    assert office.owner.tick() == [quiet.member]


def test_what_ended_already_ends_once(office: Office) -> None:
    """A second settlement, and one of what was never taken, are nothing."""
    worker = office.worker(())
    office.load(worker)
    answer = worker.ask(Facts(7, "k1"), Bound(1, 1, 400), (IN_FLIGHT,), "c1", BUDGETS)
    for _ in range(2):
        worker.say(Settle(answer.number, 1, 1, 10), Spend("c1", 10))
    worker.say(Release(answer.number), Release(99), Spend("c9", 7))
    assert office.owner.holds.totals()[ACCOUNT] == (10, 0)
    worker.leave()
    worker.leave()
    assert office.owner.holds.totals()[ACCOUNT] == (10, 0)


# --- Readings ---------------------------------------------------------------------------------------------------------


def test_what_is_settled_after_a_mark_is_added_to_the_rows(office: Office) -> None:
    """Each worker's own mark counts; what was settled before is in the rows already."""
    first, second = office.worker(()), office.worker(())
    serial = second.read()
    for worker in (first, second):
        worker.say(Marked(serial), Level(serial, is_possible=True))
    (teller,) = [worker for worker in (first, second) if worker.heard(Report)]
    teller.say(Spent(serial, PERIODS, {}))
    for number, worker in enumerate([first, second, first]):
        assert worker.ask(Facts(7, "k1"), Bound(1, 1, 100), (), f"c{number}", BUDGETS).hold is not None
    first.say(Outdated())
    serial = first.read()
    first.say(Spend("c0", 10), Marked(serial), Spend("c2", 30), Level(serial, is_possible=True))
    second.say(Spend("c1", 20), Marked(serial), Level(serial, is_possible=True))
    (teller,) = [worker for worker in (first, second) if worker.heard(Report)]
    teller.say(Spent(serial, PERIODS, {ACCOUNT: 1000, "key/else/day/2026-11-23": 7}))
    assert office.owner.holds.totals() == {
        ACCOUNT: (1030, 0),
        "key/else/day/2026-11-23": (7, 0),
        "global//ever/1970-01-01": (30, 0),
    }


def test_a_reading_begins_anew_when_somebody_comes_or_goes(office: Office) -> None:
    """Nothing that was begun before counts then."""
    first = office.worker(())
    serial = first.read()
    first.say(Marked(serial), Level(serial, is_possible=True))
    assert first.heard(Report)
    second = office.worker(())
    assert first.heard(Resume) == [Resume(is_loaded=False)]
    first.say(Spent(serial, PERIODS, {ACCOUNT: 5}))
    assert not office.owner.readings.is_loaded
    second.leave()
    office.wait(1)
    office.load(first, {ACCOUNT: 6})
    assert office.owner.holds.totals()[ACCOUNT] == (6, 0)


def test_a_reading_that_is_not_possible_is_tried_again_in_a_second(office: Office) -> None:
    """Until then money is refused; one that takes too long ends as well."""
    worker = office.worker(())
    serial = worker.read()
    worker.say(Level(serial, is_possible=False))
    assert worker.heard(Read) == []
    office.wait(1)
    assert worker.read() == serial + 1
    office.wait(10)
    assert worker.heard(Read) == []
    office.wait(1)
    assert worker.read() == serial + 2


def test_a_new_owner_is_told_what_is_set_aside(office: Office) -> None:
    """It is held again, by whichever connection told of it last, and spent once."""
    worker = office.worker(())
    hold = Hold("c1", 300, (ACCOUNT,))
    worker.say(Hello((hold,)))
    again = office.worker(())
    again.say(Hello((hold,)))
    worker.leave()
    assert office.owner.holds.totals()[ACCOUNT] == (0, 300)
    office.wait(1)
    office.load(again, {ACCOUNT: 50})
    again.say(Spend("c1", 20))
    assert office.owner.holds.totals()[ACCOUNT] == (70, 0)


def test_a_new_owner_answers_nobody_before_all_have_come(office: Office) -> None:
    """Who comes first does not get the slot that another one has; one that does not come has died, and had none."""
    first, second = office.worker(), office.worker()
    facts = Facts(7, "k1", "m")
    one = (Rule(1, 0.0, "", ("key",), "in_flight"),)
    assert first.ask(facts, NOTHING, one).admitted
    office.open()
    second.join_again()
    question = Ask(9, CALL, b"g1", address_of(7), "k1", "m", None, 0, 0, 0, encode_parts(one), "", b"")
    second.say(question)
    assert not second.answers()
    first.join_again()
    assert [(each.number, each.admitted) for each in second.answers()] == [(9, False)]
    office.open()
    second.join_again()
    second.say(structs.replace(question, number=10))
    office.wait(GATHERING_SECONDS - 0.1)
    assert not second.answers()
    office.wait(0.1)
    assert [(each.number, each.admitted) for each in second.answers()] == [(10, True)]
