"""OpenAI's embeddings: passed through to upstreams that speak them, put to those that speak Ollama's or Gemini's.

Sources (read 2026-11-23): https://platform.openai.com/docs/api-reference/embeddings,
https://github.com/ollama/ollama/blob/main/docs/api.md, https://ai.google.dev/api/embeddings.
"""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from chatgate.protocols import openai_chat
from chatgate.protocols.openai_operations import OPERATIONS, OperationDialect
from chatgate.protocols.translation import Written
from chatgate.vocabulary.errors import CallerError, Kind, Remedy, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.protocols.reading import Json
    from chatgate.vocabulary.chat import Asked, Usage
    from chatgate.vocabulary.upstreams import Target

(OPERATION,) = (operation for operation in OPERATIONS if operation.protocol == "openai_embeddings")

_CARRIED = frozenset({"model", "input", "encoding_format", "dimensions"})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class EmbeddingWriting:
    """Puts these calls to upstreams of any protocol that has them."""

    def write(
        self,
        asked: Asked,
        headers: Mapping[bytes, bytes],  # noqa: ARG002 - a port's method
        target: Target,
        chat_body: bytes | None,  # noqa: ARG002 - the same: these are never gone on with
        *,
        passes: bool,  # noqa: ARG002 - the same
    ) -> Written:
        """Put a call to a target. Raises `CallerError` when it cannot be carried."""
        call, protocol = asked.foreign, target.upstream.protocol
        assert call is not None  # noqa: S101 - narrows for the type checker; only embeddings come here
        if protocol not in {"ollama", "gemini"}:
            return Written(call.encode_own(target.sent_model), is_native=True, path=OPERATION.path)
        body: Json = msgspec.json.decode(call.encode_own(None))
        model = target.sent_model or asked.chat.asked_model
        dropped = tuple(name for name, value in body.items() if name not in _CARRIED and value is not None)
        texts, size = _texts(body.get("input")), body.get("dimensions")
        if protocol == "ollama":
            request: Json = {"model": model, "input": texts} | ({"dimensions": size} if size is not None else {})
            return Written(msgspec.json.encode(request), dropped=dropped, is_native=True, path="/api/embed")
        name = model if "/" in model else f"models/{model}"
        wanted = {"outputDimensionality": size} if size is not None else {}
        requests = [{"model": name, "content": {"parts": [{"text": text}]}, **wanted} for text in texts]
        told = msgspec.json.encode({"requests": requests})
        return Written(told, dropped=dropped, is_native=True, path=f"/{name}:batchEmbedContents")


class EmbeddingDialect(OperationDialect):
    """Embeddings, as the pipeline speaks of them: OpenAI's own pass through, what an answer is shows in it."""

    def __init__(self) -> None:
        """Speak for the operation."""
        super().__init__(OPERATION)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""
        try:
            answer = msgspec.json.decode(body, type=dict[str, Any])
        except _UNREADABLE:
            raise UpstreamError("upstream_bad_answer") from None
        found = answer.get("embeddings")
        if not isinstance(found, list) or "data" in answer:
            return super().encode_whole(asked, body)
        call = asked.foreign
        assert call is not None  # noqa: S101 - narrows for the type checker; `decode` made it
        in_base64 = msgspec.json.decode(call.encode_own(None)).get("encoding_format") == "base64"
        try:
            vectors = [_vector(each, in_base64=in_base64) for each in found]
        except (TypeError, KeyError, struct.error):
            raise UpstreamError("upstream_bad_answer") from None
        told: Json = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": answer.get("model") or asked.chat.asked_model,
        }
        sent = _count(answer)
        if sent is not None:
            told["usage"] = {"prompt_tokens": sent, "total_tokens": sent}
        counted = None if sent is None else {"prompt_tokens": sent, "completion_tokens": 0}
        usage = None if counted is None else openai_chat.read_usage(msgspec.Raw(msgspec.json.encode(counted)))
        return msgspec.json.encode(told), usage


def _texts(given: Any) -> list[str]:  # noqa: ANN401 - any JSON
    """Return the texts of an input. Raises `CallerError`, for tokens too: only OpenAI's protocol has them."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given and all(isinstance(each, str) for each in given):
        return given
    is_tokens = isinstance(given, list) and given and all(isinstance(each, int | list) for each in given)
    error = CallerError(
        Kind.INVALID_VALUE,
        "not_carried" if is_tokens else "invalid_field",
        param="input",
        parameters={"field": "input"},
    )
    if is_tokens:
        error.remedy = Remedy.ANOTHER_TARGET
    raise error


def _vector(told: Any, *, in_base64: bool) -> list[float] | str:  # noqa: ANN401 - any JSON
    """Return a vector as it was asked for. Raises `TypeError`, `KeyError` or `struct.error`."""
    values: list[float] = told["values"] if isinstance(told, dict) else told
    packed = struct.pack(f"<{len(values)}f", *values)
    return base64.b64encode(packed).decode() if in_base64 else values


def _count(answer: Json) -> int | None:
    """Return the tokens that went in; None where the upstream does not say."""
    metadata = answer.get("usageMetadata")
    told = metadata.get("promptTokenCount") if isinstance(metadata, dict) else answer.get("prompt_eval_count")
    return told if isinstance(told, int) else None
