"""What an answer repeats of its request, and the Response object that both are in.

Owns the object's fields; pure. Used by the encoder, for each state of a response.
Source: https://developers.openai.com/api/reference/resources/responses (read 2026-11-23).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from chatgate.protocols.reading import Json, objects
from chatgate.protocols.responses.request import ENCRYPTED
from chatgate.protocols.responses.tools import Names, names_of

PREFIX = "resp_"

_REPEATED = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
)
_ALWAYS = frozenset({"instructions", "max_output_tokens", "previous_response_id", "temperature", "top_p"})
"""Fields that are null when the caller did not name them; the others are left out then."""


class Session(Struct, frozen=True):
    """One response as its request asks for it.

    `identity` is its id without the prefix, `created_at` Unix time. `is_stored` says that the gateway keeps it.
    """

    identity: str
    created_at: int
    request: Json
    names: Names
    is_stored: bool = False

    @property
    def response_id(self) -> str:
        """Return the response's id."""
        return PREFIX + self.identity

    @property
    def wants_summary(self) -> bool:
        """Tell whether reasoning is to be shown as a summary."""
        reasoning = self.request.get("reasoning") or {}
        return (reasoning.get("summary") or reasoning.get("generate_summary")) is not None

    @property
    def wants_sealed(self) -> bool:
        """Tell whether reasoning is to be handed out so that the caller can hand it back."""
        return ENCRYPTED in (self.request.get("include") or [])

    def item_id(self, kind: str, index: int) -> str:
        """Return an item's id: from it the response can be told that it belongs to."""
        return f"{kind}_{self.identity}{index:02x}"

    def response(
        self,
        status: str,
        output: list[Json],
        *,
        model: str | None = None,
        usage: Json | None = None,
        error: Json | None = None,
        incomplete: str | None = None,
        service_tier: str | None = None,
    ) -> Json:
        """Return the Response object; `incomplete` is why it is, `model` the one that answered if that is known."""
        request = self.request
        told: Json = {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": {"reason": incomplete} if incomplete else None,
            "model": model or request["model"],
            "output": output,
            "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
            "reasoning": {"effort": None, "summary": None} | (request.get("reasoning") or {}),
            "store": self.is_stored,
            "text": {"format": {"type": "text"}} | (request.get("text") or {}),
            "tool_choice": request.get("tool_choice") or "auto",
            "tools": [_tool(tool) for tool, _ in objects(request.get("tools"), "tools")],
            "truncation": request.get("truncation") or "disabled",
            "metadata": request.get("metadata") or {},
        }
        for name in _REPEATED:
            if name in _ALWAYS or request.get(name) is not None:
                told[name] = request.get(name)
        if usage is not None:
            told["usage"] = usage
        if service_tier is not None:
            told["service_tier"] = service_tier
        return told


def session_of(request: Json, identity: str, created_at: int, *, is_stored: bool) -> Session:
    """Return the session of a request. Raises `CallerError`."""
    return Session(identity, created_at, request, names_of(request), is_stored)


def identity_of(item_id: str) -> str:
    """Return the identity of the response that an item belongs to; some text when it is none of ours."""
    return item_id.partition("_")[2][:-2]


def to_usage(usage: Any) -> Json | None:  # noqa: ANN401 - any JSON
    """Return a chat's usage object as that of a response; None when it does not count both ways."""
    if not isinstance(usage, dict):
        return None
    sent, answered = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if sent is None or answered is None:
        return None
    inputs, outputs = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return {
        "input_tokens": sent,
        "input_tokens_details": {
            "cached_tokens": _count(inputs, "cached_tokens") or 0,
            "cache_write_tokens": _count(inputs, "cache_write_tokens") or 0,
        },
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": _count(outputs, "reasoning_tokens") or 0},
        "total_tokens": sent + answered,
    }


def _count(source: object, name: str) -> int | None:
    value = source.get(name) if isinstance(source, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 0:
        return None
    return int(value)


def _tool(tool: Json) -> Json:
    """Return a tool as answers repeat it: a function says what it does not have."""
    return {"parameters": None, "strict": False, **tool} if tool.get("type") == "function" else tool
