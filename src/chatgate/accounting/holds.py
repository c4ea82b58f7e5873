"""Money set aside for calls: reserved before, settled to the true cost after, against several budgets at once.

Owns the balances in memory and the decision. Does no I/O and awaits nothing: a decision and what it changes are one
step, so no interleaving of calls comes between. One process owns the holds of a host; storage keeps what they add up
to. Called before a call is dispatched and when it has ended.

Laws. A call is held in every account or in none, and only if in each of them what is spent, what is held and its own
upper bound stay within the limit. A hold is settled or released once; again changes nothing. It is settled in the
periods it was reserved in, whatever the clock says by then. A true cost above its bound is spent all the same, and
shown as debt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final, Literal, Protocol

from msgspec import Struct

from chatgate.accounting.periods import Per, end_of, start_of, utc_date

_PERCENT: Final = 100
_REMEMBERED: Final = 10_000


class Budget(Struct, frozen=True, gc=False):
    """How much may be spent in a period.

    `subject` is the key's id or the owner's name, at most 200 characters, and "" for the scope `global`. From
    `warn_at_percent` of the limit on it is worth a warning; 0 for never.
    """

    scope: Literal["key", "owner", "global"]
    subject: str
    per: Per
    limit_nano_usd: int
    warn_at_percent: int = 80


class Account(Struct, frozen=True):
    """What a budget is spent from in one period, known by its first day.

    Its name says all of it: `key/k1/day/2026-11-23`, `global//month/2026-11-01`.
    """

    scope: str
    subject: str
    per: str
    starts_on: date

    @classmethod
    def parse(cls, name: str) -> Account:
        """Return the account of a name. Raises ValueError when it is none."""
        scope, _, rest = name.partition("/")
        subject, per, start = rest.rsplit("/", 2)
        return cls(scope, subject, per, date.fromisoformat(start))

    @property
    def name(self) -> str:
        """Return what it is called in records."""
        return f"{self.scope}/{self.subject}/{self.per}/{self.starts_on.isoformat()}"


class Balance(Struct, gc=False):
    """What is spent, and what is held for calls under way, in an account. Changed only here."""

    spent_nano_usd: int = 0
    held_nano_usd: int = 0
    open_holds: int = 0
    warned: bool = False


class Standing(Struct, frozen=True):
    """Where a budget stands in the period of a time.

    `remaining_nano_usd` is never negative; what was spent above the limit is the debt. `resets_at` is None for a budget
    that never does.
    """

    budget: Budget
    account: str
    spent_nano_usd: int
    held_nano_usd: int
    remaining_nano_usd: int
    debt_nano_usd: int
    resets_at: datetime | None


class Hold(Struct, frozen=True, gc=False):
    """Money that is set aside: so much in each of these accounts, to be named in the call's `Dispatch`.

    `warnings` are the budgets that it brought to their soft threshold, each once in a period.
    """

    call_id: str
    amount_nano_usd: int
    accounts: tuple[str, ...]
    warnings: tuple[Budget, ...] = ()


class Refusal(Struct, frozen=True):
    """Nothing is set aside. `reached` are the budgets without room, never empty.

    `retry_at` is when all of them will have begun anew, None when one of them never will or when the amount is more
    than a whole limit.
    """

    reached: tuple[Standing, ...]
    retry_at: datetime | None


class Purse(Protocol):
    """Where calls' money is held once it is reserved: `Holds`, or who speaks for those of another process.

    All is as in `Holds`.
    """

    def __len__(self) -> int:
        """Return how many calls of this process have money set aside."""

    def settle(self, call_id: str, cost_nano_usd: int) -> bool:
        """Turn a call's hold into what it cost."""

    def release(self, call_id: str) -> bool:
        """Give a call's hold back."""

    def totals(self) -> Mapping[str, tuple[int, int]]:
        """Return what is known to be spent and held in each account."""

    def learn(self, spent: Mapping[str, int], known: Mapping[str, tuple[int, int]]) -> None:
        """Take note of what the rows say is spent."""

    def forget(self, at: datetime) -> int:
        """Drop the accounts of periods that are over."""


class Holds:
    """The balances of all accounts, and the holds in them."""

    def __init__(self) -> None:
        """Begin with nothing spent."""
        self._balances: dict[str, Balance] = {}
        self._open: dict[str, Hold] = {}
        # What a budget's account is called depends on the day only, and is asked again and again on the same one.
        self._today = date.min
        self._names: dict[tuple[str, str, str], str] = {}

    def __len__(self) -> int:
        """Return how many calls have money set aside."""
        return len(self._open)

    def load(self, account: str, spent_nano_usd: int, known_nano_usd: int = 0) -> None:
        """Add to an account what the rows say is spent in it and was not known here; what is held in it stays held.

        `known_nano_usd` is what was known to be spent when all that it counts was in the rows. An account that knows
        of more than they do keeps that: a record of it was lost.
        """
        self._balance(account).spent_nano_usd += max(spent_nano_usd - known_nano_usd, 0)

    def learn(self, spent: Mapping[str, int], known: Mapping[str, tuple[int, int]]) -> None:
        """Do what `load` does for each account; `known` is what `totals` told when the rows had all of it."""
        for account, spent_nano_usd in spent.items():
            self.load(account, spent_nano_usd, known.get(account, (0, 0))[0])

    def correct(self, spent: Mapping[str, int], periods: Collection[str]) -> None:
        """Have nothing else be spent than this in any account of these periods, such as `day/2026-11-23`."""
        for account, balance in self._balances.items():
            _, per, start = account.rsplit("/", 2)
            if f"{per}/{start}" in periods:
                balance.spent_nano_usd = spent.get(account, 0)
        for account in spent.keys() - self._balances.keys():
            self._balance(account).spent_nano_usd = spent[account]

    def adopt(self, hold: Hold) -> None:
        """Hold what another owner of the balances has set aside. Raises ValueError for a call that has a hold."""
        if hold.call_id in self._open:
            raise ValueError("a call is held once")
        for account in hold.accounts:
            balance = self._balance(account)
            balance.held_nano_usd += hold.amount_nano_usd
            balance.open_holds += 1
        self._open[hold.call_id] = hold

    def open_holds(self) -> tuple[Hold, ...]:
        """Return the holds that are neither settled nor released, oldest first."""
        return tuple(self._open.values())

    def reserve(self, call_id: str, budgets: Sequence[Budget], amount_nano_usd: int, at: datetime) -> Hold | Refusal:
        """Set an amount aside in every budget, or in none. `at` is aware.

        Raises ValueError for a call that has a hold already, and for a negative amount.
        """
        if call_id in self._open or amount_nano_usd < 0:
            raise ValueError("a call is held once, for nothing less than nothing")
        day = utc_date(at)
        # Budgets of one account, with limits of their own, are held in it once.
        touched: dict[str, Balance] = {}
        for budget in budgets:
            account = self._account(budget, day)
            balance = touched[account] = self._balance(account)
            if balance.spent_nano_usd + balance.held_nano_usd + amount_nano_usd > budget.limit_nano_usd:
                return self._refusal(budgets, amount_nano_usd, at)
        for balance in touched.values():
            balance.held_nano_usd += amount_nano_usd
            balance.open_holds += 1
        accounts = tuple(touched)
        warnings: tuple[Budget, ...] = ()
        for budget in budgets:
            balance = touched[self._account(budget, day)]
            if not balance.warned and _worth_a_warning(budget, balance):
                balance.warned = True
                warnings += (budget,)
        hold = self._open[call_id] = Hold(call_id, amount_nano_usd, accounts, warnings)
        return hold

    def settle(self, call_id: str, cost_nano_usd: int) -> bool:
        """Turn a call's hold into what it cost; False, and nothing changes, when it has none or no longer.

        Raises ValueError for a negative cost.
        """
        if cost_nano_usd < 0:
            raise ValueError("a call never earns money")
        hold = self._open.pop(call_id, None)
        if hold is None:
            return False
        for account in hold.accounts:
            balance = self._balances[account]
            balance.held_nano_usd -= hold.amount_nano_usd
            balance.open_holds -= 1
            balance.spent_nano_usd += cost_nano_usd
        return True

    def release(self, call_id: str) -> bool:
        """Give a call's hold back as if it had never been; False when it has none or no longer."""
        return self.settle(call_id, 0)

    def standing(self, budget: Budget, at: datetime) -> Standing:
        """Return where a budget stands at a time, and change nothing."""
        day = utc_date(at)
        account = self._account(budget, day)
        balance = self._balances.get(account) or Balance()
        return standing_of(budget, account, balance.spent_nano_usd, balance.held_nano_usd, at)

    def totals(self) -> Mapping[str, tuple[int, int]]:
        """Return what is spent and what is held in each account that has something of either, for the audit."""
        return {
            account: (balance.spent_nano_usd, balance.held_nano_usd)
            for account, balance in self._balances.items()
            if balance.spent_nano_usd or balance.held_nano_usd
        }

    def forget(self, at: datetime) -> int:
        """Drop the accounts of periods that ended before the last one; return how many went.

        Those in which something is held stay. So a clock that is set back by up to a period finds what was spent.
        """
        day = utc_date(at)
        last: dict[Per, date] = {
            "day": day - timedelta(days=1),
            "week": day - timedelta(weeks=1),
            "month": day.replace(day=1) - timedelta(days=1),
        }
        oldest = {"ever": "", **{str(per): start_of(day, per).isoformat() for per, day in last.items()}}
        gone = []
        for account, balance in self._balances.items():
            _, per, start = account.rsplit("/", 2)
            if not balance.open_holds and start < oldest[per]:
                gone.append(account)
        for account in gone:
            del self._balances[account]
        return len(gone)

    def _account(self, budget: Budget, day: date) -> str:
        """Return the name of a budget's account on a day."""
        if day != self._today or len(self._names) >= _REMEMBERED:
            self._today = day
            self._names.clear()
        question = (budget.scope, budget.subject, budget.per)
        try:
            return self._names[question]
        except KeyError:
            name = self._names[question] = Account(*question, start_of(day, budget.per)).name
            return name

    def _balance(self, account: str) -> Balance:
        try:
            return self._balances[account]
        except KeyError:
            balance = self._balances[account] = Balance()
            return balance

    def _refusal(self, budgets: Sequence[Budget], amount_nano_usd: int, at: datetime) -> Refusal:
        return refusal_of([self.standing(budget, at) for budget in budgets], amount_nano_usd)


def standing_of(budget: Budget, account: str, spent_nano_usd: int, held_nano_usd: int, at: datetime) -> Standing:
    """Return where a budget stands whose account in the period of a time has these sums."""
    left = budget.limit_nano_usd - spent_nano_usd - held_nano_usd
    return Standing(
        budget,
        account,
        spent_nano_usd,
        held_nano_usd,
        max(left, 0),
        max(spent_nano_usd - budget.limit_nano_usd, 0),
        end_of(utc_date(at), budget.per),
    )


def refusal_of(standings: Sequence[Standing], amount_nano_usd: int) -> Refusal:
    """Return the refusal of an amount that some of these budgets have no room for."""
    reached = tuple(
        standing
        for standing in standings
        if standing.spent_nano_usd + standing.held_nano_usd + amount_nano_usd > standing.budget.limit_nano_usd
    )
    ends = [standing.resets_at for standing in reached]
    hopeless = any(amount_nano_usd > standing.budget.limit_nano_usd for standing in reached)
    known = [end for end in ends if end is not None]
    return Refusal(reached, None if hopeless or len(known) < len(ends) else max(known))


def _worth_a_warning(budget: Budget, balance: Balance) -> bool:
    taken = balance.spent_nano_usd + balance.held_nano_usd
    return 0 < budget.warn_at_percent * budget.limit_nano_usd <= taken * _PERCENT
