"""How many tokens a Gemini request has: what asks a provider for that, and what answers a caller.

Source: https://ai.google.dev/api/tokens (read 2026-11-23).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from chatgate.protocols import document as documents
from chatgate.protocols import token_estimate
from chatgate.protocols.counting import Question
from chatgate.protocols.gemini import errors
from chatgate.protocols.gemini.call import COUNT, asked_of
from chatgate.protocols.gemini.fields import fields, listed
from chatgate.protocols.gemini.upstream import path_of
from chatgate.protocols.reading import Json
from chatgate.vocabulary.chat import Asked, ChatCall
from chatgate.vocabulary.upstreams import Protocol, Target

_GENERATE = "generateContentRequest"
_SAID = ("systemInstruction", "contents", "tools")
_BYTES_PER_TOKEN = 60
"""About so many characters of base64 are a token, of images, sounds and documents alike."""


class GeminiCounting:
    """Requests of `countTokens`."""

    protocol: Protocol = "gemini"

    def decode(self, body: bytes, parameter: str) -> Asked:
        """Read a caller's body. Raises `CallerError` for what is no request."""
        model, _ = asked_of(parameter)
        _asked(body)
        return Asked(ChatCall(model, stream=False))

    def question(self, asked: Asked, body: bytes, headers: Mapping[bytes, bytes], target: Target) -> Question:  # noqa: ARG002 - a port's method
        """Return what asks a Gemini upstream."""
        model = target.sent_model or asked.chat.asked_model
        request = msgspec.json.decode(body)
        for name in (_GENERATE, "generate_content_request"):
            if isinstance(request.get(name), dict):
                request[name]["model"] = f"models/{model.removeprefix('models/')}"
                body = msgspec.json.encode(request)
        return Question(path_of(model, COUNT), body)

    def decode_error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of a refusal as OpenAI's."""
        return errors.to_openai_error(status, body)

    def estimate(self, body: bytes) -> bytes:
        """Return an answer with about how many tokens a request has that was found to be one."""
        asked = _asked(body)
        count = sum(_tokens_of(asked.get(name)) for name in _SAID)
        count += token_estimate.MESSAGE_TOKENS * len(listed(asked.get("contents"), "contents"))
        return msgspec.json.encode({"totalTokens": count})


def _asked(body: bytes) -> Json:
    """Return the fields of the request that is to be counted. Raises `CallerError`."""
    asked = fields(msgspec.json.decode(documents.parse(body).body), "")
    if _GENERATE in asked:
        asked = fields(asked[_GENERATE], _GENERATE)
    listed(asked.get("contents"), "contents")
    return asked


def _tokens_of(value: Any) -> int:  # noqa: ANN401 - any JSON
    match value:
        case {"data": str(data), **rest} if rest.keys() & {"mimeType", "mime_type"}:
            return max(len(data) // _BYTES_PER_TOKEN, token_estimate.IMAGE_TOKENS)
        case dict():
            return sum(_tokens_of(each) for name, each in value.items() if name not in ("role", "thoughtSignature"))
        case list():
            return sum(map(_tokens_of, value))
        case None:
            return 0
        case _:
            return token_estimate.of_json(value)
