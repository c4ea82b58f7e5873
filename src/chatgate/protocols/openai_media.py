"""OpenAI's images and audio: pictures, speech, transcripts and translations. Bytes pass through, both ways.

They go to upstreams that speak OpenAI's protocol. What a caller sends is JSON, or a form with files that passes on as
it arrives; what comes back is JSON, text, sound or events, and passes with the type that the upstream gave it. Limits,
budgets, routing and the record are a chat's.
Sources (read 2026-11-23): https://platform.openai.com/docs/api-reference/images,
https://platform.openai.com/docs/api-reference/audio, and the types of the PyPI package openai 3.54.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from chatgate.protocols import document as documents
from chatgate.protocols import openai_chat, sse
from chatgate.protocols.forms import Form
from chatgate.protocols.openai_dialect import OpenAIDialect
from chatgate.protocols.openai_operations import OperationCall
from chatgate.protocols.openai_stream import Relay
from chatgate.protocols.resume import Transcript
from chatgate.protocols.translation import Written
from chatgate.vocabulary.chat import Asked, ChatCall, Usage
from chatgate.vocabulary.document import Document
from chatgate.vocabulary.errors import CallerError, Kind, UpstreamError
from chatgate.vocabulary.exchange import OutboundRequest, Surface, UploadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.vocabulary.errors import GateError
    from chatgate.vocabulary.exchange import Pieces
    from chatgate.vocabulary.upstreams import Protocol, Target

MAX_EVENT_BYTES: Final = 32 << 20
"""The longest event: it may hold a picture."""

_MAX_PICTURES = 16
_USAGE_BYTES = 16 << 10
"""So much of the end of an answer is kept: its usage is the last that it says."""

_FINAL_EVENTS = frozenset(
    {"image_generation.completed", "image_edit.completed", "transcript.text.done", "speech.audio.done"}
)
_TRUE = frozenset({"true", "True", "1"})
_JSON_LINE = b"Content-Type: application/json\r\n"
_NULL = Raw(b"null")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class MediaOperation(Struct, frozen=True):
    """One of them.

    `field` is what a whole answer cannot be without, "" where it may be no JSON. `required` is what a JSON request
    cannot be without, "" where only forms are taken, and `takes_form` says whether they are. `is_sound` says that it
    answers with sound, unless events are asked for.
    """

    protocol: Protocol
    surface: Surface
    path: str
    field: str = ""
    required: str = ""
    takes_form: bool = True
    is_sound: bool = False


MEDIA = (
    MediaOperation("openai_images", Surface.IMAGES, "/images/generations", "data", "prompt", takes_form=False),
    MediaOperation("openai_image_edits", Surface.IMAGE_EDITS, "/images/edits", "data", "prompt"),
    MediaOperation("openai_image_variations", Surface.IMAGE_VARIATIONS, "/images/variations", "data"),
    MediaOperation("openai_speech", Surface.SPEECH, "/audio/speech", required="input", takes_form=False, is_sound=True),
    MediaOperation("openai_transcriptions", Surface.TRANSCRIPTIONS, "/audio/transcriptions"),
    MediaOperation("openai_translations", Surface.TRANSLATIONS, "/audio/translations"),
)


class _Request(Struct):
    model: str | None = None
    stream: bool | None = None
    stream_format: str | None = None
    n: Annotated[int, Meta(ge=1, le=_MAX_PICTURES)] | None = None


class _Counts(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: dict[str, Any] | None = None


class _Event(Struct):
    type: str = ""
    usage: Raw = _NULL
    error: Raw = _NULL


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_counts = msgspec.json.Decoder(_Counts).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class MediaCall(OperationCall):
    """What a caller asked in JSON. `has_events` says that events are to come back."""

    __slots__ = ("has_events",)

    def __init__(self, document: Document, protocol: Protocol, *, has_events: bool) -> None:
        """Take the body."""
        super().__init__(document, protocol, asks_usage=False)
        self.has_events = has_events


class FormCall(OperationCall):
    """What a caller asked in a form."""

    __slots__ = ("form",)

    def __init__(self, form: Form, protocol: Protocol) -> None:
        """Take the form."""
        super().__init__(_NO_DOCUMENT, protocol, asks_usage=False)
        self.form = form

    @property
    def has_events(self) -> bool:
        """Tell whether events are to come back, as far as the form has come."""
        return self.form.watch.values.get("stream", b"").decode("latin-1") in _TRUE

    @property
    def may_repeat(self) -> bool:
        """Tell whether it can be sent another time."""
        return self.form.source.may_open


_NO_DOCUMENT = Document(b"", {})


class WrittenForm(Written, frozen=True):
    """A form as an upstream is sent it; `length_bytes` is None when that is not known."""

    pieces: Pieces | None = None
    content_type: str = ""
    length_bytes: int | None = None

    def onto(self, request: OutboundRequest) -> OutboundRequest:
        """Return a request for the form."""
        head, _, _ = request.head.rpartition(b"Content-Length:")
        head = head.replace(_JSON_LINE, b"Content-Type: %b\r\n" % self.content_type.encode("latin-1"), 1)
        framing = (
            b"Transfer-Encoding: chunked" if self.length_bytes is None else b"Content-Length: %d" % self.length_bytes
        )
        return UploadRequest(
            request.origin,
            b"%b%b\r\n\r\n" % (head, framing),
            b"",
            request.timeouts,
            is_native=True,
            pieces=self.pieces,
        )


class MediaWriting:
    """Puts these calls to upstreams that speak OpenAI's protocol."""

    def __init__(self, path: str) -> None:
        """`path` is where such calls go, below the base URL."""
        self._path = path

    def write(
        self,
        asked: Asked,
        headers: Mapping[bytes, bytes],  # noqa: ARG002 - a port's method
        target: Target,
        chat_body: bytes | None,  # noqa: ARG002 - the same: these are never gone on with
        *,
        passes: bool,  # noqa: ARG002 - the same
    ) -> Written:
        """Put a call to a target. Raises `UpstreamError` when it cannot be sent a second time."""
        call = asked.foreign
        assert call is not None  # noqa: S101 - narrows for the type checker; only these come here
        if not isinstance(call, FormCall):
            body = call.encode_own(target.sent_model)
            return Written(body, is_native=True, path=self._path, passes_type=True)
        pieces, length_bytes = call.form.pieces(target.sent_model)
        return WrittenForm(
            b"",
            is_native=True,
            path=self._path,
            passes_type=True,
            pieces=pieces,
            content_type=call.form.content_type,
            length_bytes=length_bytes,
        )


class MediaDialect(OpenAIDialect):
    """One operation, as the pipeline speaks it. Errors are those of OpenAI's chat."""

    def __init__(self, operation: MediaOperation) -> None:
        """Speak for `operation`."""
        self._operation = operation
        if operation.takes_form or operation.is_sound:
            self.keep_alive = b""  # What is answered may have no comments.

    def decode(self, body: bytes, content_type: str, parameter: str = "") -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body. Raises `GateError`."""
        operation = self._operation
        is_form = content_type.lower().startswith("multipart/form-data")
        if is_form and operation.takes_form:
            return self._decode_form(body if isinstance(body, Form) else Form.whole(body, content_type))
        if is_form or not operation.required or content_type.lower().startswith("multipart/"):
            raise CallerError(
                Kind.UNSUPPORTED_MEDIA_TYPE,
                "form_expected" if not operation.required else "unsupported_media_type",
                parameters={"content_type": content_type[:100]},
            )
        checked = documents.parse(body)
        try:
            request = _decode_request(checked.body)
        except msgspec.ValidationError as error:
            raise documents.refusal_of(error) from None
        for field in ("model", operation.required):
            if checked.fields.get(field, _NULL) == _NULL:
                raise _missing(field)
        model = request.model or ""
        openai_chat.check_model_name(model)
        has_events = request.stream_format == "sse" if operation.is_sound else request.stream is True
        chat = ChatCall(
            model,
            has_events or operation.is_sound,
            choices=request.n or 1,
            is_counted=has_events or not operation.is_sound,
        )
        return Asked(chat, foreign=MediaCall(checked, operation.protocol, has_events=has_events))

    def _decode_form(self, form: Form) -> Asked:
        if form.error is not None:
            raise form.error
        model, choices = form.value("model"), form.value("n")
        if model is None:
            raise _missing("model")
        openai_chat.check_model_name(model)
        if choices is not None and not (choices.isdecimal() and 1 <= int(choices[:4]) <= _MAX_PICTURES):
            raise CallerError(Kind.INVALID_VALUE, "invalid_field", param="n", parameters={"field": "n"})
        call = FormCall(form, self._operation.protocol)
        # As long as the form has not ended, it may still ask for events: then any answer passes as it comes.
        streams = call.has_events or not form.watch.is_complete
        return Asked(ChatCall(model, streams, choices=int(choices or 1)), foreign=call)

    def relay(self, asked: Asked) -> Relay:
        """Return what passes the upstream's answer on to the caller as it comes."""
        call = asked.foreign
        assert isinstance(call, MediaCall | FormCall)  # noqa: S101 - narrows for the type checker; `decode` made it
        return MediaRelay(call)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:  # noqa: ARG002 - a port's method
        """Pass an upstream's whole answer on as it is, once it is seen to be one. Raises `UpstreamError`."""
        if body.lstrip()[:1] != b"{":
            if self._operation.field or not body:
                raise UpstreamError("upstream_bad_answer")
            return body, None  # A transcript may come as text.
        try:
            fields = msgspec.json.decode(body, type=dict[str, Raw])
        except _UNREADABLE:
            raise UpstreamError("upstream_bad_answer") from None
        openai_chat.check_error(fields.get("error", _NULL), body)
        if self._operation.field and not bytes(fields.get(self._operation.field, _NULL)).startswith(b"["):
            raise UpstreamError("upstream_bad_answer")
        return body, read_usage(fields.get("usage", _NULL))

    def encode_error_event(self, error: GateError, message: str, request_id: str, relay: Relay | None = None) -> bytes:
        """Write the event that ends a stream which broke; b"" where no event can stand: then the connection is cut."""
        if isinstance(relay, MediaRelay) and not relay.has_events:
            return b""
        return super().encode_error_event(error, message, request_id, relay)


class MediaRelay(Relay):
    """Passes an answer on as it comes: events whole, anything else byte by byte.

    `has_events` says which it is; it is known with the first bytes.
    """

    __slots__ = ("_call", "_end", "has_events")

    def __init__(self, call: MediaCall | FormCall) -> None:
        """`call` tells whether events were asked for."""
        super().__init__()
        self._splitter = sse.EventSplitter(MAX_EVENT_BYTES)
        self._call = call
        self._end = b""
        self.has_events = False
        self.transcript = _Unrepeatable()

    def feed(self, data: bytes) -> bytes:
        """Return what the caller gets of this."""
        if not self.begun:
            # Models that cannot stream answer in JSON all the same.
            self.has_events = self._call.has_events and data.lstrip()[:1] not in (b"{", b"")
        if self.has_events:
            return super().feed(data)
        self.heard = bool(data)
        self.begun = self.begun or self.heard
        self._end = (self._end + data)[-_USAGE_BYTES:]
        return data

    def end(self) -> bytes:
        """Return what is still to be passed on at the upstream's regular end of body."""
        if self.has_events:
            return super().end()
        self.done = self.begun
        self.usage = _usage_at_end(self._end)
        return b""

    def forget_tail(self) -> None:
        """Drop the beginning of an event: the rest of it will not come."""
        self._splitter = sse.EventSplitter(MAX_EVENT_BYTES)
        self.error = None

    def _take(self, event: bytes, data: bytes | None) -> bytes:
        if not data:
            return event
        self.heard = self.begun = True
        if data.strip() == b"[DONE]":
            self.done = True
            return event
        try:
            said = _decode_event(data)
        except _UNREADABLE:
            return event
        openai_chat.check_error(said.error, data)
        if said.type in _FINAL_EVENTS:
            self.finished = True
            self.usage = read_usage(said.usage) or self.usage
        return event

    def _last(self) -> bytes:
        return b""


class _Unrepeatable(Transcript):
    """What was said is no chat."""

    @property
    def is_resumable(self) -> bool:
        return False


def read_usage(told: Raw) -> Usage | None:
    """Return what was counted, as a chat tells it; None where it was not tokens that were counted."""
    try:
        counts = _decode_counts(told)
    except _UNREADABLE:
        return None
    if counts.input_tokens is None or counts.output_tokens is None:
        return None
    said: dict[str, Any] = {"prompt_tokens": counts.input_tokens, "completion_tokens": counts.output_tokens}
    if heard := (counts.input_token_details or {}).get("audio_tokens"):
        said["prompt_tokens_details"] = {"audio_tokens": heard}
    return openai_chat.read_usage(Raw(msgspec.json.encode(said)))


def _usage_at_end(end: bytes) -> Usage | None:
    """Return the usage that the end of a JSON answer tells, None when it tells none there."""
    at = end.rfind(b'"usage"')
    if at < 0 or not end.rstrip().endswith(b"}"):
        return None
    try:
        return read_usage(msgspec.json.decode(b"{" + end[at:].rstrip(), type=dict[str, Raw])["usage"])
    except (*_UNREADABLE, KeyError):
        return None


def _missing(field: str) -> CallerError:
    return CallerError(Kind.INVALID_VALUE, "missing_field", param=field, parameters={"field": field})
