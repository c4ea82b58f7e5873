"""Calls under way with a key of the gateway, and their end when that key is taken away.

Owns which changes of a key end what it has begun: that it is revoked, switched off, given another secret, or gone.
Whoever does that wants its calls to stop, not only the next one to be refused. A key that expires ends nothing: until
then calls may begin, and each has an end of its own. Other changes hold for the next call.

The pipeline says when a call with such a key begins and ends; the composition root calls `refresh` about every second,
and `changed` when a key was changed in this very process. Where keys are kept is reached through `Lookup`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from chatgate.admission.keyring import LookupUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from chatgate.vocabulary.keys import KeyRecord

ENDED_REASONS = frozenset({"key_revoked", "key_disabled", "key_replaced", "unknown_key"})
"""Why a call is ended: the messages that its caller is told."""


class Lookup(Protocol):
    """The storage, as far as keys in use go. Both raise `LookupUnavailable`."""

    async def versions(self, key_ids: Iterable[str]) -> Mapping[str, int]:
        """Return the versions of those keys that exist."""

    async def records(self, key_ids: Iterable[str]) -> Mapping[str, KeyRecord]:
        """Return those keys that exist."""


class _Call(Struct, gc=False):
    """A call under way: the key as it began with it, how to end it, and the key's last version that did not."""

    record: KeyRecord
    end: Callable[[str], None]
    version: int


class Running:
    """The calls under way. To be used by one event loop."""

    def __init__(self, lookup: Lookup) -> None:
        """Begin with none."""
        self._lookup = lookup
        self._calls: dict[str, _Call] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._calls)

    def begin(self, call_id: str, record: KeyRecord, end: Callable[[str], None]) -> None:
        """Note a call; `end` ends it early, and is told one of `ENDED_REASONS`."""
        self._calls[call_id] = _Call(record, end, record.version)

    def over(self, call_id: str) -> None:
        """Forget a call that has ended, or that was never noted."""
        self._calls.pop(call_id, None)

    def changed(self, record: KeyRecord) -> None:
        """End the calls of a key that has become this, if that ends them."""
        for call in list(self._calls.values()):
            if call.record.id == record.id:
                _judge(call, record)

    async def refresh(self) -> None:
        """Ask the storage for changes of the keys in use, and act on them; while it is out of reach nothing ends."""
        if not self._calls:
            return
        try:
            # A call that begins meanwhile is asked for the next time.
            calls = list(self._calls.values())
            versions = await self._lookup.versions({call.record.id for call in calls})
            late = [call for call in calls if versions.get(call.record.id) != call.version]
            records = await self._lookup.records({call.record.id for call in late}) if late else {}
        except LookupUnavailable:
            return
        under_way = {id(call) for call in self._calls.values()}
        for call in late:
            if id(call) in under_way:
                _judge(call, records.get(call.record.id))


def _judge(call: _Call, now: KeyRecord | None) -> None:
    reason = _reason(call.record, now)
    if reason:
        call.end(reason)
    elif now is not None:
        call.version = now.version


def _reason(before: KeyRecord, now: KeyRecord | None) -> str:
    """Return why a call that began with a key must end now that the key is this, "" when it need not."""
    if now is None:
        return "unknown_key"
    if now.revoked_at is not None:
        return "key_revoked"
    if not now.enabled:
        return "key_disabled"
    return "key_replaced" if now.rotated_at != before.rotated_at else ""
