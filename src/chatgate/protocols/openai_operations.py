"""OpenAI's smaller operations: legacy completions, embeddings, moderations. Bytes pass through.

They go to upstreams that speak OpenAI's protocol; only embeddings can be had elsewhere (`openai_embeddings`). Limits,
budgets, routing and the record are a chat's; what differs is where they go, what an answer looks like, and what it says
that it cost.
Sources (read 2026-11-23): https://platform.openai.com/docs/api-reference/completions,
https://platform.openai.com/docs/api-reference/embeddings, https://platform.openai.com/docs/api-reference/moderations.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from chatgate.protocols import document as documents
from chatgate.protocols import openai_chat
from chatgate.protocols.openai_dialect import OpenAIDialect
from chatgate.protocols.openai_stream import OpenAIRelay
from chatgate.protocols.resume import Transcript
from chatgate.vocabulary.chat import Asked, ChatCall, Usage
from chatgate.vocabulary.document import Document
from chatgate.vocabulary.errors import CallerError, Kind, Remedy, UpstreamError
from chatgate.vocabulary.exchange import Surface
from chatgate.vocabulary.upstreams import Protocol, Target

DEFAULT_MODERATION_MODEL = "omni-moderation-latest"
DEFAULT_COMPLETION_TOKENS = 16
"""So many a completion has at most when its caller names no number."""

_NULL = Raw(b"null")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Operation(Struct, frozen=True):
    """One of them. `field` is what a whole answer cannot be without, `model` who answers when nobody is named."""

    protocol: Protocol
    surface: Surface
    path: str
    field: str
    required: str
    streams: bool = False
    model: str | None = None


OPERATIONS = (
    Operation("openai_completions", Surface.COMPLETIONS, "/completions", "choices", "prompt", streams=True),
    Operation("openai_embeddings", Surface.EMBEDDINGS, "/embeddings", "data", "input"),
    Operation(
        "openai_moderations", Surface.MODERATIONS, "/moderations", "results", "input", model=DEFAULT_MODERATION_MODEL
    ),
)

_Positive = Annotated[int, Meta(ge=1)]


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Request(Struct):
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None


class _Answer(Struct):
    usage: Raw = _NULL
    error: Raw = _NULL


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class OperationCall:
    """What a caller asked."""

    __slots__ = ("_document", "_wants_usage", "protocol")

    def __init__(self, document: Document, protocol: Protocol, *, asks_usage: bool) -> None:
        """`asks_usage` says that it is a stream, whose count has to be asked for."""
        self.protocol: Protocol = protocol
        self._document = document
        self._wants_usage = asks_usage

    def encode_own(self, model: str | None) -> bytes:
        """Return the body as it came, but for the model's name and, in a stream, the request for usage."""
        changes = {} if model is None else {"model": msgspec.json.encode(model)}
        if self._wants_usage:
            options = self._document.value("stream_options") or {}
            changes["stream_options"] = msgspec.json.encode({**options, "include_usage": True})
        return self._document.splice(changes) if changes else self._document.body

    def encode_chat(self, target: Target) -> tuple[bytes, tuple[str, ...]]:
        """Refuse: no chat is that. Another target may do it."""
        error = CallerError(
            Kind.INVALID_VALUE,
            "operation_not_offered",
            param="model",
            parameters={"upstream": target.upstream.name},
        )
        error.remedy = Remedy.ANOTHER_TARGET
        raise error


class CompletionRelay(OpenAIRelay):
    """Passes the chunks of a legacy completion on; no other target can go on with them."""

    __slots__ = ()

    def __init__(self, *, hide_usage: bool) -> None:
        """See `OpenAIRelay`."""
        super().__init__(hide_usage=hide_usage)
        self.transcript = _Unrepeatable()
        self._note = self.transcript.note

    def _pass_on(self, event: bytes, data: bytes) -> bytes:
        self.begun = True
        return super()._pass_on(event, data)


class _Unrepeatable(Transcript):
    """What was said is no chat."""

    @property
    def is_resumable(self) -> bool:
        return False


class OperationDialect(OpenAIDialect):
    """One operation, as the pipeline speaks it. Errors are those of OpenAI's chat."""

    def __init__(self, operation: Operation) -> None:
        """Speak for `operation`."""
        self._operation = operation

    def decode(self, body: bytes, content_type: str, parameter: str = "") -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body, whatever it was declared to be, except for the forms that are never JSON."""
        operation = self._operation
        if content_type.lower().startswith("multipart/"):
            raise CallerError(
                Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters={"content_type": content_type[:100]}
            )
        checked = documents.parse(body)
        try:
            request = _decode_request(checked.body)
        except msgspec.ValidationError as error:
            raise documents.refusal_of(error) from None
        model = request.model or operation.model
        if model is None or operation.required not in checked.fields:
            field = "model" if model is None else operation.required
            raise CallerError(Kind.INVALID_VALUE, "missing_field", param=field, parameters={"field": field})
        openai_chat.check_model_name(model)
        stream = operation.streams and request.stream is True
        wants_usage = request.stream_options is not None and request.stream_options.include_usage is True
        most = (
            (DEFAULT_COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens)
            if operation.streams
            else 0
        )
        choices = max(request.n or 1, request.best_of or 1) if operation.streams else 1
        chat = ChatCall(model, stream, wants_usage=wants_usage, max_tokens=most, choices=choices)
        return Asked(chat, foreign=OperationCall(checked, operation.protocol, asks_usage=stream and not wants_usage))

    def relay(self, asked: Asked) -> OpenAIRelay:
        """Return what passes the upstream's stream on to the caller."""
        return CompletionRelay(hide_usage=not asked.chat.wants_usage)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:  # noqa: ARG002 - a port's method
        """Pass an upstream's whole answer on as it is, once it is seen to be one. Raises `UpstreamError`."""
        try:
            fields = msgspec.json.decode(body, type=dict[str, Raw])
            answer = _decode_answer(body)
        except _UNREADABLE:
            raise UpstreamError("upstream_bad_answer") from None
        openai_chat.check_error(answer.error, body)
        if not bytes(fields.get(self._operation.field, _NULL)).startswith(b"["):
            raise UpstreamError("upstream_bad_answer")
        return body, self._usage(answer.usage)

    def _usage(self, told: Raw) -> Usage | None:
        """Return what was counted: of embeddings only what went in is, and a moderation costs nothing."""
        if self._operation.streams:
            return openai_chat.read_usage(told)
        counted: Any = msgspec.json.decode(told)
        if not isinstance(counted, dict):
            counted = {"prompt_tokens": 0} if self._operation.model else {}
        return openai_chat.read_usage(Raw(msgspec.json.encode({"completion_tokens": 0, **counted})))
