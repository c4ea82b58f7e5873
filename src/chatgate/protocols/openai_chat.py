"""OpenAI chat completions: what a caller asks, what is sent upstream, what comes back.

Between an OpenAI caller and an OpenAI-compatible upstream the bytes pass through; only the fields that decide
something are read. The same readers serve the plain API, whose upstreams speak this protocol too.
Source: https://platform.openai.com/docs/api-reference/chat (read 2026-11-23).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from chatgate.protocols import document, openai_errors, sse
from chatgate.vocabulary.chat import Asked, ChatCall, Usage
from chatgate.vocabulary.errors import CallerError, GateError, Kind, Phrase, UpstreamError
from chatgate.vocabulary.upstreams import Target

MAX_MODEL_NAME = 256
"""Longest model name that is taken; the longest published ones have about 100 characters."""

MAX_TOKENS_COUNT = 10**8
"""A provider's count above this is no count."""

DONE = b"data: [DONE]\n\n"

_Positive = Annotated[int, Meta(ge=1)]


class _RequestMessage(Struct):
    role: str
    content: Raw = Raw(b"null")


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Request(Struct):
    model: str
    messages: Annotated[list[_RequestMessage], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
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
    usage: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


class _End(Struct):
    finish_reason: Any = None


class _Outline(Struct):
    """What is looked at in an answer or a chunk that is passed on as it is."""

    choices: list[_End] | None = None
    usage: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_counts = msgspec.json.Decoder(_Counts).decode

_JSON_BEGINNINGS = b'"[n'
_NO_ERRORS = (b"{}", b'""')
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


# --- What a caller asks -----------------------------------------------------------------------------------------------


def decode_request(body: bytes) -> ChatCall:
    """Read a caller's body.

    Raises `CallerError` of kind `INVALID_JSON` or `INVALID_VALUE`, the latter with the path of the field.
    """
    checked = document.parse(body)
    try:
        request = _decode_request(checked.body)
    except msgspec.ValidationError as error:
        raise document.refusal_of(error) from None
    check_model_name(request.model)
    for index, message in enumerate(request.messages):
        if memoryview(message.content)[0] not in _JSON_BEGINNINGS:
            field = f"messages[{index}].content"
            raise CallerError(
                Kind.INVALID_VALUE,
                "wrong_type",
                param=field,
                parameters={"field": field, "expected": Phrase("type_string")},
            )
    stream = request.stream is True
    wants_usage = request.stream_options is not None and request.stream_options.include_usage is True
    return ChatCall(request.model, stream, wants_usage=wants_usage, document=checked)


def check_model_name(model: str) -> None:
    """Refuse a name that no provider could have given to a model."""
    if not model or len(model) > MAX_MODEL_NAME or not model.isprintable() or model.strip() != model:
        raise CallerError(Kind.INVALID_VALUE, "invalid_field", param="model", parameters={"field": "model"})


# --- What is sent upstream --------------------------------------------------------------------------------------------


def encode_request(chat: ChatCall, target: Target) -> bytes:
    """Write the body for a target.

    A caller's own body is kept but for the model's name and, in a stream, the request for usage.
    """
    model = target.sent_model or chat.asked_model
    if chat.document is not None:
        changes = {}
        if model != chat.asked_model:
            changes["model"] = msgspec.json.encode(model)
        if chat.stream and not chat.wants_usage:
            options = chat.document.value("stream_options") or {}
            changes["stream_options"] = msgspec.json.encode({**options, "include_usage": True})
        return chat.document.splice(changes) if changes else chat.document.body
    upstream = target.upstream
    body: dict[str, Any] = {"model": model, "messages": chat.messages, **upstream.additions.get(model, {})}
    if chat.max_tokens is not None:
        body[upstream.renamed.get("max_tokens", "max_tokens")] = chat.max_tokens
    if chat.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


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
        outline = _decode_outline(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    _check_error(outline.error, body)
    if outline.choices is None:
        raise UpstreamError("upstream_bad_answer")
    return _read_usage(outline.usage)


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


def read_piece(data: bytes) -> Piece:
    """Read the data of one event of a stream.

    Raises `UpstreamError` when the event is an error, or is no chunk at all.
    """
    try:
        chunk = _decode_answer(data)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    _check_error(chunk.error, data)
    usage = _read_usage(chunk.usage)
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


class Relay:
    """Passes an upstream's stream on to an OpenAI caller, event by event and byte for byte, and watches it.

    After `feed` look at `done` (the end was passed on; nothing more will be) and at `error` (the stream broke before
    its end). `usage` is what the provider counted, once it has said so.
    """

    __slots__ = ("_finished", "_hide_usage", "_splitter", "done", "error", "usage")

    def __init__(self, *, hide_usage: bool) -> None:
        """`hide_usage` removes the extra usage chunk, for callers who did not ask for it."""
        self._hide_usage = hide_usage
        self._splitter = sse.EventSplitter()
        self._finished = False
        self.done = False
        self.error: UpstreamError | None = None
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """Return what can be passed on now: whole events only."""
        if self.done or self.error is not None:
            return b""
        if not self._splitter.tail and data.endswith(b"\n\n") and data.find(b"\r") < 0 and not _may_tell(data):
            return data
        out: list[bytes] = []
        try:
            for event in self._splitter.feed(data):
                if not self._take(event, out):
                    break
        except UpstreamError as error:
            self.error = error
        return out[0] if len(out) == 1 else b"".join(out)

    def end(self) -> bytes:
        """Return what is still to be passed on at the upstream's regular end of body.

        A stream whose answer had finished is completed with the end mark that it lacks; any other one was cut.
        """
        out: list[bytes] = []
        last = last_event(self._splitter.finish())
        try:
            if last and not self.done and self.error is None:
                self._take(last, out)
        except UpstreamError as error:
            self.error = error
        if not self.done and self.error is None:
            if self._finished:
                out.append(DONE)
                self.done = True
            else:
                self.error = UpstreamError("upstream_cut")
        return b"".join(out)

    def _take(self, event: bytes, out: list[bytes]) -> bool:
        """Look at one event and pass it on; False when nothing may follow it."""
        if _may_tell(event):
            data = sse.data_of(event) or b""
            if data.strip() == b"[DONE]":
                out.append(event)
                self.done = True
                return False
            try:
                outline = _decode_outline(data)
            except _UNREADABLE:
                outline = _Outline()
            _check_error(outline.error, data)
            if outline.choices:
                self._finished = self._finished or any(choice.finish_reason for choice in outline.choices)
            self.usage = _read_usage(outline.usage) or self.usage
            if self._hide_usage and outline.choices == [] and bytes(outline.usage) != b"null":
                return True
        out.append(event)
        return True


def _may_tell(events: bytes) -> bool:
    """Tell cheaply whether events are worth reading: most chunks name the telling fields only to say null."""
    return (
        events.find(b"[DONE]") >= 0
        or events.find(b'"error"') >= 0
        or _says(events, b'"finish_reason"', b'"finish_reason":null', b'"finish_reason": null')
        or _says(events, b'"usage"', b'"usage":null', b'"usage": null')
    )


def _says(events: bytes, field: bytes, null: bytes, spaced_null: bytes) -> bool:
    """Tell whether a field is there with a value, in any of the events."""
    named = events.count(field)
    return named > 0 and named != events.count(null) and named != events.count(null) + events.count(spaced_null)


def _check_error(error: Raw, data: bytes) -> None:
    """Raise what an answer says went wrong; some servers name the field in every answer, and leave it empty."""
    raw = bytes(error)
    if raw[:1] in (b"{", b'"') and raw not in _NO_ERRORS:
        raise UpstreamError("upstream_error_event", provider_message=openai_errors.message_of(data))


def _read_usage(raw: Raw) -> Usage | None:
    """Return the provider's counts when they can be counts: present, whole and in a sane range."""
    try:
        counts = _decode_counts(raw)
    except _UNREADABLE:
        return None
    sent, answered = counts.prompt_tokens, counts.completion_tokens
    if sent is None or answered is None or sent != int(sent) or answered != int(answered):
        return None
    if not (0 <= sent <= MAX_TOKENS_COUNT and 0 <= answered <= MAX_TOKENS_COUNT):
        return None
    return Usage(int(sent), int(answered))


class OpenAIDialect:
    """OpenAI chat, as the pipeline speaks it."""

    def decode(self, body: bytes, content_type: str) -> Asked:
        """Read a caller's body, whatever it was declared to be, except for the forms that are never JSON."""
        if content_type.lower().startswith("multipart/"):
            raise CallerError(
                Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters={"content_type": content_type[:100]}
            )
        return Asked(decode_request(body))

    def relay(self, asked: Asked) -> Relay:
        """Return what passes the upstream's stream on to the caller."""
        return Relay(hide_usage=not asked.chat.wants_usage)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:  # noqa: ARG002 - a port's method
        """Pass an upstream's whole answer on as it is, once it is seen to be one. Raises `UpstreamError`."""
        return body, check_answer(body)

    def status_of(self, kind: Kind) -> int:
        """Return the HTTP status for a situation."""
        return openai_errors.status_of(kind)

    def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:  # noqa: ARG002 - a port's method
        """Write an error's body; `message` is its text in the caller's language."""
        return openai_errors.encode_error(error, message)
