"""The book: the one object that whoever carries calls tells about money.

Owns what has to be so for a call to be made: its upper bound is known and fits into every budget that it counts
against, and it can be written down. Everything about one call is done synchronously by its `Entry`; `run` takes what
was written to the database meanwhile. One process, one book, one journal. Knows no SQL: the database is a `Store`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, cast

from msgspec import Struct

from chatgate.accounting.entries import RETRY_AFTER_SECONDS, Entry, Means
from chatgate.accounting.folding import Folding, Store
from chatgate.accounting.holds import Account, Budget, Hold, Holds, Purse, Refusal
from chatgate.accounting.journal import Journal
from chatgate.accounting.periods import Per, start_of, utc_date
from chatgate.accounting.prices import PriceList
from chatgate.accounting.segments import START, Position
from chatgate.accounting.usage import most_input_tokens, most_output_tokens
from chatgate.bursts import Burst
from chatgate.vocabulary.errors import CallerError, Kind, Overloaded, Phrase
from chatgate.vocabulary.exchange import Settled
from chatgate.vocabulary.keys import KeyRecord
from chatgate.vocabulary.money import format_usd
from chatgate.vocabulary.upstreams import Target

_LOG = logging.getLogger(__name__)

FOLDING_SECONDS: Final = 0.5
"""How often what was written is taken to the database, and the disk is looked after; sooner when there is much."""

BRIEF_SECONDS: Final = 0.05
"""How long the rest is after a batch that did not take all that was written meanwhile."""

REST: Final = 2.0
"""How much longer than a batch the rest after it is while a backlog is read from files, as after an outage: calls go
first, and what waits is safe."""

WARN_AT_PERCENT: Final = 80
"""From how much of a key's budget on a call is worth a warning, when the key does not say."""

OPEN_AGAIN_SECONDS: Final = 60.0
"""When new budgets are tried again, for which nobody could say what was spent before."""

_REMEMBERED: Final = 10_000


class Quote(Struct, frozen=True, gc=False):
    """The most that a call can take: tokens, and nano-USD, None when nobody knows the price."""

    input_tokens: int
    output_tokens: int
    nano_usd: int | None


class Gauges(Struct, frozen=True):
    """How the book is doing.

    `state` is `ok`, `behind` when the database cannot be written and the journal holds what it misses, or `unavailable`
    when the journal cannot be written either, so that no calls are made. `waiting_bytes` of this process's own journal
    are not in the database yet, which was up to date `lag_seconds` ago; `lost` records had no room even in memory.
    `held` calls have money set aside, and `unpriced` calls had no known price.
    """

    state: Literal["ok", "behind", "unavailable"]
    waiting_bytes: int
    lag_seconds: float
    lost: int
    held: int
    unpriced: int


class Book:
    """What calls cost, and the record of it. `is_durable` says that records shall outlive the power."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part
        self,
        directory: Path,
        tariffs: PriceList,
        holds: Purse,
        store: Store,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
        durability: Literal["process", "power"] = "process",
        *,
        node: str = "",
        budgets: Iterable[Budget] = (),
        load: Callable[[], None] | None = None,
    ) -> None:
        """Become the writer of the journal in a directory.

        `clock` is monotonic, in seconds; `wall_clock` gives aware times in UTC. What lies beside the directory are the
        journals of others on this node: they are taken over when their writers have ended. `node` is what nobody else
        is called in the same database, "" when nobody else uses it; a journal's worker is called after both, such as
        `node-1`. `budgets` are as in `set_budgets`. `load` is what takes long before a price can be told.
        Raises `JournalUnavailable` when the directory cannot be used, or has a writer.
        """
        journal = Journal(directory, clock, durability=durability, first_segment=int(wall_clock().timestamp()))
        self._means = Means(journal, tariffs, holds, clock, wall_clock)
        self._folding = Folding(directory, node, journal, holds, store, clock, wall_clock)
        self.general: tuple[Budget, ...] = ()
        """The budgets of all calls together."""
        self._owners: dict[str, tuple[Budget, ...]] = {}
        self._of_keys: dict[str, tuple[KeyRecord, str, tuple[Budget, ...]]] = {}
        self._new: tuple[Budget, ...] = ()
        self._new_since = START
        self._open_at = 0.0
        self._today = wall_clock().date()
        self._load = load
        self.is_prepared = load is None
        """Whether a price can be told at once."""
        self._loading: asyncio.Future[None] | None = None
        self.is_durable = durability == "power"
        self._has_much = asyncio.Event()
        journal.recent.on_many = self._has_much.set
        self.has_looked = asyncio.Event()
        """Set once `run` has tried to bring the database up to date, and to learn what budgets have spent."""
        self.set_budgets(budgets)

    def set_budgets(self, budgets: Iterable[Budget]) -> None:
        """Have budgets other than those of keys from now on: global ones, and those of owners by their name.

        `tick` has those that are new count what was spent in their periods before.
        """
        given = tuple(budgets)
        self._new, self._open_at = given, 0.0
        self._new_since = self._means.journal.position
        self.general = tuple(budget for budget in given if budget.scope == "global")
        subjects = {budget.subject for budget in given if budget.scope == "owner"}
        self._owners = {
            subject: tuple(budget for budget in given if budget.scope == "owner" and budget.subject == subject)
            for subject in subjects
        }
        self._of_keys.clear()

    def set_tariffs(self, tariffs: PriceList) -> None:
        """Charge by other prices from now on; what is dispatched already keeps its own."""
        self._means.tariffs = tariffs
        self._means.found.clear()

    async def prepare(self) -> None:
        """Wait until a price can be told at once, before a call is quoted or opened; others are served meanwhile."""
        if self._load is None or self.is_prepared:
            return
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        # Many may wait for it, and any of them may leave.
        await asyncio.shield(self._loading)
        self.is_prepared = True

    def budgets_of(self, key: KeyRecord | None, owner: str) -> tuple[Budget, ...]:
        """Return the budgets that a call counts against: the key's, its owner's, the global ones."""
        if key is None:
            return self._owners.get(owner, ()) + self.general if owner else self.general
        known = self._of_keys.get(key.id)
        if known is not None and known[0] is key and known[1] == owner:
            return known[2]
        budgets = _budgets_of_key(key) + self._owners.get(owner, ()) + self.general
        if len(self._of_keys) >= _REMEMBERED:
            self._of_keys.clear()
        self._of_keys[key.id] = key, owner, budgets
        return budgets

    def quote(
        self,
        asked_model: str,
        targets: Sequence[Target],
        body_bytes: int,
        max_tokens: int | None,
        *,
        choices: int = 1,
        audio: bool = False,
        service_tier: str = "",
    ) -> Quote:
        """Return the most that a call can take at whichever of the targets serves it.

        `max_tokens` is the caller's own limit for each of `choices`, None without one; `audio` says that some of the
        tokens may be audio. For input that lies outside the body, such as pictures behind a link, it is no bound.
        """
        sent = most_input_tokens(body_bytes)
        got, cost, is_known = 0, 0, True
        for target in targets:
            tariff = self._means.tariff(target, asked_model, service_tier)
            context_tokens = target.context_tokens or (None if tariff is None else tariff.context_tokens)
            most = most_output_tokens(max_tokens, context_tokens, choices)
            got = max(got, most)
            if tariff is None:
                is_known = False
            else:
                cost = max(cost, tariff.most(sent, most, audio=audio))
        return Quote(sent, got, cost if is_known and targets else None)

    def reserve(self, call_id: str, budgets: tuple[Budget, ...], nano_usd: int | None) -> Hold | Refusal:
        """Set the most that a call can cost aside in every budget that it counts against, or in none.

        Raises `Overloaded` (`accounting_unavailable`) while it is not known yet what budgets have spent, and ValueError
        when nobody knows the cost: such a call is to be refused as `price_unknown` says. Only for a book whose purse
        is the `Holds` themselves.
        """
        holds = self._means.holds
        assert isinstance(holds, Holds)  # noqa: S101 - narrows for the type checker; others are asked elsewhere
        if nano_usd is None:
            raise ValueError("a call that counts against a budget needs a price")
        if not self._folding.is_loaded:
            raise Overloaded("accounting_unavailable", retry_after_seconds=RETRY_AFTER_SECONDS)
        return holds.reserve(call_id, budgets, nano_usd, self._means.wall_clock())

    def open(self, call: Settled, record: KeyRecord | None = None, hold: Hold | None = None) -> Entry:
        """Begin a call, to be settled on every way out. `record` is its key's, `hold` what is set aside for it."""
        entry = Entry(self._means, call, "" if record is None else record.owner)
        if hold is not None:
            entry.reserved_nano_usd, entry.accounts, entry.warnings = hold.amount_nano_usd, hold.accounts, hold.warnings
        return entry

    def gather(self, burst: Burst) -> None:
        """Do what `Journal.gather` does: what calls cost may be written with what else leaves in a turn of the loop."""
        self._means.journal.gather(burst)

    def at_rest(self, mark: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Do what `Folding.at_rest` does."""
        return self._folding.at_rest(mark)

    async def spent(self) -> tuple[Sequence[str], Mapping[str, int]]:
        """Return what `Folding.spent` does."""
        return await self._folding.spent()

    async def run(self) -> None:
        """Take what is written to the database, and look after the disk, until cancelled.

        At most one batch at a time, with a rest after it in which only calls are served.
        """
        while True:
            began_at, was_possible = self._means.clock(), False
            try:
                was_possible = await self.tick(batches=1)
            except Exception:  # noqa: BLE001 - the boundary: a fault of ours must not end what keeps the ledger
                _LOG.exception("The book could not be looked after")
            self.has_looked.set()
            rest_seconds = FOLDING_SECONDS
            if was_possible and self._folding.is_behind:
                took_seconds = self._means.clock() - began_at
                rest_seconds = REST * took_seconds if self._folding.has_backlog else BRIEF_SECONDS
                rest_seconds = min(rest_seconds, FOLDING_SECONDS)
            await self._rest(rest_seconds)

    async def _rest(self, seconds: float) -> None:
        """Rest for a while, or until much was written: read from memory it costs half of what it costs from files."""
        self._has_much.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_much.wait()

    async def tick(self, *, batches: int | None = None) -> bool:
        """Do once what `run` does again and again; False when the database could not be written.

        At most `batches` are taken there, None for all that is written.
        """
        means = self._means
        means.found.clear()
        means.journal.tick()
        now = means.wall_clock()
        if now.date() != self._today:
            self._today = now.date()
            means.holds.forget(now)
        was_loaded = self._folding.is_loaded
        if was_loaded:
            # Before the rows name the accounts of calls that were made since.
            await self._open_new()
        was_possible = await self._folding.fold(batches=batches)
        if self._folding.is_loaded and not was_loaded:
            await self._open_new()
        return was_possible

    async def learn(self, key: KeyRecord) -> None:
        """Have budgets of a key that are new count what the key has spent in their periods before.

        To be called before the key is first used. Raises what the store raises.
        """
        await self._open(_budgets_of_key(key))

    async def _open_new(self) -> None:
        if not self._new or self._means.clock() < self._open_at:
            return
        budgets = self._new
        try:
            await self._open(budgets, self._new_since)
        except Exception as error:  # noqa: BLE001 - whatever it is, the budgets hold from now on
            _LOG.warning("What was spent before the budgets were made cannot be told: %s", type(error).__name__)
            self._open_at = self._means.clock() + OPEN_AGAIN_SECONDS
        else:
            if self._new is budgets:
                self._new = ()

    async def _open(self, budgets: tuple[Budget, ...], through: Position = START) -> None:
        day = utc_date(self._means.wall_clock())
        accounts = [Account(each.scope, each.subject, each.per, start_of(day, each.per)).name for each in budgets]
        if accounts:
            await self._folding.open(accounts, through)

    async def close(self) -> None:
        """Take what is left to the database if that is possible now, and let go of the journal.

        What is not possible now is done at the next start, or by a process that runs beside this one. `run` must have
        ended.
        """
        await self.tick()
        self._means.journal.close()

    @property
    def gauges(self) -> Gauges:
        """Return how the book is doing."""
        journal, folding = self._means.journal, self._folding
        state: Literal["ok", "behind", "unavailable"] = "ok"
        if journal.trouble:
            state = "unavailable"
        elif folding.trouble or not folding.is_loaded:
            state = "behind"
        return Gauges(
            state,
            folding.waiting_bytes,
            folding.lag_seconds,
            journal.lost,
            len(self._means.holds),
            self._means.unpriced,
        )


def _budgets_of_key(key: KeyRecord) -> tuple[Budget, ...]:
    return tuple(
        [
            Budget(
                "key",
                key.id,
                cast("Per", budget.per),
                budget.amount_nano_usd,
                WARN_AT_PERCENT if budget.warn_at_percent is None else budget.warn_at_percent,
            )
            for budget in key.budgets
        ]
    )


def price_unknown(model: str) -> CallerError:
    """Return the refusal of a call that counts against a budget when nobody knows what it costs."""
    return CallerError(Kind.PERMISSION_DENIED, "price_unknown", param="model", parameters={"model": model})


def exhausted(refusal: Refusal, cost_nano_usd: int) -> CallerError:
    """Return the refusal of a call that may cost so much.

    It names no wait, for which a client library would do its own retries. How much everyone together may spend is the
    operator's secret.
    """
    standing = refusal.reached[0]
    resets_at, budget = standing.resets_at, standing.budget
    period = Phrase(f"budget_per_{budget.per}")
    cost = format_usd(cost_nano_usd)
    reset = (
        Phrase("budget_resets", {"time": f"{resets_at:%Y-%m-%d %H:%M} UTC"})
        if resets_at is not None
        else Phrase("budget_never_resets")
    )
    if budget.scope == "global":
        return CallerError(
            Kind.INSUFFICIENT_QUOTA,
            "gateway_budget_exhausted",
            parameters={"period": period, "cost": cost, "reset": reset},
        )
    amount = format_usd(budget.limit_nano_usd)
    return CallerError(
        Kind.INSUFFICIENT_QUOTA,
        "budget_exhausted",
        parameters={"amount": amount, "period": period, "cost": cost, "reset": reset},
    )
