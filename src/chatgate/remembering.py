"""What callers of Responses may go on from: kept for a time, shown and deleted, each for its own caller only.

Owns who a caller is for this, and what is kept: the answer with all the items before it, so that nothing else is needed
to go on. Answers that a provider of Responses keeps itself are not kept here. A WebSocket's latest responses are
remembered beside that, as long as it lasts and wherever they come from. Asked by the pipeline, and for the URLs of
single responses.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import msgspec

from chatgate.protocols.responses.call import Kept, ResponsesCall
from chatgate.protocols.responses.pages import page_of
from chatgate.protocols.responses.relay import ResponsesRelay
from chatgate.protocols.responses.session import PREFIX
from chatgate.protocols.responses.turn import TurnEnvelope
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.identity import KeyKind

if TYPE_CHECKING:
    from chatgate.protocols.openai_stream import Relay
    from chatgate.protocols.reading import Json
    from chatgate.protocols.responses.turn import Recent
    from chatgate.vocabulary.exchange import Decoded
    from chatgate.vocabulary.identity import Caller

MAX_NEEDED = 20
"""From so many responses a call may take something."""

_decode = msgspec.json.Decoder(Kept).decode


class Shelf(Protocol):
    """Where responses are kept, by identity and subject. Each raises `Overloaded` when it cannot be reached."""

    async def put(self, identity: str, subject: str, body: str) -> None:
        """Keep one, for as long as the operator says."""

    async def get(self, identity: str, subject: str) -> str | None:
        """Return one; None when there is none for this subject."""

    async def remove(self, identity: str, subject: str) -> bool:
        """Delete one; False when there is none for this subject."""


class Remembering:
    """Remembers responses. `keeps` says that the operator wants that at all."""

    def __init__(self, shelf: Shelf, *, keeps: bool) -> None:
        """Take the shelf."""
        self._shelf = shelf
        self.keeps = keeps

    async def recall(self, decoded: Decoded) -> int:
        """Put what a call goes on from into it, as far as it is here; return how many bytes that is.

        Raises `CallerError` and `Overloaded`.
        """
        call, recent = decoded.asked.foreign, _recent_of(decoded)
        needed = call.needed if isinstance(call, ResponsesCall) and (self.keeps or recent is not None) else None
        if not needed:
            return 0
        assert isinstance(call, ResponsesCall)  # noqa: S101 - narrows for the type checker; nothing else needs anything
        if len(needed) > MAX_NEEDED:
            raise CallerError(Kind.INVALID_VALUE, "invalid_field", param="input", parameters={"field": "input"})
        subject = subject_of(decoded.caller)
        found: dict[str, bytes] = {}
        for identity in sorted(needed):
            body = recent.get(identity) if recent is not None else None
            if body is None and self.keeps:
                kept = await self._shelf.get(identity, subject)
                body = None if kept is None else kept.encode()
            if body is not None:
                found[identity] = body
        call.go_on_from({identity: _decode(body) for identity, body in found.items()})
        return sum(map(len, found.values()))

    async def keep(self, decoded: Decoded, answer: bytes | Relay) -> None:
        """Keep a response, whole or as its stream has ended."""
        call = decoded.asked.foreign
        recent = _recent_of(decoded)
        if not isinstance(call, ResponsesCall) or not (call.wants_kept or recent is not None):
            return
        response = msgspec.json.decode(answer) if isinstance(answer, bytes) else _told(answer)
        if not isinstance(response, dict):
            return
        # A provider of Responses has given its answer an id of its own, and keeps it itself.
        is_ours = response.get("id") == call.session.response_id
        if recent is not None and call.is_whole and (is_ours or not call.is_kept_by_provider):
            assert isinstance(decoded.identified.envelope, TurnEnvelope)  # noqa: S101 - narrows; it has lent `recent`
            identity = f"{response.get('id')}".removeprefix(PREFIX)
            body = msgspec.json.encode(Kept(call.dialogue, response))
            recent.put(decoded.identified.envelope.lane, identity, body)
        if is_ours and call.wants_kept:
            body = msgspec.json.encode(Kept(call.dialogue, response))
            await self._shelf.put(call.session.identity, subject_of(decoded.caller), body.decode())

    async def show(self, caller: Caller, response_id: str) -> bytes:
        """Return a Response object. Raises `CallerError` and `Overloaded`."""
        return msgspec.json.encode((await self._find(caller, response_id)).response)

    async def show_items(self, caller: Caller, response_id: str, query: str) -> bytes:
        """Return a page of the items that a response answers, the last first. Raises `CallerError` and `Overloaded`."""
        kept = await self._find(caller, response_id)
        return msgspec.json.encode(page_of(kept.items, response_id.removeprefix(PREFIX), query))

    async def delete(self, caller: Caller, response_id: str) -> bytes:
        """Delete a response, and say so. Raises `CallerError` and `Overloaded`."""
        identity, subject = response_id.removeprefix(PREFIX), subject_of(caller)
        if not (self.keeps and await self._shelf.remove(identity, subject)):
            raise self._not_found(response_id)
        return msgspec.json.encode({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, caller: Caller, response_id: str) -> bytes:
        """Refuse to end a response: whoever waits for one ends it by leaving, and none goes on without its caller."""
        await self.show(caller, response_id)
        raise CallerError(
            Kind.INVALID_VALUE, "response_not_cancellable", param="response_id", parameters={"id": response_id[:100]}
        )

    async def _find(self, caller: Caller, response_id: str) -> Kept:
        body = await self._shelf.get(response_id.removeprefix(PREFIX), subject_of(caller)) if self.keeps else None
        if body is None:
            raise self._not_found(response_id)
        return _decode(body)

    def _not_found(self, response_id: str) -> CallerError:
        reason = "response_not_found" if self.keeps else "responses_not_kept"
        return CallerError(Kind.NOT_FOUND, reason, parameters={"id": response_id[:100]})


def _told(relay: Relay) -> Json | None:
    return relay.told if isinstance(relay, ResponsesRelay) else None


def _recent_of(decoded: Decoded) -> Recent | None:
    """Return what is remembered for the connection of a call; None for one over HTTP."""
    envelope = decoded.identified.envelope
    return envelope.recent if isinstance(envelope, TurnEnvelope) else None


def subject_of(caller: Caller) -> str:
    """Return in whose name responses are kept: a key's. Callers without one are told apart by nothing but the ids."""
    if caller.record is not None:
        return caller.record.id
    if caller.key.kind is KeyKind.NONE:
        return ""
    return "provider:" + hashlib.sha256(caller.key.secret.encode()).hexdigest()
