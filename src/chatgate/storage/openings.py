"""Accounts that begin with what was spent before there was a budget: a budget made in the middle of a month counts it.

Owns the sums of rows that name no account because there was none yet. Such a sum becomes part of the account's once,
when it is opened: an account that exists is never opened again. `forgotten_nano_usd` holds it, as it does all that no
row names, so the audit finds no difference. Called for budgets that are new to a process; see `accounting.folding`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, insert, select

from chatgate.storage import calls, schema
from chatgate.storage.columns import microseconds
from chatgate.storage.ledger import balances, take_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROWS = calls.rows
_BUDGETS = schema.budgets


def openings(connection: Connection, accounts: Sequence[str]) -> dict[str, int]:
    """Return what was spent before by whom accounts are for, in nano-USD; only those that do not exist, and not 0.

    A call counts as in `usage`: once it has ended, in the period in which it was dispatched. One by its caller's own
    key of a provider counts for nobody.
    """
    known = balances(connection, accounts)
    found = {account: _spent(connection, account) for account in accounts if account not in known}
    return {account: spent for account, spent in found.items() if spent}


def open_accounts(connection: Connection, accounts: Sequence[str]) -> dict[str, int]:
    """Open the accounts that `openings` tells of, and return what it tells."""
    take_turn(connection)
    found = openings(connection, accounts)
    if found:
        rows = [
            {"account": account, "spent_nano_usd": spent, "reserved_nano_usd": 0, "forgotten_nano_usd": spent}
            for account, spent in found.items()
        ]
        connection.execute(insert(_BUDGETS), rows)
    return found


def _spent(connection: Connection, account: str) -> int:
    scope, _, rest = account.partition("/")
    subject, _, start = rest.rsplit("/", 2)
    since = datetime.combine(date.fromisoformat(start), time(), UTC)
    conditions = [_ROWS.c.ends_call, _ROWS.c.state != "refused", ~_ROWS.c.own_key]
    conditions.append(_ROWS.c.dispatched_at >= microseconds(since))
    if scope == "key":
        conditions.append(_ROWS.c.key_id == subject)
    elif scope == "owner":
        conditions.append(_ROWS.c.owner == subject)
    spent = connection.execute(select(func.sum(_ROWS.c.charged_nano_usd)).where(*conditions)).scalar_one()
    return int(spent or 0)
