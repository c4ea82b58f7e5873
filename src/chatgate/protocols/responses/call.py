"""A caller's Responses request: as it came, and as an OpenAI chat's body for targets that speak that.

Nothing of it is translated before a target needs it. What the caller goes on from is put in by whoever keeps responses,
before the call is admitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from chatgate.protocols import document as documents
from chatgate.protocols import openai_chat
from chatgate.protocols.chat_body import addressed
from chatgate.protocols.reading import Json
from chatgate.protocols.responses.request import items_of, to_chat
from chatgate.protocols.responses.session import PREFIX, Session, identity_of, session_of
from chatgate.vocabulary.chat import Asked, ChatCall, Message
from chatgate.vocabulary.errors import CallerError, Kind, Remedy

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.vocabulary.document import Document
    from chatgate.vocabulary.upstreams import Protocol, Target

_NULL = Raw(b"null")
_REFERENCE = "item_reference"


class _Request(Struct):
    model: str
    input: Raw = _NULL
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    previous_response_id: str | None = None
    store: bool | None = None


_decode = msgspec.json.Decoder(_Request).decode


class Kept(Struct, frozen=True):
    """What is kept of a response: all the items before its output, earlier responses' among them, and itself."""

    items: list[Json]
    response: Json

    @property
    def dialogue(self) -> list[Json]:
        """Return what a response that goes on from this one begins with."""
        return [*self.items, *self.response["output"]]


class ResponsesCall:
    """What a caller asked. `previous_id` is the response it goes on from, "" for none; `wants_kept` is its wish."""

    protocol: Protocol = "openai_responses"

    __slots__ = ("_document", "_drops_parts", "_earlier", "_request", "previous_id", "session", "wants_kept")

    def __init__(
        self, document: Document, request: Json, session: Session, *, wants_kept: bool, drops_parts: bool
    ) -> None:
        """`drops_parts` says that parts which a target's protocol cannot carry may go missing."""
        self._document = document
        self._request = request
        self._drops_parts = drops_parts
        self._earlier: list[Json] | None = None
        self.previous_id = str(request.get("previous_response_id") or "")
        self.session = session
        self.wants_kept = wants_kept

    @property
    def needed(self) -> frozenset[str]:
        """Return the identities of the responses that the call goes on from, or takes single items from."""
        found = {identity_of(f"{item.get('id')}") for item in items_of(self._request) if item.get("type") == _REFERENCE}
        if self.previous_id:
            found.add(self.previous_id.removeprefix(PREFIX))
        return frozenset(found)

    @property
    def is_whole(self) -> bool:
        """Tell whether all that the answer follows is here."""
        return not self.previous_id or self._earlier is not None

    @property
    def is_kept_by_provider(self) -> bool:
        """Tell whether a provider of Responses keeps its answer."""
        return self._request.get("store") is not False

    def go_on_from(self, kept: dict[str, Kept]) -> None:
        """Take what was found of `needed`, by identity."""
        previous = kept.get(self.previous_id.removeprefix(PREFIX)) if self.previous_id else None
        if previous is not None:
            self._earlier = previous.dialogue
        known = {item.get("id"): item for each in kept.values() for item in each.dialogue if item.get("id")}
        items = items_of(self._request)
        if any(item.get("type") == _REFERENCE for item in items):
            put_in = [known.get(item.get("id"), item) if item.get("type") == _REFERENCE else item for item in items]
            self._request = {**self._request, "input": put_in}

    @property
    def dialogue(self) -> list[Json]:
        """Return all the items that the answer follows."""
        return [*(self._earlier or ()), *items_of(self._request)]

    def encode_own(self, model: str | None) -> bytes:
        """Return the body as it came, but for the model's name; None keeps that.

        What goes on from a response that the gateway kept is written out: the provider does not know it.
        """
        changes = {} if model is None else {"model": msgspec.json.encode(model)}
        if self._earlier is not None:
            changes["input"] = msgspec.json.encode(self.dialogue)
            changes["previous_response_id"] = b"null"
        return self._document.splice(changes) if changes else self._document.body

    def encode_chat(self, target: Target) -> tuple[bytes, tuple[str, ...]]:
        """Return the OpenAI chat's body for a target, and what of the call it goes without. Raises `CallerError`."""
        if not self.is_whole:
            raise self.unknown_previous()
        strict = target.upstream.is_strict
        body, losses = to_chat(self._request, extended=not strict, earlier=self._earlier or ())
        dropped = losses.dropped(drops_parts=self._drops_parts)
        return addressed(body, target), dropped

    def unknown_previous(self) -> CallerError:
        """Return the refusal of a call that goes on from what is not here."""
        error = CallerError(
            Kind.INVALID_VALUE,
            "previous_response_not_found",
            param="previous_response_id",
            provider_code="previous_response_not_found",
            parameters={"id": self.previous_id[:100]},
        )
        error.remedy = Remedy.ANOTHER_TARGET  # One that speaks Responses may have kept it itself.
        return error


def decode_call(
    body: bytes, *, new_identity: Callable[[], str], now: Callable[[], float], keeps: bool, drops_parts: bool
) -> Asked:
    """Read a caller's body, as far as has to be known whoever answers.

    `new_identity` makes the response's id, `now` is Unix time; `keeps` says that the gateway keeps responses. Raises
    `CallerError` of kind `INVALID_JSON` or `INVALID_VALUE`.
    """
    checked = documents.parse(body)
    try:
        asked = _decode(checked.body)
    except msgspec.ValidationError as error:
        raise documents.refusal_of(error) from None
    openai_chat.check_model_name(asked.model)
    request: Json = msgspec.json.decode(checked.body)
    wants_kept = keeps and asked.store is not False
    session = session_of(request, new_identity(), int(now()), is_stored=wants_kept)
    call = ResponsesCall(checked, request, session, wants_kept=wants_kept, drops_parts=drops_parts)
    # The beginning of a dialogue is what it is known by when it goes on.
    turns = [Message("system", asked.instructions)] if asked.instructions else []
    items = items_of(request)
    turns += [Message(str(item.get("role") or "assistant"), _opening(item)) for item in items]
    chat = ChatCall(asked.model, asked.stream is True, max_tokens=asked.max_output_tokens, turns=turns)
    return Asked(chat, foreign=call)


def _opening(item: Json) -> str:
    content = item.get("content")
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()
