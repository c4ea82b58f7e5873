"""Balances: many who ask at once leave the database to others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from chatgate.balances import MAX_WAITING, Balances
from chatgate.vocabulary.errors import Overloaded
from chatgate.vocabulary.keys import KeyBudget, KeyRecord

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
"""A Wednesday."""


class SlowLedger:
    """A ledger that answers when it is told to, and knows how many questions it had at once."""

    def __init__(self, spent: Mapping[str, int]) -> None:
        """Know what is spent in each account."""
        self.go = asyncio.Event()
        self.at_once = self.most_at_once = 0
        self._spent = spent

    async def in_accounts(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Return what is spent."""
        await self._answer()
        return {account: self._spent[account] for account in accounts if account in self._spent}

    async def of_key(self, key_id: str, since: datetime | None, until: datetime | None) -> int:
        """Return a number that says what was asked."""
        await self._answer()
        assert (key_id, since, until) == ("k1", None, datetime(2026, 11, 25, tzinfo=UTC))
        return 7

    async def _answer(self) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.go.wait()
        self.at_once -= 1


def record(*budgets: KeyBudget) -> KeyRecord:
    """Return a key with budgets."""
    return KeyRecord("k1", "k", "", "", True, NOW, None, None, None, (), (), (), budgets, None, "", 1)  # noqa: FBT003


async def told(balances: Balances, *budgets: KeyBudget) -> Any:
    """Return what a key is told that it may spend."""
    return json.loads(await balances.subscription(record(*budgets)))["hard_limit_usd"]


async def test_the_account_of_each_period_is_the_current_one() -> None:
    """Days, weeks from Monday, months and ever, as the ledger names them; the least left is told."""
    spent = {
        "key/k1/day/2026-11-25": 9_000_000_000,
        "key/k1/week/2026-11-23": 18_500_000_000,
        "key/k1/month/2026-11-01": 25_000_000_000,
        "key/k1/ever/1970-01-01": 39_200_000_000,
    }
    ledger = SlowLedger(spent)
    ledger.go.set()
    balances = Balances(ledger, lambda: NOW)
    amounts = {"day": 10, "week": 20, "month": 30, "ever": 40}
    budgets = [KeyBudget(amount * 10**9, per) for per, amount in amounts.items()]
    # What is left: 1, 1.5, 5 and 0.8.
    assert await told(balances, *budgets) == 40
    assert await told(balances, *budgets[:3]) == 10
    assert await told(balances, *budgets[1:3]) == 20
    assert await told(balances, budgets[2]) == 30
    spent_cents = json.loads(await balances.usage(record(*budgets), ""))["total_usage"]
    assert spent_cents == 3920


async def test_one_question_at_a_time() -> None:
    """So that one of the threads that read is always free; and not everybody can wait."""
    ledger = SlowLedger({})
    balances = Balances(ledger, lambda: NOW)
    asking = [asyncio.create_task(balances.usage(record(), "end_date=2026-11-24")) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await balances.usage(record(), "end_date=2026-11-24")
    asking[0].cancel()
    asking[1].cancel()
    ledger.go.set()
    answers = await asyncio.gather(*asking[2:])
    assert {json.loads(answer)["total_usage"] for answer in answers} == {7 / 10_000_000}
    assert ledger.most_at_once <= 2  # The first was cancelled while the ledger had its question.
    assert json.loads(await balances.usage(record(), "end_date=2026-11-24"))
