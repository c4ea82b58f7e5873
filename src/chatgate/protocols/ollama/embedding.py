"""Vectors as Ollama's callers ask for them: by OpenAI's embeddings, or as they are from upstreams that speak Ollama's.

Two ways of asking are understood: `/api/embed`, and its predecessor `/api/embeddings`, which takes one text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from chatgate.protocols import document as documents
from chatgate.protocols import openai_chat
from chatgate.protocols.ollama.answer import UNREADABLE, Times, error_of
from chatgate.protocols.ollama.call import known_name
from chatgate.protocols.ollama.dialect import OllamaDialect, refuse_form
from chatgate.protocols.openai_operations import OperationCall
from chatgate.protocols.translation import Written
from chatgate.vocabulary.chat import Asked, ChatCall, Usage
from chatgate.vocabulary.errors import CallerError, Kind, UpstreamError
from chatgate.vocabulary.upstreams import Protocol, Target

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chatgate.protocols.ollama.call import Clocks
    from chatgate.protocols.reading import Json
    from chatgate.vocabulary.document import Document

OPENAI_PATH = "/embeddings"
_PATHS: dict[Protocol, str] = {"ollama_embed": "/api/embed", "ollama_embeddings": "/api/embeddings"}
_HINTS = ("keep_alive", "options", "truncate")


class _Request(Struct):
    model: str


_decode = msgspec.json.Decoder(_Request).decode


class EmbedCall(OperationCall):
    """What a caller asked; see `OllamaCall`."""

    __slots__ = ("_whole", "began_at", "model")

    def __init__(self, document: Document, model: str, protocol: Protocol, began_at: float) -> None:
        """Take the body."""
        super().__init__(document, protocol, asks_usage=False)
        self._whole = document
        self.model = model
        self.began_at = began_at

    def to_openai(self, sent_model: str) -> Written:
        """Return the call for an upstream that speaks OpenAI's protocol."""
        field = "input" if self.protocol == "ollama_embed" else "prompt"
        body: Json = {"model": sent_model, "input": self._whole.value(field), "encoding_format": "float"}
        if self._whole.value("dimensions") is not None:
            body["dimensions"] = self._whole.value("dimensions")
        dropped = tuple(name for name in _HINTS if self._whole.value(name) not in (None, {}, True))
        return Written(msgspec.json.encode(body), dropped=dropped, is_native=True, path=OPENAI_PATH)


class EmbedWriting:
    """Puts these calls to upstreams of either protocol."""

    def write(
        self,
        asked: Asked,
        headers: Mapping[bytes, bytes],  # noqa: ARG002 - a port's method
        target: Target,
        chat_body: bytes | None,  # noqa: ARG002 - the same: these are never gone on with
        *,
        passes: bool,  # noqa: ARG002 - the same
    ) -> Written:
        """Put a call to a target."""
        call = asked.foreign
        assert isinstance(call, EmbedCall)  # noqa: S101 - narrows for the type checker; only these come here
        if target.upstream.protocol == "ollama":
            return Written(call.encode_own(target.sent_model), is_native=True, path=_PATHS[call.protocol])
        return call.to_openai(target.sent_model or asked.chat.asked_model)


class EmbedDialect(OllamaDialect):
    """Vectors, as the pipeline speaks of them."""

    def __init__(self, protocol: Protocol, known: Collection[str], clocks: Clocks) -> None:
        """`protocol` is which of the two ways of asking; `known` are the names of the gateway's models."""
        super().__init__(protocol, known, clocks)

    def at(self, protocol: Protocol) -> EmbedDialect:  # noqa: ARG002 - a port's method
        """Return itself: what an answer is shows in it."""
        return self

    def decode(self, body: bytes, content_type: str, parameter: str = "") -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body. Raises `CallerError`."""
        refuse_form(content_type)
        checked = documents.parse(body)
        try:
            model = _decode(checked.body).model
        except msgspec.ValidationError as error:
            raise documents.refusal_of(error) from None
        openai_chat.check_model_name(model)
        field = "input" if self._protocol == "ollama_embed" else "prompt"
        if checked.value(field) is None:
            raise CallerError(Kind.INVALID_VALUE, "missing_field", param=field, parameters={"field": field})
        call = EmbedCall(checked, model, self._protocol, self._clocks.monotonic())
        return Asked(ChatCall(known_name(model, self._known), stream=False, max_tokens=0), foreign=call)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""
        call = asked.foreign
        assert isinstance(call, EmbedCall)  # noqa: S101 - narrows for the type checker; `decode` made it
        try:
            answer = msgspec.json.decode(body, type=dict[str, Any])
        except UNREADABLE:
            raise UpstreamError("upstream_bad_answer") from None
        if error_of(answer) is not None:
            openai_chat.check_error(msgspec.Raw(msgspec.json.encode(answer["error"])), body)
        if "embeddings" in answer or "embedding" in answer:
            return body, _usage(answer.get("prompt_eval_count", 0 if self._protocol == "ollama_embeddings" else None))
        found = answer.get("data")
        usage = answer.get("usage")
        sent = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        try:
            vectors = [each["embedding"] for each in found] if isinstance(found, list) else []
        except (TypeError, KeyError):
            vectors = []
        if not vectors:
            raise UpstreamError("upstream_bad_answer")
        if self._protocol == "ollama_embeddings":
            return msgspec.json.encode({"embedding": vectors[0]}), _usage(sent)
        told: Json = {"model": call.model, "embeddings": vectors}
        told |= Times(call.began_at, None, self._clocks.monotonic()).fields()
        if isinstance(sent, int):
            told["prompt_eval_count"] = sent
        return msgspec.json.encode(told), _usage(sent)


def _usage(sent: object) -> Usage | None:
    """Return what was counted: only what goes in is."""
    if not isinstance(sent, int):
        return None
    return openai_chat.read_usage(msgspec.Raw(msgspec.json.encode({"prompt_tokens": sent, "completion_tokens": 0})))
