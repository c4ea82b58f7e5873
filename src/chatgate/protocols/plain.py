"""The plain API: one JSON route that a script, a shortcut or a form can call.

A call comes as a JSON object, as a form, or as bare text; an answer carries the fields of both generations of its
clients (`data.response`, and `current_response` with `result`). A stream is a series of `data: {"delta": …}` events and
then one event with the whole answer.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from chatgate.protocols import document, openai_chat, sse
from chatgate.protocols.openai_stream import Relay
from chatgate.vocabulary.chat import Asked, ChatCall, Message, Usage
from chatgate.vocabulary.errors import CallerError, GateError, Kind, UpstreamError
from chatgate.vocabulary.upstreams import Protocol

MAX_TOKENS_LOW, MAX_TOKENS_HIGH, MAX_TOKENS_DEFAULT = 1, 3500, 100
"""The bounds and the default of `max_tokens`."""

RETIRED_MODEL = "text-davinci-003"
"""The model that old clients ask for and no provider serves; it means the server's default."""

_FORM = "application/x-www-form-urlencoded"
_MAX_FORM_FIELDS = 100
_INTEGER = re.compile(r"[+-]?\d{1,19}")
_FORM_TRUTHS = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}


class _Turn(Struct):
    role: str
    content: str


class _Request(Struct):
    user_content: str | None = None
    sys_content: str | None = None
    system_content: str | None = None
    model: str | None = None
    api_key: str | None = None
    max_tokens: int | None = None
    continuous: list[_Turn] | None = None
    continuous_dialogue: list[_Turn] | None = None
    stream: bool | None = None


FIELDS = frozenset(_Request.__struct_fields__)
"""The names under which a call may say something."""

_NAMES_A_FIELD = re.compile(rf"(?:^|&)(?:{'|'.join(sorted(FIELDS))})=")
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_LEADING_ROLES = frozenset({"system", "developer"})


# --- What a caller asks -----------------------------------------------------------------------------------------------


def decode_request(body: bytes, content_type: str, default_model: str) -> Asked:
    """Read a call in any of the three body forms; `content_type` is the header's value, "" when there is none.

    Raises `CallerError` of kind `INVALID_JSON`, `INVALID_VALUE` or `UNSUPPORTED_MEDIA_TYPE`.
    """
    request = _read_body(body, content_type)
    system = _one_of(request, "sys_content", "system_content")
    earlier = _one_of(request, "continuous", "continuous_dialogue") or []
    question = request.user_content
    if question is None:
        raise _invalid("missing_field", "user_content")
    if not question.strip():
        raise _invalid("empty_field", "user_content")
    limit = MAX_TOKENS_DEFAULT if request.max_tokens is None else request.max_tokens
    if not MAX_TOKENS_LOW <= limit <= MAX_TOKENS_HIGH:
        raise _invalid("out_of_range", "max_tokens", low=MAX_TOKENS_LOW, high=MAX_TOKENS_HIGH)
    model = request.model if request.model and request.model != RETIRED_MODEL else default_model
    openai_chat.check_model_name(model)
    for index, turn in enumerate(earlier):
        if turn.role not in _ROLES:
            field = "continuous_dialogue" if request.continuous is None else "continuous"
            raise _invalid("invalid_field", f"{field}[{index}].role")
    dialogue = (*(Message(turn.role, turn.content) for turn in earlier), Message("user", question))
    chat = ChatCall(model, request.stream is True, messages=_ordered(dialogue, system), max_tokens=limit)
    return Asked(chat, request.api_key or "", dialogue)


def _ordered(dialogue: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    """Put the system message first: the given one in place of all in the dialogue, else those of the dialogue."""
    leading = [message for message in dialogue if message.role in _LEADING_ROLES]
    others = [message for message in dialogue if message.role not in _LEADING_ROLES]
    if system:
        leading = [Message("system", system)]
    return (*leading, *others)


def _one_of(request: _Request, first: str, second: str) -> Any:  # noqa: ANN401 - a field of the request
    """Return the value of a field with two spellings; both at once must agree."""
    one, other = getattr(request, first), getattr(request, second)
    if one is not None and other is not None and one != other:
        raise CallerError(
            Kind.INVALID_VALUE, "conflicting_fields", param=second, parameters={"first": first, "second": second}
        )
    return other if one is None else one


def _invalid(reason: str, field: str, **parameters: int) -> CallerError:
    return CallerError(Kind.INVALID_VALUE, reason, param=field, parameters={"field": field, **parameters})


def _read_body(body: bytes, content_type: str) -> _Request:
    """Read a body by its declared form, and by its looks where beginners' tools declare the wrong one.

    `curl -d` says that anything is a form, and a script's `fetch` says that anything is text.
    """
    media_type, _, rest = content_type.partition(";")
    media_type = media_type.strip().lower()
    if "charset=" in rest.lower() and not re.search(r'charset="?(utf-?8|us-ascii)"?', rest.lower()):
        raise _unsupported(content_type)
    looks_like_json = body.lstrip()[:1] == b"{"
    if media_type.endswith(("/json", "+json")):
        return _read_json(body)
    if media_type == _FORM:
        return _read_json(body) if looks_like_json else _read_form(body)
    if media_type == "text/plain" or not media_type:
        if looks_like_json and (b'"user_content"' in body or not media_type):
            return _read_json(body)
        return _Request(user_content=_text(body))
    raise _unsupported(content_type)


def _unsupported(content_type: str) -> CallerError:
    return CallerError(
        Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters={"content_type": content_type[:100]}
    )


def _read_json(body: bytes) -> _Request:
    try:
        return msgspec.json.decode(document.parse(body).body, type=_Request)
    except msgspec.ValidationError as error:
        raise document.refusal_of(error) from None


def _read_form(body: bytes) -> _Request:
    """Read a form; a body that names none of our fields is the question itself."""
    text = _text(body)
    if not _NAMES_A_FIELD.search(text):
        return _Request(user_content=text)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FORM_FIELDS)
    except UnicodeDecodeError:
        raise CallerError(Kind.INVALID_JSON, "body_not_utf8") from None
    except ValueError:
        raise _invalid("invalid_field", "user_content") from None  # Its own ampersands were not encoded.
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name not in FIELDS:
            continue
        if name in values:
            raise CallerError(Kind.INVALID_VALUE, "duplicate_field", param=name, parameters={"field": name})
        if value or name == "user_content":
            values[name] = _form_value(name, value)
    try:
        return msgspec.convert(values, _Request)
    except msgspec.ValidationError as error:
        raise document.refusal_of(error) from None


def _form_value(name: str, value: str) -> Any:  # noqa: ANN401 - a value of the request's types
    """Convert the fields that are no text; one that does not convert stays, and is refused by its type."""
    if name == "max_tokens" and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if name == "stream":
        return _FORM_TRUTHS.get(value.strip().lower(), value)
    if name in {"continuous", "continuous_dialogue"}:
        wrapped = document.parse(b'{"turns":' + value.encode() + b"}")
        return wrapped.value("turns")
    return value


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CallerError(Kind.INVALID_JSON, "body_not_utf8") from None


# --- What it gets back ------------------------------------------------------------------------------------------------


def encode_answer(text: str, model: str, usage: Usage | None, dialogue: tuple[Message, ...]) -> bytes:
    """Write the success object; `usage` is null when the provider did not count."""
    return msgspec.json.encode(
        {
            "code": 200,
            "msg": "success",
            "data": {
                "response": text,
                "model": model,
                "usage": usage and {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
            },
            "current_response": text,
            "result": (*dialogue, Message("assistant", text)),
        }
    )


class PlainRelay(Relay):
    """Turns the chunks into the plain API's events: one for each piece of text, and the success object at the end."""

    __slots__ = ("_dialogue", "_model", "_texts")

    def __init__(self, model: str, dialogue: tuple[Message, ...]) -> None:
        """`model` is reported until the provider names the one that answers."""
        super().__init__()
        self._model = model
        self._dialogue = dialogue
        self._texts: list[str] = []

    def _pass_on(self, event: bytes, data: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        try:
            piece = openai_chat.read_piece(data)
        except UpstreamError:
            return b""  # Its text cannot be made out: it is skipped, as any broken event.
        self._model = piece.model or self._model
        if not piece.text:
            return b""
        self._texts.append(piece.text)
        return sse.event(msgspec.json.encode({"delta": piece.text}))

    def _last(self) -> bytes:
        return sse.event(encode_answer("".join(self._texts), self._model, self.usage, self._dialogue))

    def _comment(self, event: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return b""


# --- Errors -----------------------------------------------------------------------------------------------------------

_STATUSES = {
    Kind.INVALID_JSON: 400,
    Kind.INVALID_VALUE: 400,
    Kind.MISSING_KEY: 400,
    Kind.MODEL_NOT_FOUND: 400,
    Kind.INVALID_KEY: 401,
    Kind.PERMISSION_DENIED: 403,
    Kind.NOT_FOUND: 404,
    Kind.METHOD_NOT_ALLOWED: 405,
    Kind.REQUEST_TIMEOUT: 408,
    Kind.REQUEST_TOO_LARGE: 413,
    Kind.UNSUPPORTED_MEDIA_TYPE: 415,
    Kind.RATE_LIMIT_EXCEEDED: 429,
    Kind.INSUFFICIENT_QUOTA: 429,
    Kind.INTERNAL_ERROR: 500,
    Kind.UPSTREAM_ERROR: 500,
    Kind.OVERLOADED: 500,
    Kind.UPSTREAM_TIMEOUT: 500,
}


class PlainDialect(sse.EventDialect):
    """The plain API, as the pipeline speaks it."""

    def __init__(self, default_model: str) -> None:
        """`default_model` is what callers get who name no model, or the retired one."""
        self._default_model = default_model

    def decode(self, body: bytes, content_type: str, parameter: str = "") -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body. Raises `CallerError`."""
        return decode_request(body, content_type, self._default_model)

    def at(self, protocol: Protocol) -> PlainDialect:  # noqa: ARG002 - a port's method
        """Return the dialect for upstreams of a protocol: all answers come as OpenAI's."""
        return self

    def relay(self, asked: Asked) -> PlainRelay:
        """Return what turns the upstream's stream into the caller's."""
        return PlainRelay(asked.chat.asked_model, asked.dialogue)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""
        answer = openai_chat.read_answer(body)
        model = answer.model or asked.chat.asked_model
        return encode_answer(answer.text, model, answer.usage, asked.dialogue), answer.usage

    def status_of(self, kind: Kind) -> int:
        """Return the HTTP status for a situation; it is the body's `code` too."""
        return _STATUSES[kind]

    def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:
        """Write an error's body; `message` is its text in the caller's language."""
        return msgspec.json.encode(
            {
                "code": _STATUSES[error.kind],
                "msg": "failed",
                "data": {"response": message},
                "error": {"code": error.kind.value, "request_id": request_id},
            }
        )

    def encode_error_event(
        self,
        error: GateError,
        message: str,
        request_id: str,
        relay: Relay | None = None,  # noqa: ARG002 - a port's method
    ) -> bytes:
        """Write the event that ends a stream which broke."""
        return sse.event(self.encode_error(error, message, request_id))
