"""The audit finds every counter that is not what the rows add up to, and only those."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from chatgate.accounting.records import Record
from chatgate.storage import audit, ledger, schema
from chatgate.storage.audit import Difference
from chatgate.storage.database import Database
from storage.records import DAY, EVER, NOON, dispatch, failure, fold, settlement

_ATTEMPTS = schema.attempts
_BUDGETS = schema.budgets


@pytest.fixture(autouse=True)
def _calls(database: Database) -> None:
    """Have a ledger with a bit of everything."""
    fold(
        database,
        dispatch("settled", 900, (DAY, EVER)),
        failure("settled"),
        dispatch("settled", 900, (DAY, EVER), 2),
        settlement("settled", 250, 2),
        dispatch("dead", 40, (DAY,)),
        dispatch("free"),
        settlement("free", 5),
        dispatch("old", 9, (EVER,), at=NOON - timedelta(days=9)),
        settlement("old", 8, at=NOON - timedelta(days=9)),
        b"torn",
    )
    database.write(ledger.interrupt, "0", NOON)
    assert database.write(ledger.forget, NOON - timedelta(days=1)) == 1
    fold(database, dispatch("open", 70, (DAY, EVER)), first=1000)


def test_sums_that_are_kept_with_the_rows_do_not_drift(database: Database) -> None:
    """Settled, interrupted, under way, free, forgotten: all are in the sums."""
    assert database.read(audit.audit) == audit.Audit(
        calls=4, attempts=5, open_calls=1, unknown_calls=1, accounts=2, quarantined=1, differences=()
    )


@pytest.mark.parametrize(
    ("tampering", "differences"),
    [
        (
            update(_BUDGETS).where(_BUDGETS.c.account == DAY).values(spent_nano_usd=291),
            [Difference(DAY, "spent_nano_usd", 291, 290)],
        ),
        (
            update(_BUDGETS).where(_BUDGETS.c.account == EVER).values(reserved_nano_usd=0),
            [Difference(EVER, "reserved_nano_usd", 0, 70)],
        ),
        (
            update(_BUDGETS).where(_BUDGETS.c.account == EVER).values(forgotten_nano_usd=9),
            [Difference(EVER, "spent_nano_usd", 258, 259)],
        ),
        (
            delete(_BUDGETS).where(_BUDGETS.c.account == DAY),
            [Difference(DAY, "spent_nano_usd", 0, 290), Difference(DAY, "reserved_nano_usd", 0, 70)],
        ),
        (
            insert(_BUDGETS).values(account="key/none/day/2026-11-23", spent_nano_usd=1),
            [Difference("key/none/day/2026-11-23", "spent_nano_usd", 1, 0)],
        ),
        (
            delete(_ATTEMPTS).where(_ATTEMPTS.c.request_id == "dead"),
            [Difference(DAY, "spent_nano_usd", 290, 250)],
        ),
        (
            update(_ATTEMPTS).where(_ATTEMPTS.c.request_id == "dead").values(charged_nano_usd=39),
            [Difference(DAY, "spent_nano_usd", 290, 289)],
        ),
        (
            update(_ATTEMPTS).where(_ATTEMPTS.c.state == "failed").values(ends_call=True),
            [Difference("settled", "endings", 2, 1)],
        ),
    ],
    ids=["spent", "reserved", "forgotten", "sum lost", "sum too many", "row lost", "row changed", "two endings"],
)
def test_what_somebody_else_changed_is_found(database: Database, tampering: Any, differences: list[Difference]) -> None:
    """A sum or a row, changed, added or lost, is told with both numbers."""
    database.write(lambda connection: connection.execute(tampering))
    assert database.read(audit.audit).differences == tuple(differences)


def test_an_empty_ledger_has_nothing_to_differ(database: Database) -> None:
    """A gateway that was just set up."""

    def empty(connection: Any) -> None:
        for table in (_ATTEMPTS, _BUDGETS, schema.quarantine):
            connection.execute(delete(table))

    database.write(empty)
    assert database.read(audit.audit) == audit.Audit(0, 0, 0, 0, 0, 0, ())


def test_a_large_ledger_is_read_in_parts(database: Database) -> None:
    """More rows than are fetched at once, and calls whose rows lie in two parts."""
    for batch in range(3):
        records: list[Record] = []
        for number in range(1000):
            call_id = f"c{batch}-{number:04}"
            records += [dispatch(call_id, 9, (DAY,)), failure(call_id), dispatch(call_id, 9, (DAY,), 2)]
            records.append(settlement(call_id, 4, 2))
        fold(database, *records, first=100_000 * (batch + 1))
    found = database.read(audit.audit)
    assert (found.calls, found.attempts, found.differences) == (3004, 6005, ())
