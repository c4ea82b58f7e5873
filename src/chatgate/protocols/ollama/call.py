"""A caller's Ollama request: as it came, and as an OpenAI chat's body for targets that speak that.

Nothing of it is translated before a target needs it. Ollama takes a name without a tag for that with `:latest`, so a
caller may ask for a model of the gateway in either way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from chatgate.protocols import document as documents
from chatgate.protocols import openai_chat
from chatgate.protocols.ollama.answer import CHAT, COMPLETION, Shape
from chatgate.protocols.ollama.to_chat import to_chat
from chatgate.vocabulary.chat import Asked, ChatCall
from chatgate.vocabulary.document import Document
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.upstreams import Protocol, Target

LATEST: Final = ":latest"
_NULL = Raw(b"null")


class Clocks(Struct, frozen=True):
    """The time: `wall` since the epoch, `monotonic` since any moment, in seconds."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


class _Turn(Struct):
    role: str
    content: Raw = _NULL


class _Options(Struct):
    num_predict: int | None = None


class _Request(Struct):
    model: str
    messages: Annotated[list[_Turn], Meta(min_length=1)] | None = None
    prompt: str | None = None
    system: str | None = None
    stream: bool | None = None
    options: _Options | None = None


_decode = msgspec.json.Decoder(_Request).decode


class OllamaCall:
    """What a caller asked; `began_at` is when, on the monotonic clock, and `model` what it called its model."""

    __slots__ = ("_asked_model", "_document", "_drops_parts", "_last", "began_at", "model", "protocol", "shape")

    def __init__(
        self,
        document: Document,
        model: str,
        protocol: Protocol,
        began_at: float,
        *,
        asked_model: str,
        drops_parts: bool,
    ) -> None:
        """`asked_model` is what the gateway calls the model.

        `drops_parts` says that parts which a target's protocol cannot carry may go missing.
        """
        self._asked_model = asked_model
        self.protocol: Protocol = protocol
        self.shape: Shape = CHAT if protocol == "ollama" else COMPLETION
        self.model = model
        self.began_at = began_at
        self._document = document
        self._drops_parts = drops_parts
        self._last: tuple[Target, bytes, tuple[str, ...]] | None = None

    def encode_own(self, model: str | None) -> bytes:
        """Return the body as it came, but for the model's name; None keeps that."""
        return self._document.body if model is None else self._document.splice({"model": msgspec.json.encode(model)})

    def encode_chat(self, target: Target) -> tuple[bytes, tuple[str, ...]]:
        """Return the OpenAI chat's body for a target, and what of the call it goes without. Raises `CallerError`."""
        if self._last is not None and self._last[0] is target:
            return self._last[1:]
        upstream = target.upstream
        body, losses = to_chat(msgspec.json.decode(self._document.body), extended=not upstream.is_strict)
        dropped = losses.dropped(drops_parts=self._drops_parts)
        body["model"] = target.sent_model or self._asked_model
        if body["stream"] and upstream.takes_stream_options:
            body["stream_options"] = {"include_usage": True}
        for names in (upstream.renamed, upstream.unknown):
            for name, theirs in names.items():
                if name in body:
                    body[theirs] = body.pop(name)
        self._last = (target, msgspec.json.encode(body), dropped)
        return self._last[1:]


def known_name(model: str, known: Collection[str]) -> str:
    """Return what the gateway calls a model: the name as it is if it is known, else without or with the usual tag."""
    if model in known:
        return model
    if ":" not in model and model + LATEST in known:
        return model + LATEST
    return model.removesuffix(LATEST)


def decode_call(
    body: bytes, protocol: Protocol, known: Collection[str], began_at: float, *, drops_parts: bool
) -> Asked:
    """Read a caller's body, as far as has to be known whoever answers.

    `known` are the names of the gateway's models. Raises `CallerError` of kind `INVALID_JSON` or `INVALID_VALUE`.
    """
    checked = documents.parse(body)
    try:
        request = _decode(checked.body)
    except msgspec.ValidationError as error:
        raise documents.refusal_of(error) from None
    openai_chat.check_model_name(request.model)
    turns = request.messages
    if protocol == "ollama_generate":
        turns = None
        if request.prompt:
            opening = [_Turn("system", Raw(msgspec.json.encode(request.system)))] if request.system else []
            turns = [*opening, _Turn("user", Raw(msgspec.json.encode(request.prompt)))]
    if turns is None:
        field = "messages" if protocol == "ollama" else "prompt"
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param=field, parameters={"field": field})
    limit = request.options.num_predict if request.options is not None else None
    asked_model = known_name(request.model, known)
    chat = ChatCall(
        asked_model,
        request.stream is not False,
        max_tokens=limit if limit is not None and limit > 0 else None,
        turns=turns,
    )
    call = OllamaCall(checked, request.model, protocol, began_at, asked_model=asked_model, drops_parts=drops_parts)
    return Asked(chat, foreign=call)
