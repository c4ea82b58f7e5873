"""One call, as the ledger is told of it: dispatched, failed and tried again, settled.

Owns the order of things: a record before the upstream is called, a record before the caller sees the end, the hold
settled once, and nothing billed for what failed. Made by `book`, held by whoever carries the call, who settles it on
every way out. Everything is done at once; only `synced` waits, and only when records shall outlive the power.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from msgspec import Struct

from chatgate.accounting.holds import Budget, Holds, Purse
from chatgate.accounting.journal import Journal, JournalUnavailable
from chatgate.accounting.prices import PriceList, base_url
from chatgate.accounting.rates import Tariff
from chatgate.accounting.records import Dispatch, Failure, Record, Settlement
from chatgate.accounting.usage import Meter, Usage, final_usage
from chatgate.vocabulary import chat
from chatgate.vocabulary.errors import Overloaded
from chatgate.vocabulary.exchange import Outcome, Settled
from chatgate.vocabulary.upstreams import Target

RETRY_AFTER_SECONDS: Final = 10.0
"""What a caller is told to wait when calls cannot be written down."""

_REMEMBERED: Final = 4096

_BILLED: Final = frozenset({Outcome.COMPLETED, Outcome.CLIENT_LEFT, Outcome.REVOKED})
"""How a call has to end for its caller to pay. What failed is the provider's fault or ours."""


class Means(Struct, gc=False, eq=False):
    """What entries work with; one for all of them. `unpriced` counts the calls that nobody knew a price for.

    Tariffs are remembered in `found`, which is emptied every second or so: the price list knows them by more than is
    worth a look for every call.
    """

    journal: Journal
    tariffs: PriceList
    holds: Purse
    clock: Callable[[], float]
    wall_clock: Callable[[], datetime]
    unpriced: int = 0
    found: dict[tuple[int, str, str], tuple[Target, Tariff | None]] = {}

    def tariff(self, target: Target, asked_model: str, service_tier: str = "") -> Tariff | None:
        """Return what a model costs at a target now, None when nobody knows."""
        question = (id(target), asked_model, service_tier)
        known = self.found.get(question)
        if known is not None:
            return known[1]
        upstream = target.upstream
        tariff = self.tariffs.tariff(
            target.sent_model or asked_model,
            self.wall_clock(),
            asked_model=asked_model,
            provider=upstream.provider,
            base_url=base_url(upstream.origin, upstream.base_path),
            service_tier=service_tier,
        )
        if len(self.found) >= _REMEMBERED:
            self.found.clear()
        # As long as the target is kept here, its id is nobody else's.
        self.found[question] = target, tariff
        return tariff


Sent: TypeAlias = tuple[int, Tariff | None]
"""The number of an attempt that was dispatched, and what it costs, as was known then."""


class Entry(Struct, gc=False, eq=False):
    """A call on record. Made by `Book.open`.

    `call` is what whoever carries it knows of it, and `owner` whose key it has, "" for nobody's. `reserved_nano_usd` is
    held for it in each of `accounts`, and `warnings` are the budgets that this brought to their soft threshold, each
    once in a period. Once it `is_settled`, `charged_nano_usd` is what it cost its caller, and `tokens` what it took,
    None when no model did anything.
    """

    means: Means
    call: Settled
    owner: str
    reserved_nano_usd: int = 0
    accounts: tuple[str, ...] = ()
    warnings: tuple[Budget, ...] = ()
    charged_nano_usd: int = 0
    tokens: Usage | None = None
    is_settled: bool = False
    sent: tuple[Sent, ...] = ()
    last: Record | None = None

    def dispatch(self, attempt: int, target: Target, service_tier: str = "", *, own_key: bool = False) -> None:
        """Write down that an upstream is about to be called; `attempt` counts from 1.

        `service_tier` is as in OpenAI's protocol, "" for the usual one; it only decides what the attempt costs.
        `own_key` says that the caller's own key of the provider is shown. Raises
        `Overloaded` (`accounting_unavailable`) when that cannot be written; then the call must not be made.
        """
        means, call = self.means, self.call
        model = call.model
        known = means.found.get((id(target), model, service_tier))
        tariff = means.tariff(target, model, service_tier) if known is None else known[1]
        record = Dispatch(
            call.request_id,
            attempt,
            means.wall_clock(),
            call.operation,
            call.surface,
            call.key,
            self.owner,
            call.address,
            model,
            target.sent_model or model,
            target.upstream.name,
            call.stream,
            self.reserved_nano_usd,
            self.accounts,
            own_key,
        )
        try:
            means.journal.write(record)
        except JournalUnavailable as error:
            raise Overloaded("accounting_unavailable", retry_after_seconds=RETRY_AFTER_SECONDS) from error
        self.last = record
        self.sent += ((attempt, tariff),)

    def fail(self, attempt: int, code: str, status: int = 0, *, abandoned: bool = False, sent_bytes: int = 0) -> None:
        """Write down that an attempt ended without an answer, and that another follows or goes on beside it.

        The caller never pays for it. `status` is the upstream's, 0 for none. `abandoned` says that the upstream may
        still be working at it: what the `sent_bytes` cost is kept then, as an estimate of what the operator may pay.
        """
        means = self.means
        cost = 0
        if abandoned and sent_bytes:
            tariff = self._tariff_of(attempt)
            cost = 0 if tariff is None else tariff.charge(Meter().usage(sent_bytes, 0))
        self.last = record = Failure(self.call.request_id, attempt, means.wall_clock(), code, status, cost, abandoned)
        means.journal.keep(record)

    def settle(  # noqa: C901, PLR0912, PLR0913 - the end of a call has many facts, and what it costs to split them shows
        self,
        outcome: Outcome,
        status: int,
        code: str = "",
        *,
        attempt: int = 0,
        answered_model: str = "",
        usage: chat.Usage | bytes | None = None,
        usage_is_final: bool = True,
        sent_bytes: int = 0,
        got_bytes: int = 0,
        counted_input_tokens: int | None = None,
        counted_output_tokens: int | None = None,
        upstream_request_id: str = "",
        first_token_at: float | None = None,
    ) -> int:
        """Write down how the call ended, turn its hold into what it cost, and return that in nano-USD.

        Again changes nothing. A caller pays when the answer is whole, and for what was produced of it when they left
        or their key was taken away; never for what failed. A call that was never dispatched leaves no record.

        `attempt` is the one that served the call, 0 for the last. `usage` is the provider's last usage object, read or
        as it came; `usage_is_final` says that nothing but it could follow. Failing that, tokens are what was counted,
        or are estimated from `sent_bytes` and `got_bytes` of text; see `Meter.usage`. `first_token_at` is of the
        monotonic clock.
        """
        if self.is_settled:
            return self.charged_nano_usd
        self.is_settled = True
        means = self.means
        if not self.sent:
            if self.accounts:
                means.holds.release(self.call.request_id)
            return 0
        at = means.wall_clock()
        last, tariff = self.sent[-1]
        if attempt and attempt != last:
            last, tariff = attempt, self._tariff_of(attempt)
        tokens: Usage | None = None
        flaws: tuple[str, ...] = ()
        if usage is not None and usage_is_final:
            # As nearly always: the provider has said it all.
            tokens, flaws = final_usage(usage)
        if tokens is None:
            if usage is None and not got_bytes and isinstance(self.last, Failure) and self.last.attempt == last:
                sent_bytes = 0  # It failed, and its caller did not wait for another one.
            if usage is not None or sent_bytes or got_bytes or counted_output_tokens:
                meter = Meter()
                if usage is not None:
                    meter.take(usage, final=usage_is_final)
                tokens = meter.usage(sent_bytes, got_bytes, counted_input_tokens, counted_output_tokens)
                flaws = meter.flaws
        charged, price = 0, ""
        if tokens is not None:
            self.tokens = tokens
            if tariff is None:
                means.unpriced += 1
            else:
                rates = tariff.rates(tokens.input_tokens)
                price = rates.text
                if outcome in _BILLED:
                    self.charged_nano_usd = charged = rates.charge(tokens)
        self.last = record = Settlement(
            self.call.request_id,
            last,
            at,
            outcome,
            status,
            code,
            answered_model,
            tokens,
            charged,
            price,
            flaws,
            upstream_request_id,
            None if first_token_at is None else at - timedelta(seconds=max(means.clock() - first_token_at, 0.0)),
        )
        means.journal.keep(record)
        if self.accounts:
            if not isinstance(means.holds, Holds):
                means.journal.write_gathered()  # What others count must be on record before they hear of it.
            means.holds.settle(self.call.request_id, charged)
        return charged

    async def synced(self) -> None:
        """Return once all that was written of the call is on the disk itself; at once when nobody asked for that.

        Raises `Overloaded` (`accounting_unavailable`) when a dispatch cannot get there. A settlement that cannot is
        kept, and written again as soon as the disk takes it.
        """
        journal, record = self.means.journal, self.last
        if record is None or await _is_synced(journal):
            return
        journal.keep_again(record)
        if not await _is_synced(journal) and isinstance(record, Dispatch):
            raise Overloaded("accounting_unavailable", retry_after_seconds=RETRY_AFTER_SECONDS)

    def _tariff_of(self, attempt: int) -> Tariff | None:
        return next((tariff for number, tariff in self.sent if number == attempt), None)


async def _is_synced(journal: Journal) -> bool:
    """Wait for the disk; False when it did not take what was written."""
    done = journal.synced()
    if done is not None:
        try:
            await asyncio.wrap_future(done)
        except OSError:
            return False
    return True
