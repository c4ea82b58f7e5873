"""The events of a provider's own response, read as if they had been OpenAI chunks; a whole Response, as a completion.

What passes through is only looked at: what was said, whether it is all there, and what it cost. Pure; used by the
relay for upstreams that speak Responses themselves.
Source: https://developers.openai.com/api/reference/resources/responses/streaming-events (read 2026-11-23).
"""

from __future__ import annotations

from typing import Any

import msgspec

from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import UpstreamError

DONE = b"[DONE]"

_decode = msgspec.json.Decoder(Json).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TEXTS = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning_content",
    "response.reasoning_summary_text.delta": "reasoning_content",
}
_ARGUMENTS = frozenset({"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"})
_ENDS = frozenset({"response.completed", "response.incomplete"})
_FINISHES = {"max_output_tokens": "length", "content_filter": "content_filter"}


class Decoder:
    """Reads one response.

    `response` is the Response object as it was last told, `number` the next event's; `has_item` says that an item
    of the answer has begun.
    """

    __slots__ = ("_calls", "has_item", "number", "response")

    def __init__(self) -> None:
        """Start before the first event."""
        self._calls: dict[Any, int] = {}
        self.has_item = False
        self.number = 0
        self.response: Json = {}

    def take(self, data: bytes) -> list[bytes]:
        """Return the chunks that an event means; none for what says nothing of the answer's text or end."""
        try:
            event = _decode(data)
        except _UNREADABLE:
            return []
        if isinstance(event.get("sequence_number"), int):
            self.number = event["sequence_number"] + 1
        if isinstance(event.get("response"), dict):
            self.response = event["response"]
        kind = event.get("type")
        self.has_item = self.has_item or kind == "response.output_item.added"
        if kind in _ENDS:
            counted: Json = {"choices": [], "usage": to_chat_usage(self.response.get("usage"))}
            return [_chunk({}, finish_reason(self.response)), msgspec.json.encode(counted), DONE]
        if kind in ("response.failed", "error"):
            error = self.response.get("error") if kind != "error" else event.get("error") or {**event, "type": None}
            return [msgspec.json.encode({"error": error or {"message": ""}})]
        delta = self._delta_of(kind, event)
        return [] if delta is None else [_chunk(delta)]

    def _delta_of(self, kind: object, event: Json) -> Json | None:
        """Return what an event adds to the answer."""
        if kind in _TEXTS:
            return {_TEXTS[str(kind)]: event.get("delta")}
        if kind in _ARGUMENTS:
            number = self._calls.get(event.get("output_index"), 0)
            return {"tool_calls": [{"index": number, "function": {"arguments": event.get("delta")}}]}
        item = event.get("item")
        if (
            kind != "response.output_item.added"
            or not isinstance(item, dict)
            or not isinstance(item.get("call_id"), str)
        ):
            return None
        number = self._calls.setdefault(event.get("output_index"), len(self._calls))
        function = {"name": str(item.get("name")), "arguments": ""}
        return {"tool_calls": [{"index": number, "id": item["call_id"], "type": "function", "function": function}]}


def to_completion(body: bytes) -> bytes:
    """Write a whole Response as a completion, as far as it is looked at. Raises `UpstreamError` when it is none.

    One that failed becomes a body with its error.
    """
    try:
        response = _decode(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    if response.get("error"):
        return msgspec.json.encode({"error": response["error"]})
    output = response.get("output")
    if response.get("object") != "response" or not isinstance(output, list):
        raise UpstreamError("upstream_bad_answer")
    choice = {"index": 0, "message": {"content": output}, "finish_reason": finish_reason(response)}
    completion = {"choices": [choice], "usage": to_chat_usage(response.get("usage"))}
    return msgspec.json.encode(completion)


def finish_reason(response: Json) -> str:
    """Return a chat's word for why a response ended."""
    details = response.get("incomplete_details")
    why = details.get("reason") if isinstance(details, dict) else None
    return _FINISHES.get(why, "stop") if isinstance(why, str) else "stop"


def to_chat_usage(usage: object) -> Json | None:
    """Return a response's usage object as a chat's; None when it does not count both ways."""
    if not isinstance(usage, dict) or "input_tokens" not in usage or "output_tokens" not in usage:
        return None
    told = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
    names = {
        "total_tokens": "total_tokens",
        "input_tokens_details": "prompt_tokens_details",
        "output_tokens_details": "completion_tokens_details",
    }
    return told | {theirs: usage[ours] for ours, theirs in names.items() if usage.get(ours) is not None}


def _chunk(delta: Json, finish: str | None = None) -> bytes:
    return msgspec.json.encode({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
