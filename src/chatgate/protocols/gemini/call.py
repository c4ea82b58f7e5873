"""A caller's Gemini request: as it came, and as an OpenAI chat's body for targets that speak that.

Which model is asked, and whether for a stream, is in the URL. Nothing is translated before a target needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from chatgate.protocols import document as documents
from chatgate.protocols import openai_chat
from chatgate.protocols.chat_body import addressed
from chatgate.protocols.gemini.fields import camel, fields
from chatgate.protocols.gemini.from_gemini import to_chat
from chatgate.vocabulary.chat import Asked, ChatCall
from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.protocols.reading import Json
    from chatgate.vocabulary.document import Document
    from chatgate.vocabulary.upstreams import Protocol, Target

STREAM = "streamGenerateContent"
COUNT = "countTokens"
METHODS = ("generateContent", STREAM, COUNT)
"""What is asked of a model: the end of the URL, after a colon."""

MAX_CHOICES = 128

T = TypeVar("T")

_NULL = Raw(b"null")


class _Content(Struct):
    role: str | None = None
    parts: Raw = _NULL


class _Turn(Struct):
    role: str
    content: Raw


_decode_contents = msgspec.json.Decoder(list[_Content]).decode
_decode_content = msgspec.json.Decoder(_Content).decode


class GeminiCall:
    """What a caller asked; `shows_thoughts` says that it wants to see what the model thought."""

    protocol: Protocol = "gemini"

    __slots__ = ("_asked", "_document", "_drops_parts", "_last", "shows_thoughts")

    def __init__(self, document: Document, asked: tuple[str, bool], *, shows_thoughts: bool, drops_parts: bool) -> None:
        """`asked` is the model, and whether a stream is wanted.

        `drops_parts` says that parts which a target's protocol cannot carry may go missing.
        """
        self._document = document
        self._asked = asked
        self._drops_parts = drops_parts
        self._last: tuple[Target, bytes, tuple[str, ...]] | None = None
        self.shows_thoughts = shows_thoughts

    def encode_own(self, model: str | None) -> bytes:  # noqa: ARG002 - a port's method: the model is in the URL
        """Return the body as it came."""
        return self._document.body

    def encode_chat(self, target: Target) -> tuple[bytes, tuple[str, ...]]:
        """Return the OpenAI chat's body for a target, and what of the call it goes without. Raises `CallerError`."""
        if self._last is not None and self._last[0] is target:
            return self._last[1:]
        upstream, (model, stream) = target.upstream, self._asked
        request = msgspec.json.decode(self._document.body)
        body, losses = to_chat(
            request, model, stream=stream, extended=not upstream.is_strict, continuation=upstream.continuation
        )
        dropped = losses.dropped(drops_parts=self._drops_parts)
        self._last = (target, addressed(body, target), dropped)
        return self._last[1:]


def asked_of(parameter: str) -> tuple[str, str]:
    """Return the model and the method that an URL's end asks for: `gemini-x:generateContent`. Raises `CallerError`."""
    model, _, method = parameter.rpartition(":")
    openai_chat.check_model_name(model)
    return model, method


def decode_call(body: bytes, parameter: str, *, drops_parts: bool) -> Asked:
    """Read a caller's body, as far as has to be known whoever answers; `parameter` is the URL's end.

    Raises `CallerError` of kind `INVALID_JSON` or `INVALID_VALUE`.
    """
    model, method = asked_of(parameter)
    checked = documents.parse(body)
    known = {camel(name): raw for name, raw in checked.fields.items()}
    turns = _turns(known)
    config = _config(known)
    thinking = fields(config.get("thinkingConfig") or {}, "generationConfig.thinkingConfig")
    call = GeminiCall(
        checked,
        (model, method == STREAM),
        shows_thoughts=thinking.get("includeThoughts") is True,
        drops_parts=drops_parts,
    )
    most = _whole(config, "maxOutputTokens", None)
    choices = _whole(config, "candidateCount", MAX_CHOICES) or 1
    return Asked(ChatCall(model, method == STREAM, max_tokens=most, turns=turns, choices=choices), foreign=call)


def _turns(known: dict[str, Raw]) -> list[_Turn]:
    """Return the turns of a dialogue, as far as conversations are told apart by them. Raises `CallerError`."""
    contents = _read(_decode_contents, known.get("contents", b"[]"), "contents")
    system = known.get("systemInstruction", _NULL)
    if not contents:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="contents", parameters={"field": "contents"})
    turns = [_Turn("assistant" if each.role == "model" else "user", each.parts) for each in contents]
    if system != _NULL:
        turns.insert(0, _Turn("system", _read(_decode_content, system, "systemInstruction").parts))
    return turns


def _read(decode: Callable[[bytes | Raw], T], raw: bytes | Raw, name: str) -> T:
    """Return a field's value. Raises `CallerError` that names the field."""
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        refusal = documents.refusal_of(error)
        path = f"{name}.{refusal.param}" if refusal.param else name
        path = path.replace(".[", "[")
        raise CallerError(
            refusal.kind, refusal.reason, param=path, parameters={**refusal.parameters, "field": path}
        ) from None


def _config(known: dict[str, Raw]) -> Json:
    return fields(msgspec.json.decode(known.get("generationConfig", b"null")) or {}, "generationConfig")


def _whole(config: Json, name: str, most: int | None) -> int | None:
    """Return a number above 0, None when there is none. Raises `CallerError` for anything else."""
    value: Any = config.get(name)
    if value is None:
        return None
    where = f"generationConfig.{name}"
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most is not None and value > most):
        raise CallerError(Kind.INVALID_VALUE, "invalid_field", param=where, parameters={"field": where})
    return value
