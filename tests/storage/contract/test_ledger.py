"""Records become rows exactly once, and their money becomes sums, alike on both databases."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from chatgate.accounting import ledger as law
from chatgate.accounting.records import Record
from chatgate.accounting.segments import Position
from chatgate.accounting.usage import Source, Usage
from chatgate.storage import audit, calls, ledger, openings, schema
from chatgate.storage.database import Database
from chatgate.storage.errors import Reason, StorageUnavailable
from storage.conftest import Place, migrate
from storage.records import DAY, EVER, NOON, dispatch, dump, failure, fold, quarantine, rows, settlement, sums

LATER = NOON + timedelta(hours=1)


def test_a_call_is_a_row_with_all_that_its_records_say(database: Database) -> None:
    """Who, what, where, when, how many tokens from where, at which price, and for how much."""
    assert fold(database, dispatch("c1", 900, (DAY, EVER)), settlement("c1", 250)) == ledger.Folded(2, 0)
    assert rows(database)["c1", 1]._asdict() == {
        "request_id": "c1",
        "attempt": 1,
        "state": "settled",
        "ends_call": True,
        "outcome": "completed",
        "code": None,
        "status": 200,
        "key_id": "k1",
        "owner": "alice",
        "address": "192.0.2.1",
        "operation": "chat",
        "surface": "openai",
        "streamed": True,
        "asked_model": "fast",
        "sent_model": "gpt-5-mini",
        "answered_model": "gpt-5-mini-2026-01-01",
        "upstream": "openai",
        "upstream_request_id": "chatcmpl-1",
        "worker": "0",
        "dispatched_at": NOON,
        "first_token_at": NOON + timedelta(seconds=1),
        "settled_at": NOON + timedelta(seconds=2),
        "input_tokens": 100,
        "cached_input_tokens": 10,
        "cache_write_tokens": 5,
        "audio_input_tokens": 2,
        "output_tokens": 20,
        "reasoning_tokens": 3,
        "audio_output_tokens": 1,
        "usage_source": "counted",
        "usage_refused": False,
        "price": '{"input":"0.25"}',
        "reserved_nano_usd": 900,
        "charged_nano_usd": 250,
        "cost_nano_usd": 0,
        "accounts": (DAY, EVER),
        "own_key": False,
    }
    assert sums(database) == {DAY: (250, 0), EVER: (250, 0)}
    assert database.read(ledger.positions) == {"0": (1, 20)}


def test_whose_key_was_shown_is_told_of_each_attempt(database: Database) -> None:
    """The provider's bill for the one that served the call goes there."""
    fold(database, dispatch("c1", own_key=True), failure("c1"), dispatch("c1", attempt=2), settlement("c1", attempt=2))
    assert {number: row.own_key for (_, number), row in rows(database).items()} == {1: True, 2: False}


def test_an_account_is_opened_once_with_what_was_spent_before(database: Database) -> None:
    """By its key, its owner, or everybody, in its period; not with calls by callers' own keys, nor where it exists."""
    fold(
        database,
        *(dispatch("c1"), settlement("c1", 100), dispatch("c2", owner="bob"), settlement("c2", 20)),
        *(dispatch("c3", at=NOON - timedelta(days=1)), settlement("c3", 3)),
        *(dispatch("c4", own_key=True), settlement("c4", 9000), dispatch("c5", 50)),
    )
    accounts = [DAY, "owner/alice/month/2026-11-01", EVER, "owner/carol/ever/1970-01-01"]
    opened = {DAY: 120, "owner/alice/month/2026-11-01": 103, EVER: 123}
    assert database.read(openings.openings, accounts) == opened
    assert database.write(openings.open_accounts, accounts) == opened
    assert database.read(openings.openings, accounts) == database.write(openings.open_accounts, accounts) == {}
    fold(database, dispatch("c6", 900, (DAY, EVER)), settlement("c6", 7), first=1000)
    spent = {account: balance.spent for account, balance in database.read(ledger.balances, accounts).items()}
    assert spent == {DAY: 127, "owner/alice/month/2026-11-01": 103, EVER: 130}
    assert database.read(audit.audit).differences == ()


def test_a_call_without_a_key_is_a_row_too(database: Database) -> None:
    """Nobody is NULL, and no sum is moved."""
    fold(database, dispatch("c1", key_id="", owner="", address=""), settlement("c1", usage=None, flaws=("x:negative",)))
    row = rows(database)["c1", 1]
    assert (row.key_id, row.owner, row.accounts, row.usage_source, row.usage_refused) == (None, "", (), "", True)
    assert not dump(database)["budgets"]


def test_a_call_under_way_is_held_until_a_later_batch_settles_it(database: Database) -> None:
    """The sums follow the call."""
    fold(database, dispatch("c1", 900, (DAY,)))
    assert (rows(database)["c1", 1].state, sums(database)) == ("dispatched", {DAY: (0, 900)})
    fold(database, settlement("c1", 250), first=10)
    assert (rows(database)["c1", 1].state, sums(database)) == ("settled", {DAY: (250, 0)})


def test_a_call_is_charged_once_whatever_was_retried(database: Database) -> None:
    """Each attempt is a row; failed ones cost the operator, one ends the call, and the caller is charged for that."""
    fold(
        database,
        dispatch("c1", 900, (DAY,)),
        failure("c1", cost_nano_usd=77, abandoned=True),
        dispatch("c1", 900, (DAY,), 2, upstream="second"),
        failure("c1", 2, code="upstream_error", status=0),
        dispatch("c1", 900, (DAY,), 3),
    )
    assert sums(database) == {DAY: (0, 900)}
    fold(database, settlement("c1", 250, 3), first=100)
    found = rows(database)
    told = {key: (row.state, row.ends_call, row.code, row.status, row.cost_nano_usd) for key, row in found.items()}
    assert told == {
        ("c1", 1): ("abandoned", False, "upstream_timeout", 504, 77),
        ("c1", 2): ("failed", False, "upstream_error", None, 0),
        ("c1", 3): ("settled", True, None, 200, 0),
    }
    assert [row.charged_nano_usd for row in found.values()] == [0, 0, 250]
    assert sums(database) == {DAY: (250, 0)}


def test_folding_again_changes_nothing(database: Database) -> None:
    """Whatever part of a journal is told twice, in one batch or in two, row by row it is the same."""
    records: list[Record | bytes] = [
        dispatch("c1", 900, (DAY,)),
        failure("c1"),
        dispatch("c1", 900, (DAY,), 2),
        dispatch("c2", 50, (DAY, EVER)),
        settlement("c1", 250, 2),
        b"torn",
    ]
    fold(database, *records)
    before = dump(database)
    assert fold(database, *records).quarantined == 1
    fold(database, *records[3:], first=30)
    assert dump(database) == before
    fold(database, settlement("c1", 999, 1), settlement("c1", 999, 3), first=60)
    assert dump(database)["attempts"] == before["attempts"]


_ids = itertools.count()
CALLS = st.lists(
    st.tuples(
        st.integers(0, 1000), st.none() | st.integers(0, 1500), st.integers(1, 3), st.sets(st.sampled_from("ab"))
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CALLS, st.randoms(use_true_random=False), st.lists(st.integers(0, 40), max_size=4), st.integers(0, 1))
def test_the_rows_are_those_of_the_law(
    database: Database, told: list[tuple[int, int | None, int, set[str]]], dice: Any, cuts: list[int], ends: int
) -> None:
    """In any order, told twice, cut into any batches, interrupted in between: what `accounting.ledger` says."""
    example = next(_ids)
    worker = f"w{example}"
    records: list[Record] = []
    for number, (reserved, charge, attempts, names) in enumerate(told):
        call_id = f"{example}-{number}"
        accounts = tuple(f"{example}/{name}" for name in sorted(names))
        for attempt in range(1, attempts + 1):
            records.append(dispatch(call_id, reserved, accounts, attempt))
            if attempt < attempts:
                records.append(failure(call_id, attempt))
        if charge is not None:
            records.append(settlement(call_id, charge, attempts))
    shuffled = records * 2
    dice.shuffle(shuffled)
    expected: dict[str, law.Row] = {}
    edges = [0, *sorted(cuts), len(shuffled)]
    for first, last in itertools.pairwise(edges):
        for record in shuffled[first:last]:
            law.fold(expected, record)
        fold(database, *shuffled[first:last], worker=worker, first=first * 10)
        if ends:
            interrupted = law.interrupt(expected.values())
            assert database.write(ledger.interrupt, worker, LATER) == interrupted
    asked = [f"{example}/{name}" for name in "ab"]
    found = {name: sum_ for name, sum_ in sums(database, asked).items() if any(sum_)}
    assert found == law.totals(expected.values())
    stored = {key: row for key, row in rows(database).items() if row.worker == worker}
    assert set(stored) == {(call_id, number) for call_id, row in expected.items() for number in row.attempts}
    for call_id, row in expected.items():
        endings = [one.state for (its, _), one in stored.items() if its == call_id and one.ends_call]
        if row.state is law.State.SETTLED:
            assert endings == ["settled"]
        else:
            assert len(endings) == (row.state is law.State.UNKNOWN)
            assert "settled" not in endings
    fold(database, *shuffled, worker=worker)
    assert {key: row for key, row in rows(database).items() if row.worker == worker} == stored
    assert database.read(audit.audit).differences == ()


TEXTS = st.sampled_from(["", "a", "é\0", "x" * 2100])
COUNTS = st.integers(0, 10**12)
ENDS = st.tuples(
    st.builds(Usage, *[COUNTS] * 7, st.sampled_from(Source)) | st.none(),
    st.sampled_from([0, 200, 504]),
    st.booleans(),
    st.sampled_from([(), ("x:negative",)]),
    st.integers(0, calls.MAX_NANO_USD),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=15, max_size=15), ENDS, st.sets(st.sampled_from([DAY, EVER])))
def test_a_call_is_the_same_row_whether_it_is_told_at_once_or_in_parts(
    database: Database, texts: list[str], ends: Any, names: set[str]
) -> None:
    """There is a short way for calls that are told whole, and it leads to the same place."""
    example = next(_ids)
    tokens, status, has_come, flaws, charged = ends
    key_id, owner, address, operation, surface, asked, sent, upstream, *rest = texts
    outcome, code, answered, price, its_id, *_ = rest
    before = sums(database)
    for way in ("whole", "parts"):
        records: list[Record] = [
            dispatch(
                f"{example}-{way}",
                charged,
                tuple(sorted(names)),
                key_id=key_id,
                owner=owner,
                address=address,
                operation=operation,
                surface=surface,
                asked_model=asked,
                sent_model=sent,
                upstream=upstream,
                stream=has_come,
            ),
            settlement(
                f"{example}-{way}",
                charged,
                outcome=outcome,
                status=status,
                code=code,
                answered_model=answered,
                price=price,
                usage=tokens,
                flaws=flaws,
                upstream_request_id=its_id,
                first_token_at=NOON if has_come else None,
            ),
        ]
        for batch in [records] if way == "whole" else [records[:1], records[1:]]:
            assert fold(database, *batch).quarantined == 0
    found = rows(database)
    whole, parts = (found[f"{example}-{way}", 1]._asdict() for way in ("whole", "parts"))
    assert whole | {"request_id": ""} == parts | {"request_id": ""}
    after = sums(database)
    for name in (DAY, EVER):
        spent = after.get(name, (0, 0))[0] - before.get(name, (0, 0))[0]
        assert spent == (2 * charged if name in names else 0)
    assert database.read(audit.audit).differences == ()


def test_a_call_told_whole_that_is_known_already_is_told_again(database: Database) -> None:
    """By the same attempt or by another one: nothing is counted twice, and what is new is added."""
    fold(database, dispatch("c1", 900, (DAY,), 2), dispatch("c2", 900, (DAY,)))
    told: list[Record] = [
        dispatch("c1", 900, (DAY,)),
        settlement("c1", 5),
        dispatch("c2", 900, (DAY,)),
        settlement("c2", 7),
    ]
    for _ in range(2):
        fold(database, *told, dispatch("c3", 900, (DAY,)), settlement("c3", 9), first=20)
        states = {key: row.state for key, row in rows(database).items()}
        assert states == {("c1", 1): "settled", ("c1", 2): "unknown", ("c2", 1): "settled", ("c3", 1): "settled"}
        assert sums(database) == {DAY: (21, 0)}
    assert database.read(audit.audit).differences == ()


@pytest.mark.parametrize("others", [0, 3, 400])
@pytest.mark.parametrize("known", [0, 1, 40])
def test_known_calls_among_many_new_ones_count_once(database: Database, known: int, others: int) -> None:
    """However many are known, and however many calls of others lie between them by their ids."""
    batch = [(dispatch(f"c{number:03}", 9, (DAY,)), settlement(f"c{number:03}", 4)) for number in range(40)]
    fold(database, *(record for told in batch[:known] for record in told))
    fold(database, *(record for number in range(others) for record in (dispatch(f"c{number % 39:03}x{number}"),)))
    fold(database, *(record for told in batch for record in told), first=10_000)
    assert len(rows(database)) == 40 + others
    assert {row.state for (call_id, _), row in rows(database).items() if "x" not in call_id} == {"settled"}
    assert sums(database, (DAY,)) == {DAY: (160, 0)}
    assert database.read(audit.audit).differences == ()


def test_what_a_dead_process_left_is_spent_at_its_bound(database: Database) -> None:
    """Its calls under way are unknown; those of another worker, and those begun since, are not touched."""
    fold(database, dispatch("c1", 900, (DAY,)), dispatch("c2", 50, (DAY,)), settlement("c2", 20))
    fold(database, dispatch("c3", 7, (DAY,)), failure("c3"), first=50)
    fold(database, dispatch("c4", 30, (DAY,)), first=90)
    fold(database, dispatch("c5", 1, (DAY,)), worker="1")
    assert database.write(ledger.interrupt, "0", LATER, {"c4"}) == 2
    found = rows(database)
    assert [(row.state, row.ends_call, row.charged_nano_usd) for _, row in sorted(found.items())] == [
        ("unknown", True, 900),
        ("settled", True, 20),
        ("failed", True, 7),
        ("dispatched", False, 0),
        ("dispatched", False, 0),
    ]
    assert found["c1", 1].settled_at == LATER
    assert sums(database) == {DAY: (927, 31)}
    assert database.write(ledger.interrupt, "0", LATER, {"c4"}) == 0
    assert database.read(audit.audit).unknown_calls == 2


def test_an_end_that_is_heard_of_late_replaces_the_bound(database: Database) -> None:
    """A settlement that lay in a part of the journal that could not be read until now."""
    fold(database, dispatch("c1", 900, (DAY,)), failure("c1"), dispatch("c1", 900, (DAY,), 2))
    database.write(ledger.interrupt, "0", LATER)
    assert sums(database) == {DAY: (900, 0)}
    fold(database, settlement("c1", 120, 2), first=30)
    assert sums(database) == {DAY: (120, 0)}
    assert {row.state for row in rows(database).values()} == {"failed", "settled"}


def test_an_end_whose_beginning_is_lost_is_kept(database: Database) -> None:
    """It is in no account, for nobody knows them; when the beginning is found, it is."""
    fold(database, settlement("c1", 120))
    row = rows(database)["c1", 1]
    assert (row.charged_nano_usd, row.accounts, row.dispatched_at) == (120, None, NOON + timedelta(seconds=2))
    assert sums(database) == {}
    fold(database, dispatch("c1", 900, (DAY,)), first=50)
    row = rows(database)["c1", 1]
    assert (row.state, row.owner, row.dispatched_at) == ("settled", "alice", NOON)
    assert sums(database) == {DAY: (120, 0)}


def test_poison_is_normalised_or_put_aside_and_its_neighbours_are_kept(database: Database) -> None:
    """Of ten thousand records, a hundredth cannot be stored as they are: none is lost, and no other is."""
    awkward: list[Record | bytes] = [
        dispatch("bad-nul", asked_model="a\0b"),
        dispatch("bad-surrogate", owner="\ud800x"),
        dispatch("bad-long", address="x" * (1 << 20)),
        dispatch("bad-bound", -1),
        dispatch("bad-attempt", attempt=1 << 40),
        dispatch("bad-naive", at=NOON.replace(tzinfo=None)),
        dispatch("bad-id\0"),
        dispatch("", 1),
        dispatch("x" * 65),
        dispatch("bad-account", 1, ("x" * 301,)),
        dispatch("bad-accounts", 1, tuple(f"key/k{number}/day/2026-11-23" for number in range(1000))),
        settlement("bad-charge", 1 << 62),
        settlement("bad-tokens", usage=Usage(1 << 70, 1)),
        settlement("bad-status", status=-5),
        b"\xff\0torn",
    ]
    records: list[Record | bytes] = []
    for number in range(5000):
        records += [dispatch(f"c{number}", 3, (DAY,)), settlement(f"c{number}", 2)]
        if number % 50 == 0:
            poison = awkward[number // 50 % len(awkward)]
            records.append(poison if isinstance(poison, bytes) else msgspec.structs.replace(poison))
    folded = fold(database, *records)
    assert sums(database) == {DAY: (10_000, 0)}
    found = rows(database)
    assert sum(call_id.startswith("c") for call_id, _ in found) == 5000
    assert found["bad-nul", 1].asked_model == "a␀b"
    assert found["bad-surrogate", 1].owner == "\ufffdx"
    assert found["bad-long", 1].address.endswith("…truncated(1048576)")
    kept = quarantine(database)
    assert folded.quarantined == len(kept) == database.read(ledger.quarantined)
    normalised = sum(1 for number in range(100) if number % len(awkward) < 3)
    assert len(kept) == 100 - normalised
    assert {row.problem for row in kept} == {
        "unfit: nano_usd",
        "unfit: attempt",
        "unfit: at",
        "unfit: call_id",
        "unfit: accounts",
        "unfit: usage",
        "unfit: status",
        "damaged",
    }
    assert any("bad-charge" in row.record for row in kept)
    assert database.read(audit.audit).differences == ()


def test_what_the_database_itself_refuses_is_put_aside_alone(migrated_place: Place) -> None:
    """A rule that nobody here knew of costs the one record that breaks it."""
    database = migrated_place.open()
    if database.dialect == "sqlite":
        rule = (
            "CREATE TRIGGER odd BEFORE INSERT ON attempts WHEN NEW.asked_model = 'odd'"
            " BEGIN SELECT RAISE(ABORT, 'no odd models'); END"
        )
        undo = "DROP TRIGGER odd"
    else:
        rule = "ALTER TABLE attempts ADD CONSTRAINT odd CHECK (asked_model <> 'odd')"
        undo = "ALTER TABLE attempts DROP CONSTRAINT odd"
    database.write(lambda connection: connection.execute(text(rule)))
    try:
        records: list[Record] = []
        for number in range(300):
            model = "odd" if number in {7, 8, 299} else "even"
            records.append(dispatch(f"c{number}", 5, (DAY,), asked_model=model))
        assert fold(database, *records) == ledger.Folded(300, 3)
    finally:
        database.write(lambda connection: connection.execute(text(undo)))
    assert len(rows(database)) == 297
    assert sums(database) == {DAY: (0, 297 * 5)}
    kept = quarantine(database)
    assert [row.offset_bytes for row in kept] == [80, 90, 3000]
    assert all("odd" in row.problem and "c299" not in row.problem for row in kept)
    assert database.read(audit.audit).differences == ()
    database.close()


def test_a_sum_that_would_be_too_large_refuses_what_would_make_it_so(database: Database) -> None:
    """And nothing else: the account stays usable."""
    fold(database, dispatch("c1", 1, (DAY,)), settlement("c1", 1))
    almost = 2**63 - 10
    database.write(lambda connection: connection.execute(schema.budgets.update().values(spent_nano_usd=almost)))
    assert fold(database, dispatch("c2", 100, (DAY,)), settlement("c2", 100), first=20).quarantined == 1
    assert fold(database, dispatch("c3", 5, (DAY,)), settlement("c3", 5), first=40).quarantined == 0
    assert sums(database)[DAY] == (almost + 5, 100)


def test_a_full_disk_is_no_poison(tmp_path: Path) -> None:
    """Nothing is put aside, nothing moves, and the batch is folded when there is room."""
    place = Place(None, tmp_path)
    migrate(place)
    database = place.open()
    batch = [dispatch(f"c{number}", 5, (DAY,), sent_model="x" * 200) for number in range(2000)]
    pages = database.write(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())

    def allow(more: int) -> None:
        statement = f"PRAGMA max_page_count = {pages + more}"
        database.write(lambda connection: connection.exec_driver_sql(statement).scalar_one())

    allow(20)
    with pytest.raises(StorageUnavailable) as caught:
        fold(database, *batch)
    assert caught.value.reason is Reason.FULL
    assert not any(dump(database).values())
    allow(10_000)
    assert fold(database, *batch) == ledger.Folded(2000, 0)
    assert sums(database) == {DAY: (0, 10_000)}
    database.close()


def test_workers_that_fold_at_once_lose_nothing_of_each_other(migrated_place: Place) -> None:
    """Four connections of their own add to the same accounts, which none of them has seen before."""
    together = threading.Barrier(4)

    def work(worker: int) -> None:
        database = migrated_place.open(20)
        together.wait(20)
        for batch in range(5):
            ids = [f"{worker}-{batch}-{number}" for number in range(20)]
            begun = [dispatch(call_id, 10, (DAY, f"key/{batch}/day/2026-11-23")) for call_id in ids]
            ended = [settlement(call_id, 3) for call_id in ids[:15]]
            fold(database, *begun, *ended, worker=str(worker), first=1000 * batch)
        database.write(ledger.interrupt, str(worker), LATER)
        database.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    database = migrated_place.open()
    found = database.read(audit.audit)
    assert (found.calls, found.open_calls, found.quarantined, found.differences) == (400, 0, 0, ())
    assert sums(database, [DAY]) == {DAY: (300 * 3 + 100 * 10, 0)}
    assert database.read(ledger.positions) == {str(worker): (1, 4350) for worker in range(4)}
    database.close()


def test_a_ledger_that_somebody_else_holds_is_no_poison(migrated_place: Place) -> None:
    """Whoever cannot have it in time is told so, nothing is put aside, and the same batch is folded later."""
    holder, other = migrated_place.open(), migrated_place.open(0.2)

    def hold(connection: Any) -> None:
        ledger.fold(connection, "1", [], Position(1, 0))
        with pytest.raises(StorageUnavailable) as caught:
            fold(other, dispatch("c1", 9, (DAY,)))
        assert caught.value.reason is Reason.LOCKED

    holder.write(hold)
    assert not dump(other)["quarantine"]
    assert fold(other, dispatch("c1", 9, (DAY,))) == ledger.Folded(1, 0)
    assert sums(other) == {DAY: (0, 9)}
    holder.close()
    other.close()


def test_balances_are_found_by_name_and_by_period(database: Database) -> None:
    """However many are asked for, and whatever signs their names are made of."""
    names = ["key/100%/day/2026-11-23", "key/a_b/day/2026-11-22", EVER, DAY, "owner/x/y/month/2026-11-01"]
    for number, name in enumerate(names):
        fold(database, dispatch(f"c{number}", 10, (name,)), settlement(f"c{number}", number + 1), first=100 * number)
    asked = [*names, *(f"none {number}" for number in range(1500))]
    assert sums(database, asked) == {name: (number + 1, 0) for number, name in enumerate(names)}
    found = database.read(ledger.balances_of_periods, ["day/2026-11-23", "ever/1970-01-01"])
    assert found == {names[0]: (1, 0), EVER: (3, 0), DAY: (4, 0)}
    assert database.read(ledger.balances_of_periods, []) == {}


def test_what_is_old_is_forgotten_in_batches_and_stays_in_the_sums(database: Database) -> None:
    """Oldest first, whole calls; what is under way or ended since stays, and the audit finds no difference."""
    old = NOON - timedelta(days=100)
    for number in range(25):
        at = old + timedelta(minutes=number)
        fold(
            database,
            dispatch(f"c{number}", 9, (DAY, EVER), at=at),
            failure(f"c{number}", at=at),
            dispatch(f"c{number}", 9, (DAY, EVER), 2, at=at),
            settlement(f"c{number}", 4, 2, at=at),
            first=1000 * number,
        )
    fold(database, dispatch("open", 9, (DAY,), at=old), first=50_000)
    fold(database, dispatch("long", 9, (DAY,), at=old), settlement("long", 1), first=60_000)
    fold(database, dispatch("new", 9, (DAY,)), settlement("new", 2), first=70_000)
    before = sums(database)
    assert [database.write(ledger.forget, LATER - timedelta(days=1), 10) for _ in range(4)] == [10, 10, 5, 0]
    assert {call_id for call_id, _ in rows(database)} == {"open", "long", "new"}
    assert sums(database) == before == {DAY: (103, 9), EVER: (100, 0)}
    assert database.read(audit.audit).differences == ()
    fold(database, settlement("open", 7), first=80_000)
    assert database.write(ledger.forget, LATER) == 3
    assert sums(database) == {DAY: (110, 0), EVER: (100, 0)}
    assert database.read(audit.audit).differences == ()


def test_sums_of_periods_long_over_go_with_their_rows(database: Database) -> None:
    """Those of `ever` stay, and so does a period that may not be over, or whose calls are still there."""
    gone, stays = "key/k1/month/2026-01-01", "key/k1/month/2026-05-01"
    old = datetime(2026, 1, 5, tzinfo=UTC)
    fold(database, dispatch("c1", 9, (gone, EVER), at=old), settlement("c1", 4, at=old))
    fold(database, dispatch("c2", 9, (stays,), at=old), settlement("c2", 4, at=old), first=50)
    assert database.write(ledger.forget, datetime(2026, 5, 20, tzinfo=UTC)) == 2
    assert set(sums(database, [gone, stays, EVER])) == {stays, EVER}
    assert database.read(audit.audit).differences == ()


def test_a_report_waits_for_nobody(database: Database) -> None:
    """What is read while a batch is folded is the moment before it."""
    fold(database, dispatch("c1", 9, (DAY,)))

    def folding(connection: Any) -> list[str]:
        ledger.fold(connection, "0", [(Position(1, 50), settlement("c1", 4))], Position(1, 50))
        return [row.state for row in rows(database).values()]

    assert database.write(folding) == ["dispatched"]
    states = database.read(lambda connection: connection.execute(select(schema.attempts.c.state)).scalars().all())
    assert states == ["settled"]
