"""The ledger and the holds together: whatever happens, balances equal the sum of the rows."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatgate.accounting.holds import Budget, Hold, Holds
from chatgate.accounting.journal import Journal
from chatgate.accounting.ledger import Row, State, fold, interrupt, totals
from chatgate.accounting.records import Dispatch, Failure, Record, Settlement
from chatgate.accounting.segments import replay

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BUDGETS = (
    Budget("key", "k1", "day", 10_000),
    Budget("key", "k2", "week", 20_000),
    Budget("owner", "alice", "month", 30_000),
    Budget("global", "", "ever", 100_000),
)


def dispatch(call_id: str, attempt: int, reserved: int, accounts: tuple[str, ...], at: datetime = NOON) -> Dispatch:
    """Return the record of an attempt."""
    return Dispatch(
        call_id,
        attempt,
        at,
        "chat",
        "openai",
        "k1",
        "alice",
        "192.0.2.1",
        "m",
        "m",
        "up",
        stream=False,
        reserved_nano_usd=reserved,
        accounts=accounts,
    )


def settlement(call_id: str, charge: int, attempt: int = 1, at: datetime = NOON) -> Settlement:
    """Return the record of an end."""
    return Settlement(call_id, attempt, at, "completed", 200, charged_nano_usd=charge)


def rows_of(*records: Record) -> dict[str, Row]:
    """Fold records."""
    rows: dict[str, Row] = {}
    for record in records:
        fold(rows, record)
    return rows


def test_a_call_is_charged_once_whatever_was_retried() -> None:
    """Every attempt is there, the failed ones with what they were, and the accounts see one charge."""
    failure = Failure("c1", 1, NOON, "upstream_timeout", 0, 77, abandoned=True)
    rows = rows_of(
        dispatch("c1", 1, 500, ("a", "b")), failure, dispatch("c1", 2, 500, ("a", "b")), settlement("c1", 120, 2)
    )
    assert rows["c1"].attempts == {1: failure, 2: None}
    assert rows["c1"].state is State.SETTLED
    assert totals(rows.values()) == {"a": (120, 0), "b": (120, 0)}


def test_a_call_under_way_is_held_and_an_interrupted_one_spent_at_its_bound() -> None:
    """What nobody heard of again costs at most what was reserved, and counts as that."""
    rows = rows_of(dispatch("c1", 1, 500, ("a",)), dispatch("c2", 1, 300, ("a",)), settlement("c2", 10))
    assert totals(rows.values()) == {"a": (10, 500)}
    assert interrupt(rows.values()) == 1
    assert totals(rows.values()) == {"a": (510, 0)}
    assert interrupt(rows.values()) == 0
    assert (rows["c1"].state, rows["c2"].state) == (State.UNKNOWN, State.SETTLED)


def test_the_first_settlement_counts() -> None:
    """A call that was settled is not settled again."""
    rows = rows_of(dispatch("c1", 1, 500, ("a",)), settlement("c1", 10), settlement("c1", 99))
    assert totals(rows.values()) == {"a": (10, 0)}


CALLS = st.lists(
    st.tuples(st.integers(0, 1000), st.one_of(st.none(), st.integers(0, 1500)), st.booleans()), min_size=1, max_size=6
)


@given(CALLS, st.randoms(use_true_random=False))
def test_records_may_come_in_any_order_and_more_than_once(
    calls: list[tuple[int, int | None, bool]], dice: st.DataObject
) -> None:
    """Two readers that overlap, or a batch out of order, give the same rows."""
    records: list[Record] = []
    for number, (reserved, charge, retried) in enumerate(calls):
        call_id = f"c{number}"
        records.append(dispatch(call_id, 1, reserved, ("a",)))
        if retried:
            records += [Failure(call_id, 1, NOON, "upstream_error"), dispatch(call_id, 2, reserved, ("a",))]
        if charge is not None:
            records.append(settlement(call_id, charge, 2 if retried else 1))
    shuffled = records * 2
    dice.shuffle(shuffled)  # type: ignore[attr-defined]  # a Random
    assert rows_of(*shuffled) == rows_of(*records)


class Call:
    """A call as the test knows it: the truth that both sides are held to."""

    def __init__(self, hold: Hold) -> None:
        """Begin as reserved."""
        self.hold = hold
        self.state = "reserved"
        self.cost = 0


class Gateway(RuleBasedStateMachine):
    """Holds in memory and a journal on disk, with crashes that cut it anywhere and a clock that jumps."""

    def __init__(self) -> None:
        """Begin with an empty directory."""
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.now = NOON
        self.calls: dict[str, Call] = {}
        self.written: list[Record] = []
        self.count = 0
        self.start()

    def start(self) -> None:
        """Start a process: read what is there, and go on from it."""
        rows = rows_of(*(entry.record for entry in replay(self.path) if entry.record))
        interrupt(rows.values())
        self.holds = Holds()
        for account, (spent, held) in totals(rows.values()).items():
            assert held == 0
            self.holds.load(account, spent)
        self.journal = Journal(self.path, lambda: 0.0, segment_bytes=2000)

    def teardown(self) -> None:
        """Let go."""
        self.journal.close()
        self.directory.cleanup()

    def write(self, record: Record) -> None:
        """Write a record, and remember that it was."""
        self.journal.write(record)
        self.written.append(record)

    def some(self, data: st.DataObject, *states: str) -> str | None:
        """Return a call in one of these states, None when there is none."""
        fitting = [call_id for call_id, call in self.calls.items() if call.state in states]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    @rule(budgets=st.sets(st.sampled_from(BUDGETS)), amount=st.integers(0, 6000))
    def reserve(self, budgets: set[Budget], amount: int) -> None:
        """Reserve: admitted exactly when every budget has room by the rows."""
        self.count += 1
        call_id = f"c{self.count}"
        chosen = sorted(budgets, key=BUDGETS.index)
        before = self.sums()
        room = all(
            sum(before.get(self.holds.standing(budget, self.now).account, (0, 0))) + amount <= budget.limit_nano_usd
            for budget in chosen
        )
        answer = self.holds.reserve(call_id, chosen, amount, self.now)
        assert isinstance(answer, Hold) == room
        if isinstance(answer, Hold):
            self.calls[call_id] = Call(answer)

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """Dispatch: on record first."""
        if call_id := self.some(data, "reserved"):
            call = self.calls[call_id]
            self.write(dispatch(call_id, 1, call.hold.amount_nano_usd, call.hold.accounts, self.now))
            call.state = "dispatched"

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Fail once and try again; nothing changes for the caller."""
        if call_id := self.some(data, "dispatched"):
            hold = self.calls[call_id].hold
            self.write(Failure(call_id, 1, self.now, "upstream_error", 500, 9))
            self.write(dispatch(call_id, 2, hold.amount_nano_usd, hold.accounts, self.now))

    @rule(data=st.data(), cost=st.integers(0, 7000))
    def settle(self, data: st.DataObject, cost: int) -> None:
        """Settle, sometimes above what was reserved."""
        if call_id := self.some(data, "dispatched"):
            self.write(settlement(call_id, cost, at=self.now))
            assert self.holds.settle(call_id, cost)
            self.calls[call_id].state, self.calls[call_id].cost = "settled", cost

    @rule(data=st.data(), cost=st.integers(0, 7000))
    def settle_again(self, data: st.DataObject, cost: int) -> None:
        """Settle or release what has ended; nothing changes, not even when it is written again."""
        if call_id := self.some(data, "settled"):
            self.write(settlement(call_id, cost, at=self.now))
            assert not self.holds.settle(call_id, cost)
            assert not self.holds.release(call_id)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Release what was never dispatched."""
        if call_id := self.some(data, "reserved"):
            assert self.holds.release(call_id)
            del self.calls[call_id]

    @rule(hours=st.integers(-30, 60))
    def jump(self, hours: int) -> None:
        """Let the clock jump."""
        self.now += timedelta(hours=hours)

    @rule()
    def sweep(self) -> None:
        """Drop nothing that still counts: this clock goes back a day at most between two rules."""
        self.holds.forget(self.now - timedelta(days=400))

    @precondition(lambda self: self.written)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """Die, with the last segment cut at any byte: the records before the cut are all there is."""
        self.journal.close()
        last = max(self.path.glob("*.journal"))
        size = last.stat().st_size
        before = [entry.record for entry in replay(self.path) if entry.record]
        assert before == self.written
        cut = data.draw(st.integers(0, size))
        ends = [entry.position.offset for entry in replay(self.path) if entry.position.segment == int(last.stem)]
        lost = sum(end > cut for end in ends)
        with last.open("rb+") as file:
            file.truncate(cut)
        self.written = self.written[: len(self.written) - lost]
        self.forget_what_was_lost()
        self.start()

    def forget_what_was_lost(self) -> None:
        """Bring the truth to what the written records say, without the ledger's help."""
        sent = {record.call_id for record in self.written if isinstance(record, Dispatch)}
        costs: dict[str, int] = {}
        for record in self.written:
            if isinstance(record, Settlement):
                costs.setdefault(record.call_id, record.charged_nano_usd)
        self.calls = {call_id: call for call_id, call in self.calls.items() if call_id in sent}
        for call_id, call in self.calls.items():
            settled = call_id in costs
            call.state = "settled" if settled else "unknown"
            call.cost = costs[call_id] if settled else call.hold.amount_nano_usd

    def sums(self) -> dict[str, tuple[int, int]]:
        """Add up the truth."""
        sums: dict[str, tuple[int, int]] = {}
        for call in self.calls.values():
            over = call.state in {"settled", "unknown"}
            change = (call.cost, 0) if over else (0, call.hold.amount_nano_usd)
            for account in call.hold.accounts:
                spent, held = sums.get(account, (0, 0))
                sums[account] = spent + change[0], held + change[1]
        return {account: sum_ for account, sum_ in sums.items() if any(sum_)}

    @invariant()
    def balances_equal_the_sum_of_rows(self) -> None:
        """Compare the holds, the truth, and the rows of what is on disk."""
        assert self.holds.totals() == self.sums()
        rows = rows_of(*(entry.record for entry in replay(self.path) if entry.record))
        for call_id, row in rows.items():
            call = self.calls[call_id]
            assert (row.state is State.SETTLED) == (call.state == "settled")
            if call.state == "unknown":
                row.state = State.UNKNOWN
        unsent = [call for call in self.calls.values() if call.state == "reserved"]
        sums = {account: list(sum_) for account, sum_ in totals(rows.values()).items()}
        for call in unsent:
            for account in call.hold.accounts:
                sums.setdefault(account, [0, 0])[1] += call.hold.amount_nano_usd
        assert {account: tuple(sum_) for account, sum_ in sums.items() if any(sum_)} == self.holds.totals()


TestGateway = Gateway.TestCase
TestGateway.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
