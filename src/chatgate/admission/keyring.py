"""The gateway's keys that callers show: which of them open it now, and what for.

Owns what is remembered of keys, for how long, and the decision. Where keys are kept is reached through `KeyLookup`, and
nothing but `find` and `refresh` waits for it. The composition root builds `Keyring` and calls `refresh` about every
second; the pipeline asks `known`, then `find` when that knows nothing, then `judge`.

Laws. A text that cannot be a key never reaches the storage. No key is kept in clear text: what is remembered is found
by a digest of the whole text. A change of a key is heard of at the next `refresh`. While the storage is out of reach, a
key that was seen stays good for a quarter of an hour after it was last confirmed, and any other is refused as "not
now", never as "unknown".
"""

from __future__ import annotations

import asyncio
import ipaddress
from hashlib import blake2s
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import Struct

from chatgate.admission import gateway_keys
from chatgate.admission.addresses import parse_network
from chatgate.vocabulary.errors import CallerError, Kind, Overloaded
from chatgate.vocabulary.keys import KeyRecord, KeyState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from chatgate.admission.addresses import IPNetwork
    from chatgate.admission.gateway_keys import GatewayKey

Name = TypeVar("Name")

USABLE_SECONDS = 900.0
"""How long a key is good after the storage last confirmed it."""

UNKNOWN_SECONDS = 1.0
"""How long a key that the storage does not know is refused without asking it again."""

MAX_KNOWN = 20_000
"""So many keys are remembered. One more than that, used in turn, and every call would ask the storage."""

MAX_UNKNOWN = 4096
MAX_LOOKUPS = 64
"""Look-ups under way at once; a flood of made-up keys must leave the storage room for `refresh`."""

MAX_WAITING = 4096
"""Look-ups under way and those that wait for them: after a start every key is new at once."""

_REMEMBERED_ADDRESSES = 64
"""Of each key that only some addresses may use."""


MANY = 500
MOST_TIMES_AS_MANY = 20
REST_SECONDS = 60.0
"""From so many remembered keys on, a look at the sum of all versions saves asking for each, unless there are so many
times as many keys; how long after that it is not tried again."""


class LookupUnavailable(Exception):  # noqa: N818 - the situation's name is the field's term
    """The storage cannot be asked now; the same may work in a moment."""


_Found = KeyRecord | LookupUnavailable | None
"""What comes of a look-up. It does not raise, so that nothing complains when everybody who waited for it has left."""


class KeyLookup(Protocol):
    """The storage, as far as callers' keys go. All raise `LookupUnavailable`."""

    async def by_digest(self, digests: Sequence[str]) -> KeyRecord | None:
        """Return the key that has one of the digests, whatever its state; None when there is none.

        They are of one key under each pepper, the current one first.
        """

    async def versions(self, key_ids: Iterable[str]) -> Mapping[str, int]:
        """Return the versions of those keys that exist."""

    async def summary(self) -> tuple[int, int]:
        """Return how many keys there are, and what changes with each change of any of them."""


class Keyring:
    """Remembers and judges the keys that callers show. To be used by one event loop."""

    def __init__(
        self,
        peppers: tuple[bytes, ...],
        lookup: KeyLookup,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
    ) -> None:
        """`peppers` are the current one and former ones; `clock` is monotonic, in seconds; `wall_clock` is in UTC."""
        self._peppers = peppers
        self._lookup = lookup
        self._clock = clock
        self._wall_clock = wall_clock
        self._known: dict[bytes, _Known] = {}
        self._latest: dict[str, _Known] = {}
        """Of what is known, what was last found of a key, by its id."""
        self._unknown: dict[bytes, float] = {}
        self._lookups: dict[bytes, asyncio.Task[_Found]] = {}
        self._turns = asyncio.Semaphore(MAX_LOOKUPS)
        self._terms: dict[str, _Terms] = {}
        self._summary: tuple[int, int] | None = None
        self._look_at = 0.0
        self._has_new = False
        """Whether a key is remembered that was not yet held against the storage: what was found may be old by now."""
        self.is_cut_off = False
        """Whether the storage could not be reached when it was last asked."""

    def known(self, shown: str) -> KeyRecord | None:
        """Return the key that a text is, if it was found before; None means that `find` has to be asked.

        `shown` is a text that `keys.check_key` took for a key of the gateway.
        """
        known = self._known.get(_mark(shown))
        if known is None or self._clock() - known.confirmed_at > USABLE_SECONDS:
            return None
        return known.record

    def stands_by(self, record: KeyRecord, address: str) -> bool:
        """Tell whether a key that was `known` would be so again, and let be used from an address."""
        known = self._latest.get(record.id)
        if known is None or known.record is not record or self._clock() - known.confirmed_at > USABLE_SECONDS:
            return False
        if known.is_free:
            return True
        try:
            self.judge(record, address)
        except CallerError:
            return False
        return True

    async def find(self, shown: str) -> KeyRecord:
        """Return the key that a text is, whatever its state.

        Raises `CallerError` when there is none, and `Overloaded` when that cannot be told now.
        """
        key = gateway_keys.parse(shown)
        if key is None:
            raise _unknown_key()
        known = self.known(shown)
        if known is not None:
            return known
        mark = _mark(shown)
        if self._unknown.get(mark, 0.0) > self._clock():
            raise _unknown_key()
        lookup = self._lookups.get(mark)
        if lookup is None:
            if len(self._lookups) >= MAX_WAITING:
                raise Overloaded("auth_unavailable")
            lookup = self._lookups[mark] = asyncio.create_task(self._look_up(mark, key))
            lookup.add_done_callback(lambda _: self._lookups.pop(mark))
        # Whoever shows the same key waits for the same look-up, and does not end it for the others by leaving.
        found = await asyncio.shield(lookup)
        if isinstance(found, LookupUnavailable):
            raise Overloaded("auth_unavailable") from found
        if found is None:
            raise _unknown_key()
        return found

    async def refresh(self) -> frozenset[str]:
        """Hold what is remembered against the storage, and forget what has changed.

        Returns the ids of the keys that changed, were given another secret, or are gone; none when the storage is out
        of reach. What is forgotten is looked up again when it is next shown.
        """
        asked_at = self._clock()
        held = list(self._known.items())
        if not held:
            return frozenset()
        has_new, self._has_new = self._has_new, False
        try:
            summary = await self._summarise(len(held))
            if summary is not None and summary == self._summary and not has_new:
                versions: Mapping[str, int] = {known.record.id: known.record.version for _, known in held}
            else:
                versions = await self._lookup.versions({known.record.id for _, known in held})
        except LookupUnavailable:
            self.is_cut_off = self._has_new = True
            return frozenset()
        self._summary = summary
        self.is_cut_off = False
        changed: set[str] = set()
        for mark, known in held:
            if versions.get(known.record.id) == known.record.version:
                known.confirmed_at = asked_at
            else:
                changed.add(known.record.id)
                self._forget(mark, known)
        return frozenset(changed)

    async def _summarise(self, held: int) -> tuple[int, int] | None:
        """Return what changes with each change of any key, None where it is cheaper to ask for those that are held."""
        now = self._clock()
        if held < MANY or now < self._look_at:
            return None
        summary = await self._lookup.summary()
        if summary[0] > held * MOST_TIMES_AS_MANY:
            self._look_at = now + REST_SECONDS
        return summary

    def digest(self, key: GatewayKey) -> str:
        """Return what is to be stored of a key that is made here."""
        return gateway_keys.digest(self._peppers[0], key)

    def changed(self, key_id: str) -> None:
        """Forget a key of which is known that it has changed: when it is next shown, it is looked up."""
        for mark, known in list(self._known.items()):
            if known.record.id == key_id:
                self._forget(mark, known)

    def judge(self, record: KeyRecord, address: str, model: str | None = None) -> None:
        """Let a key be used from an address, and for a model once one is asked for; else raise `CallerError`.

        `address` is the caller's as text, whatever that is for a socket without one. None as `model` leaves that open.
        """
        terms = self._terms_of(record)
        if terms.may_end:
            _refuse_ended(record.state(self._wall_clock()))
        if terms.networks is not None and not terms.may_use(address):
            raise CallerError(Kind.PERMISSION_DENIED, "key_address_not_allowed", parameters={"address": address})
        if terms.models is not None and model is not None and not terms.models.match(model):
            raise CallerError(Kind.PERMISSION_DENIED, "key_model_not_allowed", parameters={"model": model})

    def may_ask(self, record: KeyRecord, model: str) -> bool:
        """Tell whether a key may be used for a model; for lists of models."""
        models = self._terms_of(record).models
        return models is None or models.match(model)

    async def _look_up(self, mark: bytes, key: GatewayKey) -> _Found:
        """Ask the storage for a key and remember what it says; that it says nothing is no answer to remember."""
        digests = [gateway_keys.digest(pepper, key) for pepper in self._peppers]
        try:
            async with self._turns:
                asked_at = self._clock()
                record = await self._lookup.by_digest(digests)
        except LookupUnavailable as error:
            self.is_cut_off = True
            return error
        self.is_cut_off = False
        if (old := self._known.get(mark)) is not None:  # It was too old to be used.
            self._forget(mark, old)
        self._unknown.pop(mark, None)
        if record is None:
            self._unknown[mark] = self._clock() + UNKNOWN_SECONDS
            _drop_oldest(self._unknown, MAX_UNKNOWN)
        else:
            self._known[mark] = self._latest[record.id] = _Known(record, asked_at, _is_free(record))
            self._has_new = True
            while len(self._known) > MAX_KNOWN:
                self._forget(*next(iter(self._known.items())))
        return record

    def _forget(self, mark: bytes, known: _Known) -> None:
        """Forget a key, unless it was looked up anew meanwhile."""
        if self._known.get(mark) is known:
            del self._known[mark]
            if self._latest.get(known.record.id) is known:
                del self._latest[known.record.id]
            self._terms.pop(known.record.id, None)

    def _terms_of(self, record: KeyRecord) -> _Terms:
        """Return what a record says in the form that is quick to ask, made once for each record."""
        terms = self._terms.get(record.id)
        if terms is None or terms.record is not record:
            terms = self._terms[record.id] = _Terms(record)
            _drop_oldest(self._terms, MAX_KNOWN)
        return terms


class _Known(Struct, gc=False):
    """A key that was found, when the storage last said that it is so, and whether it is good from anywhere, forever."""

    record: KeyRecord
    confirmed_at: float
    is_free: bool


def _may_end(record: KeyRecord) -> bool:
    """Tell whether time, or what has happened, may end a key that has not changed."""
    return record.revoked_at is not None or record.expires_at is not None or not record.enabled


def _is_free(record: KeyRecord) -> bool:
    return not (_may_end(record) or record.allowed_addresses)


class _Terms:
    """What a key is good for."""

    __slots__ = ("_judged", "may_end", "models", "networks", "record")

    def __init__(self, record: KeyRecord) -> None:
        self.record = record
        self.may_end = _may_end(record)
        self.models = Patterns(record.allowed_models) if record.allowed_models else None
        self.networks = _networks(record.allowed_addresses) if record.allowed_addresses else None
        self._judged: dict[str, bool] = {}

    def may_use(self, address: str) -> bool:
        """Tell whether an address is one of those the key may be used from."""
        allowed = self._judged.get(address)
        if allowed is None:
            allowed = self._judged[address] = self._is_allowed(address)
            _drop_oldest(self._judged, _REMEMBERED_ADDRESSES)
        return allowed

    def _is_allowed(self, address: str) -> bool:
        try:
            place = ipaddress.ip_address(address)
        except ValueError:
            return False
        place = getattr(place, "ipv4_mapped", None) or place
        return any(place in network for network in self.networks or ())


class Patterns:
    """Names of models, in which `*` stands for any text; matched in time that grows with the name alone."""

    __slots__ = ("_exact", "_open")

    def __init__(self, patterns: Sequence[str]) -> None:
        """Read them; none matches nothing."""
        self._exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
        self._open = [pattern.split("*") for pattern in patterns if "*" in pattern]

    def match(self, name: str) -> bool:
        """Tell whether a name is one of these, letter for letter where there is no `*`."""
        return name in self._exact or any(_fits(name, *parts) for parts in self._open)


def _fits(name: str, start: str, *rest: str) -> bool:
    """Tell whether a name begins with the first part, ends with the last, and has the others in order between."""
    *inner, end = rest
    at, last = len(start), len(name) - len(end)
    if last < at or not name.startswith(start) or not name.endswith(end):
        return False
    for part in inner:
        found = name.find(part, at, last)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _networks(texts: Iterable[str]) -> list[IPNetwork]:
    """Read a key's addresses. One that cannot be read lets nobody in; the others still hold."""
    networks = []
    for text in texts:
        try:
            networks.append(parse_network(text))
        except ValueError:
            continue
    return networks


def _mark(shown: str) -> bytes:
    """Return what a text is remembered by: its BLAKE2s digest, from which nobody gets 256 random bits back."""
    return blake2s(shown.encode()).digest()


def _unknown_key() -> CallerError:
    return CallerError(Kind.INVALID_KEY, "unknown_key")


def _refuse_ended(state: KeyState) -> None:
    """Raise `CallerError` for a key that opens nothing at the moment."""
    if state is KeyState.REVOKED:
        raise CallerError(Kind.INVALID_KEY, "key_revoked")
    if state is KeyState.EXPIRED:
        raise CallerError(Kind.INVALID_KEY, "key_expired")
    if state is KeyState.DISABLED:
        raise CallerError(Kind.INVALID_KEY, "key_disabled")


def _drop_oldest(remembered: dict[Name, Any], size: int) -> None:
    """Forget what was remembered first, down to a size."""
    while len(remembered) > size:
        del remembered[next(iter(remembered))]
