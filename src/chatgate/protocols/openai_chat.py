"""OpenAI chat completions: what a caller asks, what is sent upstream, what comes back.

Between an OpenAI caller and an OpenAI-compatible upstream the bytes pass through; only the fields that decide
something are read. The same readers serve the plain API, whose upstreams speak this protocol too.
Source: https://platform.openai.com/docs/api-reference/chat (read 2026-11-23).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from chatgate.protocols import document, openai_errors, sse
from chatgate.protocols.openai_messages import AnyMessage, PlainMessage
from chatgate.vocabulary.chat import MAX_TOKENS, ChatCall, OddUsage, Turn, Usage
from chatgate.vocabulary.document import Document
from chatgate.vocabulary.errors import CallerError, Kind, Phrase, UpstreamError
from chatgate.vocabulary.upstreams import Target, Upstream

MAX_MODEL_NAME = 256
"""Longest model name that is taken; the longest published ones have about 100 characters."""

_LEAST, _MOST = -(2**63), 2**63 - 1
_Positive = Annotated[int, Meta(ge=1, le=_MOST)]
_PlainNumber = Annotated[float, Meta(ge=-1e15, le=1e15)]
"""A number that is within range even if it is a whole one."""

_NULL = Raw(b"null")


_Message = TypeVar("_Message")
_Number = TypeVar("_Number")


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Request(Struct, Generic[_Message, _Number]):
    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: _Number | None = None
    top_p: _Number | None = None
    presence_penalty: _Number | None = None
    frequency_penalty: _Number | None = None
    seed: Annotated[int, Meta(ge=_LEAST, le=_MOST)] | None = None
    stop: str | list[str] | None = None
    user: str | None = None


class _Delta(Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Counts(Struct):
    prompt_tokens: int | float | None = None
    completion_tokens: int | float | None = None


class _Answer(Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: Raw = _NULL
    error: Raw = _NULL


class _Object(Struct, gc=False):
    """Any object."""


class _GoodAnswer(Struct, gc=False):
    """An answer that is passed on as it is: with choices, without an error, and its counts are counts."""

    choices: Annotated[list[_Object], Meta(min_length=1)]
    usage: Usage | None = None
    error: None = None


class _Outline(Struct):
    """What is looked at in any other answer."""

    choices: list[_Object] | None = None
    usage: Raw = _NULL
    error: Raw = _NULL


class _WrittenChoice(Struct):
    message: Any = None


class _WrittenCandidate(Struct):
    content: Any = None


class _Written(Struct):
    choices: list[_WrittenChoice] = []
    candidates: list[_WrittenCandidate] = []
    content: Any = None


_decode_plain = msgspec.json.Decoder(_Request[PlainMessage, _PlainNumber]).decode
_decode_request = msgspec.json.Decoder(_Request[AnyMessage, float]).decode
_decode_turns = msgspec.json.Decoder(list[AnyMessage]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_good_answer = msgspec.json.Decoder(_GoodAnswer).decode
_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_written = msgspec.json.Decoder(_Written).decode
_decode_usage = msgspec.json.Decoder(Usage).decode
_decode_counts = msgspec.json.Decoder(_Counts).decode

_TEXT_LIST_OR_NULL = frozenset(b'"[n')
_PLAIN_FIELDS = frozenset(_Request.__struct_fields__) - {"stream_options"}
_NUMBERS = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})
_USAGE_WANTED = b'"stream_options":{"include_usage":true}'
_NO_ERRORS = (b"{}", b'""')
_NOT_WRITTEN = frozenset({"id", "role", "type", "thoughtSignature", "inlineData"})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


# --- What a caller asks -----------------------------------------------------------------------------------------------


def decode_request(body: bytes) -> ChatCall:
    """Read a caller's body.

    Raises `CallerError` of kind `INVALID_JSON` or `INVALID_VALUE`, the latter with the path of the field.
    """
    checked = document.parse(body, left_out=_PLAIN_FIELDS)
    request: _Request[PlainMessage, float] | _Request[AnyMessage, float]
    try:
        request = _decode_plain(checked.body)
    except msgspec.ValidationError:
        # Messages have more fields, or something is wrong; the usual way tells.
        request = _decode_closely(checked)
    else:
        # A number could be too long only where there is more than messages, which have none.
        if len(body) - len(checked.fields["messages"]) > document.MAX_NUMBER_CHARACTERS:
            _check(checked, _NUMBERS)
    model, options = request.model, request.stream_options
    check_model_name(model)
    return ChatCall(
        model,
        request.stream is True,
        wants_usage=options is not None and options.include_usage is True,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        document=checked,
        choices=request.n or 1,
    )


def _check(checked: Document, names: frozenset[str]) -> None:
    """Look into fields that may hold more than plain values."""
    document.check([raw for name, raw in checked.fields.items() if name in names], depth=2)


def _decode_closely(checked: Document) -> _Request[AnyMessage, float]:
    """Read a body with messages of any kind, or refuse it with the path of what is wrong."""
    _check(checked, _PLAIN_FIELDS)
    try:
        request = _decode_request(checked.body)
    except msgspec.ValidationError as error:
        raise document.refusal_of(error) from None
    for index, message in enumerate(request.messages):
        if memoryview(message.content)[0] not in _TEXT_LIST_OR_NULL:
            field = f"messages[{index}].content"
            raise CallerError(
                Kind.INVALID_VALUE,
                "wrong_type",
                param=field,
                parameters={"field": field, "expected": Phrase("type_string")},
            )
    return request


def turns_of(asked: Document) -> Sequence[Turn]:
    """Return the messages of a caller's body."""
    return _decode_turns(asked.fields["messages"])


@lru_cache(maxsize=1024)
def check_model_name(model: str) -> None:
    """Refuse a name that no provider could have given to a model; names that were taken are remembered."""
    if not model or len(model) > MAX_MODEL_NAME or not model.isprintable() or model.strip() != model:
        raise CallerError(Kind.INVALID_VALUE, "invalid_field", param="model", parameters={"field": "model"})


# --- What is sent upstream --------------------------------------------------------------------------------------------


def encode_request(chat: ChatCall, target: Target) -> bytes:
    """Write the body for a target.

    A caller's own body is kept but for the model's name, parameters that this provider does not know and, in a
    stream, the request for usage.
    """
    model = target.sent_model or chat.asked_model
    upstream, asked = target.upstream, chat.document
    if asked is None:
        return _encode_own(chat, model, upstream)
    if upstream.unknown or not upstream.takes_stream_options:
        asked = _in_words_of(upstream, asked)
    elif model == chat.asked_model:
        if chat.wants_usage or not chat.stream:
            return asked.body
        if "stream_options" not in asked.fields:
            return asked.extended(_USAGE_WANTED)
    changes = {}
    if model != chat.asked_model:
        changes["model"] = msgspec.json.encode(model)
    if chat.stream and not chat.wants_usage and upstream.takes_stream_options:
        options = asked.value("stream_options") or {}
        changes["stream_options"] = msgspec.json.encode({**options, "include_usage": True})
    return asked.splice(changes) if changes else asked.body


def _encode_own(chat: ChatCall, model: str, upstream: Upstream) -> bytes:
    """Write a body of the gateway's own making, in the provider's words."""
    body: dict[str, Any] = {"model": model, "messages": chat.messages, **upstream.additions.get(model, {})}
    if chat.max_tokens is not None:
        body[upstream.renamed.get("max_tokens", "max_tokens")] = chat.max_tokens
    if chat.stream:
        body["stream"] = True
        if upstream.takes_stream_options:
            body["stream_options"] = {"include_usage": True}
    return msgspec.json.encode(body)


def _in_words_of(upstream: Upstream, asked: Document) -> Document:
    """Return a caller's body with the parameters that this provider knows, and without `stream_options` if it must be.

    Where a parameter stands there under both names, the value is kept that the gateway reads.
    """
    fields = dict(asked.fields)
    for name, other in upstream.unknown.items():
        value = fields.pop(name, _NULL)
        if bytes(value) != b"null":
            fields[other] = value
    if not upstream.takes_stream_options:
        fields.pop("stream_options", None)
    return asked if fields.keys() == asked.fields.keys() else Document(msgspec.json.encode(fields), fields)


# --- What comes back --------------------------------------------------------------------------------------------------


class Piece(Struct, frozen=True):
    """One chunk of a stream: its text, and what it says about the end."""

    text: str = ""
    model: str | None = None
    finished: bool = False
    usage: Usage | None = None


class WholeAnswer(Struct, frozen=True):
    """A whole answer's first choice. `model` is what the provider says answered, None when it does not say."""

    text: str
    model: str | None
    usage: Usage | None


def check_answer(body: bytes) -> Usage | None:
    """Check that a body is an answer and not an error or something else; return its usage.

    Raises `UpstreamError`.
    """
    try:
        return _decode_good_answer(body).usage
    except _UNREADABLE:
        return _check_closely(body)


def _check_closely(body: bytes) -> Usage | None:
    try:
        outline = _decode_outline(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    check_error(outline.error, body)
    if not outline.choices:
        raise refusal_in(body) or UpstreamError("upstream_bad_answer")
    return read_usage(outline.usage)


def read_answer(body: bytes) -> WholeAnswer:
    """Read a whole answer's text. Raises `UpstreamError`."""
    usage = check_answer(body)
    try:
        answer = _decode_answer(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    if not answer.choices or answer.choices[0].message is None:
        raise UpstreamError("upstream_bad_answer")
    message = answer.choices[0].message
    return WholeAnswer(message.content or message.refusal or "", answer.model, usage)


def written_bytes(body: bytes) -> int:
    """Return how much text a model wrote in a whole answer, tool calls included, for a count that nobody gave.

    It may be Anthropic's or Gemini's, which pass through in shapes of their own.
    """
    try:
        written = _decode_written(body)
    except _UNREADABLE:
        return 0
    said = [*(choice.message for choice in written.choices), *(each.content for each in written.candidates)]
    return sum(map(_written, said)) + _written(written.content)


def _written(value: Any) -> int:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, dict):
        return sum(_written(each) for name, each in value.items() if name not in _NOT_WRITTEN)
    return sum(map(_written, value)) if isinstance(value, list) else 0


def read_piece(data: bytes) -> Piece:
    """Read the data of one event of a stream.

    Raises `UpstreamError` when the event is an error, or is no chunk at all.
    """
    try:
        chunk = _decode_answer(data)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    check_error(chunk.error, data)
    usage = read_usage(chunk.usage)
    if not chunk.choices:
        return Piece(model=chunk.model, usage=usage)
    choice = chunk.choices[0]
    delta = choice.delta or _Delta()
    return Piece(delta.content or delta.refusal or "", chunk.model, bool(choice.finish_reason), usage)


def last_event(tail: bytes) -> bytes:
    """Return the event in which a stream ended without a blank line, with one; b"" when it is no whole event."""
    data = sse.data_of(tail)
    if data is None:
        return b""
    try:
        if data.strip() != b"[DONE]":
            msgspec.json.decode(data, type=Raw)
    except _UNREADABLE:
        return b""
    return tail.rstrip(b"\r\n") + b"\n\n"


def check_error(error: Raw, data: bytes) -> None:
    """Raise what an answer says went wrong; some servers name the field in every answer, and leave it empty."""
    raw = bytes(error)
    if raw[:1] in (b"{", b'"') and raw not in _NO_ERRORS:
        raise _told(openai_errors.read_error(data))


def refusal_in(data: bytes) -> UpstreamError | None:
    """Return what an answer without choices says went wrong in a shape of the provider's own, None when nothing did."""
    said = openai_errors.read_error(data)
    return _told(said) if said.code and said.message else None


def _told(said: openai_errors.ProviderError) -> UpstreamError:
    event = UpstreamError("upstream_error_event", provider_message=said.message)
    event.provider_code = said.code
    return event


def read_usage(raw: bytes | Raw) -> Usage | None:
    """Return the provider's counts when its sums can be counts: present, whole and in a sane range."""
    try:
        return _decode_usage(raw)
    except _UNREADABLE:
        return _read_odd_usage(bytes(raw))


def _read_odd_usage(raw: bytes) -> Usage | None:
    try:
        counts = _decode_counts(raw)
    except _UNREADABLE:
        return None
    sent, answered = counts.prompt_tokens, counts.completion_tokens
    if sent is None or answered is None or sent != int(sent) or answered != int(answered):
        return None
    if not (0 <= sent <= MAX_TOKENS and 0 <= answered <= MAX_TOKENS):
        return None
    return OddUsage(int(sent), int(answered), raw=raw)
