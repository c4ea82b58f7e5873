"""Whether the sums are those of the rows: every counter of the ledger, computed once more from nothing but its rows.

Owns the comparison, and changes nothing. It reads one moment of the database, so that it may be asked while the gateway
runs, and takes memory for the accounts, not for the rows. Called by the command `audit`.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import Connection, func, select

from chatgate.storage import calls, schema
from chatgate.storage.calls import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROWS = calls.rows
_BUDGETS = schema.budgets
_ROWS_AT_ONCE = 2000


class Difference(Struct, frozen=True):
    """A counter that is not what the rows say.

    `subject` is an account, with `counter` `spent_nano_usd` or `reserved_nano_usd`, or the id of a call, with `counter`
    `endings`: how many of its rows end it, which is 1 at most.
    """

    subject: str
    counter: str
    stored: int
    computed: int


class Audit(Struct, frozen=True):
    """What was found.

    `open_calls` are under way, `unknown_calls` were interrupted, and `quarantined` entries of journals became no row.
    """

    calls: int
    attempts: int
    open_calls: int
    unknown_calls: int
    accounts: int
    quarantined: int
    differences: tuple[Difference, ...]


def audit(connection: Connection) -> Audit:
    """Recompute every sum from the rows."""
    spent: dict[str, int] = {}
    reserved: dict[str, int] = {}
    differences: list[Difference] = []
    counts = {"calls": 0, "attempts": 0, "open_calls": 0, "unknown_calls": 0}
    for call_id, grouped in groupby(_attempts(connection), attrgetter("request_id")):
        rows = list(grouped)
        endings = [row for row in rows if row.ends_call]
        counts["calls"] += 1
        counts["attempts"] += len(rows)
        counts["open_calls"] += not endings
        counts["unknown_calls"] += any(row.state not in {"settled", "refused"} for row in endings)
        if len(endings) > 1:
            differences.append(Difference(call_id, "endings", len(endings), 1))
        taken = calls.money(rows)
        for account in taken.accounts:
            spent[account] = spent.get(account, 0) + taken.spent
            reserved[account] = reserved.get(account, 0) + taken.reserved
    stored = {row.account: row for row in connection.execute(select(_BUDGETS))}
    for account in sorted(spent.keys() | stored.keys()):
        row = stored.get(account)
        forgotten = row.forgotten_nano_usd if row else 0
        for counter, was, now in (
            ("spent_nano_usd", row.spent_nano_usd if row else 0, spent.get(account, 0) + forgotten),
            ("reserved_nano_usd", row.reserved_nano_usd if row else 0, reserved.get(account, 0)),
        ):
            if was != now:
                differences.append(Difference(account, counter, was, now))
    quarantined = connection.execute(select(func.count()).select_from(schema.quarantine)).scalar_one()
    return Audit(**counts, accounts=len(stored), quarantined=quarantined, differences=tuple(differences))


def _attempts(connection: Connection) -> Iterator[Attempt]:
    """Yield the rows of one call after the other, with what counts of them."""
    columns = ("request_id", "attempt", "state", "ends_call", "reserved_nano_usd", "charged_nano_usd", "accounts")
    statement = select(*(_ROWS.c[name] for name in columns)).order_by(_ROWS.c.request_id, _ROWS.c.attempt)
    for row in connection.execute(statement.execution_options(yield_per=_ROWS_AT_ONCE)):
        call_id, attempt, state, ends_call, reserved, charged, accounts = row
        yield Attempt(
            call_id,
            attempt,
            "",
            0,
            state,
            ends_call,
            reserved_nano_usd=reserved,
            charged_nano_usd=charged,
            accounts=accounts,
        )
