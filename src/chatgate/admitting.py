"""Who calls, whether they may, and what is set aside for it: everything that is decided before an upstream is called.

Owns the order of the guards: the address and the key by the head alone, then the body, then the model, then what the
call may take of limits and budgets, all of it or nothing. The guards are `admission`'s and `accounting`'s; the pipeline
asks here once per stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from chatgate.accounting.book import exhausted, price_unknown
from chatgate.accounting.holds import Refusal
from chatgate.accounting.prices import OWN_PROVIDER
from chatgate.admission import gateway_keys
from chatgate.admission.keys import check_key, key_of_head
from chatgate.admission.limits import NOTHING, Bound, Facts, Standing, ratelimit_headers, rules_of_key
from chatgate.attempts.stages import Admitted
from chatgate.counters.port import Taken
from chatgate.refusals import Refusals, limit_reached
from chatgate.vocabulary.errors import CallerError, Kind, Overloaded
from chatgate.vocabulary.exchange import Decoded, Identified, Operation, Outcome, Surface
from chatgate.vocabulary.identity import Caller, KeyKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chatgate.accounting.book import Book, Quote
    from chatgate.accounting.holds import Budget
    from chatgate.admission.addresses import Address, Addresses
    from chatgate.admission.keyring import Keyring
    from chatgate.admission.keys import Door
    from chatgate.admission.limits import Rule
    from chatgate.counters.port import Counters
    from chatgate.routing.table import Route, Routing
    from chatgate.vocabulary.exchange import Endpoint, Envelope, Settled
    from chatgate.vocabulary.keys import KeyRecord

_PLAIN, _ADMIN, _CHAT = Surface.PLAIN, Surface.ADMIN, Operation.CHAT
_WITHOUT_DOOR = (_PLAIN, _ADMIN)
_NO_KEY, _GATEWAY = KeyKind.NONE, KeyKind.GATEWAY
_NO_RULES: tuple[Rule, ...] = ()
_MAX_KEYS = 10_000
_PROVIDER = KeyKind.PROVIDER


class Admitting:
    """Lets calls in, or says why not. Built by `app`."""

    def __init__(
        self,
        *,
        addresses: Addresses,
        door: Door,
        keyring: Keyring,
        counters: Counters,
        routing: Routing,
        book: Book,
        refusals: Refusals,
        warn: Callable[[Budget], object],
    ) -> None:
        """Take the guards. `warn` is told of each budget that has come to its soft threshold."""
        self._addresses = addresses
        self._door = door
        self._keyring = keyring
        self._counters = counters
        self._calls = counters.calls
        self._routing = routing
        self._book = book
        self._refusals = refusals
        self._warn = warn
        self._rules: dict[str, tuple[KeyRecord, tuple[Rule, ...]]] = {}
        self.can_correct = counters.can_correct
        """Tells whether `settle` has anything to do with a receipt."""

    def locate(self, envelope: Envelope) -> Address:
        """Tell where a call comes from."""
        return self._addresses.caller_address(envelope.peer, envelope.headers.get(b"x-forwarded-for"))

    def identify(self, envelope: Envelope, endpoint: Endpoint, address: Address) -> Identified:
        """Tell from the head alone who calls, and let them in.

        A key of the gateway that nothing is known of yet is left to `know`. Raises `CallerError` when the address may
        not enter, or the key opens nothing.
        """
        if not address.may_enter:
            raise CallerError(Kind.PERMISSION_DENIED, "address_not_allowed", parameters={"address": address.text})
        key = key_of_head(envelope.headers, envelope.query)
        caller = Caller(address.text, address.counted_as, key)
        # The pages and documents are for everyone who may come in, the plain API may bring its key in the body, and the
        # admin API has a door of its own.
        if endpoint.surface not in _WITHOUT_DOOR or (key.kind is not _NO_KEY and endpoint.operation is _CHAT):
            self._door.check(key)
            if key.kind is _GATEWAY:
                caller = self._recognise(caller)
        lasts = key.kind is not _GATEWAY and endpoint.surface is not _ADMIN
        return Identified(envelope, endpoint, caller, self._language_of(envelope, caller), lasts)

    def knows(self, caller: Caller) -> bool:
        """Tell whether a caller with a key of the gateway would be the same again, by the same head and peer."""
        return caller.record is not None and self._keyring.stands_by(caller.record, caller.address)

    async def know(self, identified: Identified) -> Identified:
        """Ask the storage for a caller's key, if that has to be. Raises `CallerError` or `Overloaded`."""
        caller = identified.caller
        if not caller.is_unknown:
            return identified
        caller = await self._ask(caller)
        language = self._language_of(identified.envelope, caller)
        return structs.replace(identified, caller=caller, language=language)

    def must_ask(self, decoded: Decoded) -> bool:
        """Tell whether `know_decoded` has something to do before a call is admitted."""
        caller = decoded.caller
        return (caller.record is None and caller.key.kind is _GATEWAY) or not self._book.is_prepared

    async def know_decoded(self, decoded: Decoded) -> Decoded:
        """Do what `know` does for a call whose key may have come in its body, and wait for prices to be loaded."""
        if not self._book.is_prepared and self._needs_prices(decoded.asked.chat.asked_model):
            await self._book.prepare()
        if not decoded.caller.is_unknown:
            return decoded
        caller = await self._ask(decoded.caller)
        identified = structs.replace(
            decoded.identified, caller=caller, language=self._language_of(decoded.identified.envelope, caller)
        )
        return structs.replace(decoded, identified=identified, caller=caller)

    def with_key_of_body(self, identified: Identified, shown: str) -> Identified:
        """Take the key of a body, where the head had none. Raises `CallerError` when the two are different."""
        caller, key = identified.caller, check_key(shown)
        if key.kind is not _NO_KEY and caller.key.kind is not _NO_KEY and key != caller.key:
            parameters = {"first": "Authorization", "second": "api_key"}
            raise CallerError(Kind.INVALID_VALUE, "conflicting_fields", param="api_key", parameters=parameters)
        if caller.key.kind is not _NO_KEY:
            return identified
        self._door.check(key)
        caller = Caller(caller.address, caller.counted_as, key)
        if key.kind is _GATEWAY:
            caller = self._recognise(caller)
        return structs.replace(identified, caller=caller, language=self._language_of(identified.envelope, caller))

    def admit(self, decoded: Decoded, settled: Settled, body_bytes: int) -> Admitted | Awaitable[Admitted]:
        """Ask every guard that needs the body; a refusal takes nothing from any limit or budget.

        `settled` is what is known of the call, for the book.

        What is returned has to be awaited where the limits are counted elsewhere. Raises `CallerError`, and
        `Overloaded` when it cannot be told now.
        """
        caller, chat = decoded.caller, decoded.asked.chat
        record, book = caller.record, self._book
        route = self._routing.find(chat.asked_model)
        if route.needs_key and not (route.takes_keys and caller.key.kind is _PROVIDER):
            raise self._refusals.missing_key(decoded.identified.endpoint.surface)
        if record is None:
            rules, budgets = _NO_RULES, book.general
        else:
            self._keyring.judge(record, caller.address, chat.asked_model)
            rules = self._rules_of(record)
            budgets = book.budgets_of(record, record.owner)
        calls = self._calls
        if calls is None or rules or budgets or (counted := calls.take(caller.counted_as)) is None:
            return self._take(decoded, settled, route, rules, budgets, body_bytes)
        at_ns, headers = counted
        entry = book.open(settled, record)
        return Admitted(decoded, route, entry, None, NOTHING, headers, body_bytes, at_ns)

    def _take(
        self,
        decoded: Decoded,
        settled: Settled,
        route: Route,
        rules: tuple[Rule, ...],
        budgets: tuple[Budget, ...],
        body_bytes: int,
    ) -> Admitted | Awaitable[Admitted]:
        """Take a call from limits and budgets of all kinds; see `admit`."""
        caller, record, bound = decoded.caller, decoded.caller.record, NOTHING
        if budgets and _is_theirs(caller, route):
            budgets = ()
        if budgets or self._counters.needs_bound(rules):
            quote = self._quote(route, decoded, body_bytes)
            bound = Bound(quote.input_tokens, quote.output_tokens, quote.nano_usd)
            if budgets and bound.nano_usd is None:
                raise price_unknown(decoded.asked.chat.asked_model)
        facts = Facts(caller.counted_as, None if record is None else record.id, route.name)
        call_id = decoded.identified.envelope.request_id
        taken = self._counters.take(facts, bound, rules, call_id, budgets)
        if isinstance(taken, Taken):
            return self._admitted(decoded, settled, route, bound, taken, body_bytes)
        return self._when_taken(decoded, settled, route, bound, taken, body_bytes)

    async def _when_taken(
        self,
        decoded: Decoded,
        settled: Settled,
        route: Route,
        bound: Bound,
        taking: Awaitable[Taken],
        body_bytes: int,
    ) -> Admitted:
        return self._admitted(decoded, settled, route, bound, await taking, body_bytes)

    def _admitted(
        self, decoded: Decoded, settled: Settled, route: Route, bound: Bound, taken: Taken, body_bytes: int
    ) -> Admitted:
        """Open the book for a call that was taken. Raises `CallerError` when it was not."""
        hold = taken.hold
        if isinstance(hold, Refusal):
            refusal = exhausted(hold, bound.nano_usd or 0)
            refusal.standing = ratelimit_headers(taken.standing)
            raise refusal
        headers = _told(taken.standing)
        entry = self._book.open(settled, decoded.caller.record, hold)
        for budget in entry.warnings:
            self._warn(budget)
        return Admitted(decoded, route, entry, taken.receipt, bound, headers, body_bytes)

    def release(self, admitted: Admitted) -> None:
        """Give back everything that a call has taken which was not made after all."""
        admitted.entry.settle(Outcome.REFUSED, 0)
        if admitted.receipt is not None:
            self._counters.release(admitted.receipt)
        elif self._calls is not None and admitted.counted_at_ns:
            self._calls.give_back(admitted.decoded.caller.counted_as, admitted.counted_at_ns)

    def settle(self, receipt: object, used: Bound) -> None:
        """Correct what a call has taken of the limits to what it used."""
        self._counters.settle(receipt, used)

    async def take(self, caller: Caller) -> None:
        """Take a call that asks no model from every limit, or raise `CallerError` when one stands in the way."""
        record = caller.record
        rules = _NO_RULES if record is None else self._rules_of(record)
        taken = self._counters.take(Facts(caller.counted_as, record.id if record else None), NOTHING, rules)
        if not isinstance(taken, Taken):
            taken = await taken
        _told(taken.standing)
        if taken.receipt is not None:
            self._counters.settle(taken.receipt, NOTHING)

    @property
    def tells_at_once(self) -> bool:
        """Tell whether `standing_of` needs no awaiting."""
        return self._counters.answer_at_once

    def standing_of(self, caller: Caller | None, counted_as: int) -> bytes | Awaitable[bytes]:
        """Return the header lines that tell where a caller stands with the limits, nothing when that cannot be told.

        What is returned has to be awaited where the limits are counted elsewhere.
        """
        record = caller.record if caller is not None else None
        rules = _NO_RULES if record is None else self._rules_of(record)
        try:
            standing = self._counters.standing(Facts(counted_as, record.id if record else None), rules)
        except Overloaded:
            return b""
        return ratelimit_headers(standing) if isinstance(standing, Standing) else _when_told(standing)

    def may_ask(self, caller: Caller, model: str) -> bool:
        """Tell whether a caller may ask for a model; for lists of models."""
        return caller.record is None or self._keyring.may_ask(caller.record, model)

    def _needs_prices(self, asked_model: str) -> bool:
        """Tell whether anyone but the gateway itself may answer a call."""
        try:
            route = self._routing.find(asked_model)
        except CallerError:
            return False  # It is refused in a moment.
        candidates = (each for one in (route, *route.fallbacks) for each in one.candidates)
        return any(each.target.upstream.provider != OWN_PROVIDER for each in candidates)

    def _recognise(self, caller: Caller) -> Caller:
        """Put what is remembered of a key beside it. Raises `CallerError` for what is no key, or opens nothing."""
        shown = caller.key.secret
        record = self._keyring.known(shown)
        if record is None:
            if gateway_keys.parse(shown) is None:
                raise CallerError(Kind.INVALID_KEY, "unknown_key")
            return caller
        self._keyring.judge(record, caller.address)
        return Caller(caller.address, caller.counted_as, caller.key, record)

    async def _ask(self, caller: Caller) -> Caller:
        record = await self._keyring.find(caller.key.secret)
        self._keyring.judge(record, caller.address)
        return Caller(caller.address, caller.counted_as, caller.key, record)

    def _language_of(self, envelope: Envelope, caller: Caller) -> str:
        """Return the language to speak: the caller's wish, else that of their key, else the server's."""
        return self._refusals.language_of(envelope.headers, caller.record.language if caller.record else None)

    def _rules_of(self, record: KeyRecord) -> tuple[Rule, ...]:
        """Return a key's own limits, made once for each record."""
        known = self._rules.get(record.id)
        if known is None or known[0] is not record:
            if len(self._rules) >= _MAX_KEYS:
                self._rules.clear()
            known = self._rules[record.id] = record, rules_of_key(record.limits)
        return known[1]

    def _quote(self, route: Route, decoded: Decoded, body_bytes: int) -> Quote:
        """Return the most that a call can take, wherever it goes."""
        chat = decoded.asked.chat
        routes = (route, *route.fallbacks)
        targets = [candidate.target for each in routes for candidate in each.candidates]
        audio = decoded.identified.endpoint.takes_files
        quote = self._book.quote(
            chat.asked_model, targets, body_bytes, chat.max_tokens, choices=chat.choices, audio=audio
        )
        return quote if chat.is_counted else structs.replace(quote, nano_usd=None)


def _told(standing: Standing) -> bytes:
    """Return where a caller stands as header lines. Raises `CallerError` when a limit was reached."""
    headers = ratelimit_headers(standing)
    if not standing.admitted:
        refusal = limit_reached(standing)
        refusal.standing = headers
        raise refusal
    return headers


async def _when_told(standing: Awaitable[Standing]) -> bytes:
    try:
        return ratelimit_headers(await standing)
    except Overloaded:
        return b""


def _is_theirs(caller: Caller, route: Route) -> bool:
    """Tell whether a call can only go where the caller's own key of a provider is shown, so that it is their bill."""
    return caller.key.kind is _PROVIDER and all(
        candidate.target.upstream.is_default for each in (route, *route.fallbacks) for candidate in each.candidates
    )
