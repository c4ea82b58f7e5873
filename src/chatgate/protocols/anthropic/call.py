"""A caller's Anthropic request: as it came, and as an OpenAI chat's body for targets that speak that.

Nothing of it is translated before a target needs it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from chatgate.protocols import document as documents
from chatgate.protocols import openai_chat
from chatgate.protocols.anthropic.from_messages import to_chat
from chatgate.protocols.anthropic.message import UNSIGNED
from chatgate.protocols.chat_body import addressed
from chatgate.vocabulary.chat import Asked, ChatCall
from chatgate.vocabulary.document import Document
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.upstreams import Protocol, Target

_NULL = Raw(b"null")
_MARK = re.compile(rb',\s*"cache_control"\s*:\s*\{[^{}]*\}|"cache_control"\s*:\s*\{[^{}]*\}\s*,\s*')
"""A mark for the provider's cache; quotes inside of a JSON text are escaped, so what looks like one is one."""


_OPENING_TURNS = 2
"""So many turns tell conversations apart."""


class _Turn(Struct):
    role: str
    content: Raw = _NULL


class _Request(Struct):
    model: str
    messages: Annotated[list[_Turn], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    stream: bool | None = None
    system: Raw = _NULL
    stop_sequences: list[str] | None = None


_decode = msgspec.json.Decoder(_Request).decode


class MessagesCall:
    """What a caller asked; `stops` are its stop sequences."""

    protocol: Protocol = "anthropic"

    __slots__ = ("_document", "_drops_parts", "_last", "stops")

    def __init__(self, document: Document, stops: tuple[str, ...], *, drops_parts: bool) -> None:
        """`drops_parts` says that parts which a target's protocol cannot carry may go missing."""
        self._document = document
        self._drops_parts = drops_parts
        self._last: tuple[Target, bytes, tuple[str, ...]] | None = None
        self.stops = stops

    def encode_own(self, model: str | None) -> bytes:
        """Return the body as it came, but for the model's name; None keeps that.

        Thinking that no Anthropic model has signed is left out: the provider would refuse the call.
        """
        changes = {} if model is None else {"model": msgspec.json.encode(model)}
        if UNSIGNED.encode() in self._document.body:
            changes["messages"] = msgspec.json.encode(_signed(self._document.value("messages")))
        return self._document.splice(changes) if changes else self._document.body

    def encode_chat(self, target: Target) -> tuple[bytes, tuple[str, ...]]:
        """Return the OpenAI chat's body for a target, and what of the call it goes without. Raises `CallerError`."""
        if self._last is not None and self._last[0] is target:
            return self._last[1:]
        upstream = target.upstream
        request = msgspec.json.decode(self._document.body)
        body, losses = to_chat(request, extended=not upstream.is_strict, continuation=upstream.continuation)
        dropped = losses.dropped(drops_parts=self._drops_parts)
        self._last = (target, addressed(body, target), dropped)
        return self._last[1:]


def decode_call(body: bytes, *, drops_parts: bool, needs_limit: bool = True) -> Asked:
    """Read a caller's body, as far as has to be known whoever answers.

    `needs_limit` says that it has to set `max_tokens`. Raises `CallerError` of kind `INVALID_JSON` or `INVALID_VALUE`.
    """
    checked = documents.parse(body)
    try:
        request = _decode(checked.body)
    except msgspec.ValidationError as error:
        raise documents.refusal_of(error) from None
    openai_chat.check_model_name(request.model)
    if request.max_tokens is None and needs_limit:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="max_tokens", parameters={"field": "max_tokens"})
    turns = request.messages
    if request.system != _NULL:
        turns = [_Turn("system", request.system), *turns]
    for turn in turns[:_OPENING_TURNS]:
        # Clients move the marks from turn to turn, but it stays the same conversation.
        turn.content = Raw(_MARK.sub(b"", bytes(turn.content)))
    chat = ChatCall(request.model, request.stream is True, max_tokens=request.max_tokens or None, turns=turns)
    call = MessagesCall(checked, tuple(request.stop_sequences or ()), drops_parts=drops_parts)
    return Asked(chat, foreign=call)


def _signed(messages: Any) -> list[Any]:  # noqa: ANN401 - as it came
    """Return the messages without thinking of our own making, and without messages that were nothing else."""
    kept = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            blocks = [
                block for block in content if not (isinstance(block, dict) and block.get("signature") == UNSIGNED)
            ]
            if content and not blocks:
                continue
            kept.append({**message, "content": blocks})
        else:
            kept.append(message)
    return kept
