"""The ledger's sums of money, for whoever tells a balance.

Owns how `balances.Spending` is answered from the database that `keeping` lends.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from chatgate.admission.keyring import LookupUnavailable
from chatgate.storage import ledger
from chatgate.storage.errors import StorageError
from chatgate.storage.usage import usage
from chatgate.vocabulary.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from datetime import datetime

    from chatgate.app.keeping import Keeping

Result = TypeVar("Result")


class Spending:
    """What was spent, as far as the database has it: calls are in it about half a second after their end."""

    def __init__(self, keeping: Keeping) -> None:
        """Ask the database that `keeping` lends."""
        self._keeping = keeping

    async def in_accounts(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Return what is spent in those accounts of budgets that have been spent from."""
        found = await _told(lambda: self._keeping.threads.read(ledger.balances, accounts))
        return {account: balance.spent for account, balance in found.items()}

    async def of_key(self, key_id: str, since: datetime | None, until: datetime | None) -> int:
        """Return what a key's calls cost, from `since` on and before `until`; None is no bound."""
        found = await _told(lambda: self._keeping.threads.read(usage, key_id=key_id, since=since, until=until))
        return sum(group.cost_nano_usd for group in found)


async def _told(ask: Callable[[], Coroutine[None, None, Result]]) -> Result:
    try:
        # A call is no task, and it takes one to wait for a thread with an end to the waiting.
        return await asyncio.create_task(ask())
    except (StorageError, LookupUnavailable) as error:
        raise Overloaded("accounting_unavailable") from error
