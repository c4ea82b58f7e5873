"""What a caller may spend and has spent, for apps that show a balance.

Of a key's budgets the one with the least left is told: it is the one that will end. The database is asked one question
at a time, so that apps that ask often leave it to the look-up of keys.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, cast

from chatgate.accounting.holds import Account
from chatgate.accounting.periods import start_of, utc_date
from chatgate.protocols import openai_billing
from chatgate.vocabulary.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import date, datetime

    from chatgate.accounting.periods import Per
    from chatgate.vocabulary.keys import KeyBudget, KeyRecord

MAX_WAITING = 64
"""So many callers may wait for their balance; who comes later is told to come again."""


class Spending(Protocol):
    """The ledger, as far as sums of money go; all in nano-USD. Both raise `Overloaded` when it cannot be read."""

    async def in_accounts(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Return what is spent in those accounts of budgets that have been spent from."""

    async def of_key(self, key_id: str, since: datetime | None, until: datetime | None) -> int:
        """Return what a key's calls cost, from `since` on and before `until`; None is no bound."""


class Balances:
    """Tells balances."""

    def __init__(self, spending: Spending, wall_clock: Callable[[], datetime]) -> None:
        """`wall_clock` is in UTC."""
        self._spending = spending
        self._wall_clock = wall_clock
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def subscription(self, record: KeyRecord | None) -> bytes:
        """Return what a caller may spend; None is one without a key of the gateway, who has no budget."""
        tightest = await self._tightest(record)
        if record is None or tightest is None:
            return openai_billing.encode_subscription(None, None, None if record is None else record.expires_at)
        budget = tightest[0]
        return openai_billing.encode_subscription(budget.amount_nano_usd, budget.warn_at_percent, record.expires_at)

    async def usage(self, record: KeyRecord | None, query: str) -> bytes:
        """Return what a caller has spent on the days that the query names, the last one included.

        Without days that is what counts against the budget that `subscription` tells, or everything when there is none.
        Raises `CallerError` for what is no day.
        """
        first, last = openai_billing.read_dates(query)
        if record is None:
            return openai_billing.encode_usage(0)
        if first is None and last is None:
            tightest = await self._tightest(record)
            if tightest is not None:
                return openai_billing.encode_usage(tightest[1])
        since = None if first is None else openai_billing.start_of_day(first)
        try:
            until = None if last is None else openai_billing.start_of_day(last + timedelta(days=1))
        except OverflowError:
            until = None
        async with self._my_turn():
            return openai_billing.encode_usage(await self._spending.of_key(record.id, since, until))

    async def _tightest(self, record: KeyRecord | None) -> tuple[KeyBudget, int] | None:
        """Return the budget with the least left and what is spent of it, None for who has no budget."""
        if record is None or not record.budgets:
            return None
        today = utc_date(self._wall_clock())
        accounts = [_account(record.id, budget, today) for budget in record.budgets]
        async with self._my_turn():
            spent = await self._spending.in_accounts(accounts)
        standings = [(budget, spent.get(account, 0)) for budget, account in zip(record.budgets, accounts, strict=True)]
        return min(standings, key=lambda standing: standing[0].amount_nano_usd - standing[1])

    @contextlib.asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise Overloaded
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1


def _account(key_id: str, budget: KeyBudget, today: date) -> str:
    """Return the name of the account that a key's budget is spent from today."""
    # A key's period is text, and the book holds it to these.
    start = start_of(today, cast("Per", budget.per))
    return Account("key", key_id, budget.per, start).name
