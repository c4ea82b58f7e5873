"""The budgets that several machines share: what they have spent is counted in Redis, and true in the ledger.

Owns the holds of this process, and how an account becomes known to the store. The store may forget everything, and then
it must not begin at nothing: it has a new epoch, in which no account is known. Every process tells it of the calls that
it has under way and of those that ended lately, each by its id; whoever needs an account first brings what the ledger
says of all other calls. While something of that is not possible yet, calls that count against a budget are refused.

Laws. What is spent and held in the store is never less than it is. A call is settled once, however often that is told.
What the store has not confirmed is told again when it is back.

`redis` reserves here, the book settles; `fleet` says when there is a session.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from chatgate.accounting.holds import Account, Hold, Refusal, refusal_of, standing_of
from chatgate.accounting.periods import end_of, start_of, utc_date
from chatgate.storage.redis import statements
from chatgate.storage.redis.connection import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

    from chatgate.accounting.holds import Budget
    from chatgate.counters.fleet import Fleet
    from chatgate.storage.redis.statements import Money, Session, Took

LOAD_SECONDS: Final = 2.0
"""How long a call waits at the most until an account is known."""

GATHERING_SECONDS: Final = 10.0
"""So long after a new epoch began an account waits for the processes that were there in the one before."""

JOIN_RETRY_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.05
_KEPT_AFTER_PERIOD: Final = timedelta(days=2)
_MAX_NAMES: Final = 10_000
_LOG = logging.getLogger(__name__)


class Rows(Protocol):
    """The ledger, as far as it is in the database."""

    async def stored(self, mark: Callable[[], None]) -> None:
        """Return once all that was settled here before `mark` was called is in the database. Raises what stops that."""

    async def spent_without(self, accounts: Sequence[str], call_ids: Sequence[str]) -> Mapping[str, int]:
        """Return what is spent or reserved in each account but for these calls, in nano-USD. Raises as `stored`."""


class SharedMoney:
    """The holds of this process, in accounts that the store keeps; see `accounting.holds.Holds`."""

    def __init__(self, fleet: Fleet, rows: Rows, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._fleet = fleet
        self._clock = clock
        self._rows = rows
        self._open: dict[str, Hold] = {}
        self._ended: dict[str, tuple[int, tuple[str, ...]]] = {}
        """What calls cost that the store has not confirmed, and their accounts."""
        self._since: dict[str, tuple[int, tuple[str, ...]]] = {}
        """The same of those that ended since the ledger was brought up to date for the store's new epoch."""
        self._epoch = ""
        self._epoch_seen_at = clock()
        self._expected: frozenset[str] = frozenset()
        self._joining: asyncio.Task[None] | None = None
        self._loading: dict[tuple[str, ...], asyncio.Task[bool]] = {}
        self._names: dict[tuple[str, str, str, date], str] = {}
        self._last_seen = ""
        self.is_joined = asyncio.Event()
        """Set while the store knows of all that is under way here."""
        fleet.serve(self)

    def __len__(self) -> int:
        """Return how many calls of this process have money set aside."""
        return len(self._open)

    @property
    def is_known(self) -> bool:
        """Tell whether something can be reserved."""
        return bool(self._epoch) and self._fleet.is_ready

    def ask(self, call_id: str, budgets: Sequence[Budget], amount_nano_usd: int) -> tuple[Money, tuple[str, ...]]:
        """Return what is asked of the store for a call, and the names of its accounts."""
        now = self._fleet.now()
        day = utc_date(now)
        places: dict[str, int] = {}
        asked = []
        lives: list[int] = []
        for budget in budgets:
            name = self._name(budget, day)
            if name not in places:
                places[name] = len(places)
                lives.append(_life_ms(name, now))
            asked.append((places[name], min(budget.limit_nano_usd, statements.MAX_AMOUNT), budget.warn_at_percent))
        accounts = tuple(zip(places, lives, strict=True))
        return statements.Money(self._epoch, call_id, amount_nano_usd, accounts, asked), tuple(places)

    def hold(self, money: Money, budgets: Sequence[Budget], took: Took) -> Hold:
        """Take note of what the store has set aside."""
        names = tuple(name for name, _ in money.accounts)
        warnings = tuple(budget for budget, is_new in zip(budgets, took.warnings, strict=True) if is_new)
        hold = self._open[money.call_id] = Hold(money.call_id, money.amount, names, warnings)
        return hold

    def refusal(self, money: Money, budgets: Sequence[Budget], took: Took) -> Refusal:
        """Return why the store has set nothing aside for want of money."""
        now = self._fleet.now()
        standings = [
            standing_of(budget, money.accounts[place][0], *took.sums[place], now)
            for budget, (place, _, _) in zip(budgets, money.budgets, strict=True)
        ]
        return refusal_of(standings, money.amount)

    def doubt(self, money: Money) -> None:
        """Take back what the store may have set aside, and nobody knows."""
        self._end(money.call_id, 0, tuple(name for name, _ in money.accounts))

    def settle(self, call_id: str, cost_nano_usd: int) -> bool:
        """Turn a call's hold into what it cost; False, and nothing changes, when it has none or no longer.

        Raises ValueError for a negative cost.
        """
        if cost_nano_usd < 0:
            raise ValueError("a call never earns money")
        hold = self._open.pop(call_id, None)
        if hold is None:
            return False
        self._end(call_id, cost_nano_usd, hold.accounts)
        return True

    def release(self, call_id: str) -> bool:
        """Give a call's hold back as if it had never been; False when it has none or no longer."""
        return self.settle(call_id, 0)

    def totals(self) -> Mapping[str, tuple[int, int]]:
        """Return nothing: the store has the sums."""
        return {}

    def learn(self, spent: Mapping[str, int], known: Mapping[str, tuple[int, int]]) -> None:
        """Take no note of what the rows say: whoever needs an account asks them for the store."""

    def forget(self, at: datetime) -> int:  # noqa: ARG002 - the store forgets by itself
        """Drop the names of days that are over; return 0, for the store keeps the accounts."""
        self._names.clear()
        return 0

    def opened(self, session: Session) -> None:
        """Take note of a session that begins or goes on, with the store's memory as it is now."""
        if session.epoch != self._last_seen:
            self._expected = self._fleet.seen() if self._last_seen else session.alive
            self._last_seen, self._epoch_seen_at = session.epoch, self._clock()
        if not self._fleet.is_ready:
            # What was told to the session before may never have come there.
            for call_id, (cost, names) in list(self._ended.items()):
                self._tell_ended(session.epoch, call_id, cost, names)
        if session.epoch == self._epoch and self._fleet.process in session.joined:
            return
        self._leave()
        if self._joining is None or self._joining.done():
            self._joining = asyncio.create_task(self._join())

    async def load_accounts(self, names: tuple[str, ...]) -> bool:
        """Have the store know accounts; False when that is not possible now."""
        loading = self._loading.get(names)
        if loading is None:
            loading = self._loading[names] = asyncio.create_task(self._load(names))
            loading.add_done_callback(lambda _: self._loading.pop(names, None))
        return await asyncio.shield(loading)

    async def close(self) -> None:
        """End what goes on in the background."""
        tasks = [task for task in (self._joining, *self._loading.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, call_id: str, cost: int, names: tuple[str, ...]) -> None:
        """Settle a call in the store now if that is possible, and else as soon as it is."""
        if self._epoch:
            self._ended[call_id] = cost, names
            self._tell_ended(self._epoch, call_id, cost, names)
        else:
            self._since[call_id] = cost, names

    def _tell_ended(self, epoch: str, call_id: str, cost: int, names: tuple[str, ...]) -> None:
        """Tell what a call cost until that is confirmed. An epoch that knows of no such hold has it from its row."""

        def done(answer: Sequence[int]) -> None:
            if answer[0] >= 0:
                self._ended.pop(call_id, None)

        self._fleet.tell(statements.settle_money(epoch, call_id, cost, self._with_lives(names)), done)

    async def _join(self) -> None:
        """Tell a new epoch of the calls that are under way, once the ledger has those that are over."""
        is_trying_again = False
        while True:
            try:
                await self._join_once()
            except (RedisError, statements.OtherEpoch):
                return  # With the next session, all of it begins anew.
            except Exception as error:  # noqa: BLE001 - whatever keeps the ledger from being up to date, it is tried again
                if not is_trying_again:
                    _LOG.warning("Redis cannot be told what budgets have spent, for now: %s", type(error).__name__)
                is_trying_again = True
                await asyncio.sleep(JOIN_RETRY_SECONDS)
            else:
                return

    async def _join_once(self) -> None:
        await self._rows.stored(self._mark)
        epoch = self._last_seen
        # All of it goes in one write, so what ends meanwhile is told after it.
        for hold in self._open.values():
            accounts = self._with_lives(hold.accounts)
            self._fleet.tell(statements.tell_money(epoch, hold.call_id, hold.amount_nano_usd, None, accounts))
        for call_id, (cost, names) in self._since.items():
            self._fleet.tell(statements.tell_money(epoch, call_id, None, cost, self._with_lives(names)))
        joining = self._fleet.ask(statements.join(epoch, self._fleet.process))
        self._epoch = epoch
        try:
            statements.check(await joining)
        except (RedisError, statements.OtherEpoch):
            self._leave()
            raise
        self._since = {}
        self.is_joined.set()

    def _leave(self) -> None:
        self._epoch = ""
        self.is_joined.clear()

    def _mark(self) -> None:
        """Begin to remember what ends: the ledger is about to have what has ended by now."""
        self._since = {}

    async def _load(self, names: tuple[str, ...]) -> bool:
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                while not await self._gathered():  # noqa: ASYNC110 - what is waited for happens elsewhere
                    await asyncio.sleep(_POLL_SECONDS)
                while not await self._load_once(names):
                    pass
        except (RedisError, statements.OtherEpoch, statements.NoSession, TimeoutError):
            return False
        except Exception as error:  # noqa: BLE001 - whatever the ledger raises, money fails closed
            _LOG.warning("What budgets have spent cannot be told to Redis: %s", type(error).__name__)
            return False
        return True

    async def _gathered(self) -> bool:
        """Tell whether everybody who was there in the epoch before has told this one of their calls."""
        if self._clock() - self._epoch_seen_at > GATHERING_SECONDS:
            return True
        session = await self._fleet.renew()
        return (self._expected | session.alive) <= session.joined

    async def _load_once(self, names: tuple[str, ...]) -> bool:
        """Bring what the ledger says; False when the store has learned of more calls meanwhile."""
        epoch = self._epoch
        answer = await self._fleet.ask(statements.ask_accounts(epoch, names))
        unknown = statements.calls_of(answer, names)
        ids = {call_id for found in unknown.values() for call_id in found}
        spent = await self._rows.spent_without(list(unknown), sorted(ids)) if unknown else {}
        for name, of_account in unknown.items():
            account = name, _life_ms(name, self._fleet.now())
            try:
                loaded = await self._fleet.ask(statements.load_account(epoch, account, spent.get(name, 0), of_account))
                statements.check(loaded)
            except statements.UnknownAccounts:
                return False
        return True

    def _name(self, budget: Budget, day: date) -> str:
        """Return the name of a budget's account on a day."""
        question = (budget.scope, budget.subject, budget.per, day)
        known = self._names.get(question)
        if known is None:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            known = self._names[question] = Account(
                budget.scope, budget.subject, budget.per, start_of(day, budget.per)
            ).name
        return known

    def _with_lives(self, names: Sequence[str]) -> list[tuple[str, int]]:
        now = self._fleet.now()
        return [(name, _life_ms(name, now)) for name in names]


def _life_ms(name: str, now: datetime) -> int:
    """Return how long an account is remembered after its last use, in milliseconds: until its period is long over."""
    account = Account.parse(name)
    end = end_of(account.starts_on, account.per)  # type: ignore[arg-type]  # its name says a period
    if end is None:
        return statements.KEYS_TTL_MS
    left = max(end - now, timedelta()) + _KEPT_AFTER_PERIOD
    return min(int(left / timedelta(milliseconds=1)), statements.KEYS_TTL_MS)
