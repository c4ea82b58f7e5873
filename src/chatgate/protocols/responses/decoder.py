"""The events of a provider's own response, read as if they had been OpenAI chunks; a whole Response, as a completion.

What passes through is only looked at (`Decoder`, `to_completion`): what was said, whether it is all there, and what it
cost. For callers who speak something else it becomes a chat's answer (`ChatDecoder`, `to_chat_completion`). Pure; used
for upstreams that speak Responses themselves.
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
            return [self._chunk({}, finish_reason(self.response)), self._write(counted), DONE]
        if kind in ("response.failed", "error"):
            error = self.response.get("error") if kind != "error" else event.get("error") or {**event, "type": None}
            return [msgspec.json.encode({"error": error or {"message": ""}})]
        delta = self._delta_of(kind, event)
        return [] if delta is None else [self._chunk(delta, **self._more_of(event))]

    def _write(self, chunk: Json) -> bytes:
        """Write a chunk."""
        return msgspec.json.encode(chunk)

    def _more_of(self, event: Json) -> Json:  # noqa: ARG002 - an heir's signature
        """Return what a choice says besides what it adds."""
        return {}

    def _chunk(self, delta: Json, finish: str | None = None, **more: object) -> bytes:
        return self._write({"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]})

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


class ChatDecoder(Decoder):
    """Reads one response for a caller who gets it as a chat's stream."""

    __slots__ = ("_created", "_frame")

    def __init__(self, created: int) -> None:
        """Start before the first event; `created` is the Unix time of a response that does not say its own."""
        super().__init__()
        self._created = created
        self._frame: Json = {}

    def take(self, data: bytes) -> list[bytes]:
        """Return the chunks that an event means; the first one says who speaks."""
        chunks = super().take(data)
        if not self._frame and self.response:
            self._frame = _frame(self.response, "chat.completion.chunk", self._created)
            chunks = [self._chunk({"role": "assistant", "content": ""}), *chunks]
        return chunks

    def _write(self, chunk: Json) -> bytes:
        return msgspec.json.encode({**self._frame, **chunk})

    def _delta_of(self, kind: object, event: Json) -> Json | None:
        if kind == "response.output_text.annotation.added":
            cited = _citation(event.get("annotation"))
            return None if cited is None else {"annotations": [cited]}
        return super()._delta_of(kind, event)

    def _more_of(self, event: Json) -> Json:
        found = event.get("logprobs")
        return {"logprobs": {"content": found, "refusal": None}} if found else {}


def to_completion(body: bytes) -> bytes:
    """Write a whole Response as a completion, as far as it is looked at. Raises `UpstreamError` when it is none.

    One that failed becomes a body with its error.
    """
    response = _read(body)
    if response.get("error"):
        return msgspec.json.encode({"error": response["error"]})
    choice = {"index": 0, "message": {"content": response["output"]}, "finish_reason": finish_reason(response)}
    completion = {"choices": [choice], "usage": to_chat_usage(response.get("usage"))}
    return msgspec.json.encode(completion)


def to_chat_completion(body: bytes, created: int) -> bytes:
    """Write a whole Response as a completion for a caller; otherwise as `to_completion`.

    `created` is the Unix time of one that does not say its own.
    """
    response = _read(body)
    if response.get("error"):
        return msgspec.json.encode({"error": response["error"]})
    said, logprobs = _said_in(_items(response))
    told = {"content": logprobs, "refusal": None} if logprobs else None
    choice = {"index": 0, "message": said, "logprobs": told, "finish_reason": finish_reason(response)}
    completion = {**_frame(response, "chat.completion", created), "choices": [choice]}
    return msgspec.json.encode({**completion, "usage": to_chat_usage(response.get("usage"))})


def _read(body: bytes) -> Json:
    """Return a Response, or a body with an error. Raises `UpstreamError` when it is neither."""
    try:
        response = _decode(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    if not response.get("error") and (
        response.get("object") != "response" or not isinstance(response.get("output"), list)
    ):
        raise UpstreamError("upstream_bad_answer")
    return response


def _frame(response: Json, kind: str, created: int) -> Json:
    """Return what all chunks of an answer say, and a completion too."""
    identity, model, told_at = response.get("id"), response.get("model"), response.get("created_at")
    frame: Json = {
        "id": f"chatcmpl-{str(identity or 0).removeprefix('resp_')}",
        "object": kind,
        "created": int(told_at) if isinstance(told_at, int | float) else created,
        "model": model if isinstance(model, str) else "",
    }
    tier = response.get("service_tier")
    return frame | ({"service_tier": tier} if isinstance(tier, str) else {})


def _said_in(items: list[Json]) -> tuple[Json, list[Json]]:
    """Return an assistant's message with what the items say, and the log probabilities of its text."""
    texts, refusals, thoughts, calls = [], [], [], []
    cited: list[Json] = []
    logprobs: list[Json] = []
    for item in items:
        parts = [
            part
            for name in ("summary", "content")
            if isinstance(item.get(name), list)
            for part in item[name]
            if isinstance(part, dict)
        ]
        if item.get("type") == "function_call":
            function = {"name": str(item.get("name")), "arguments": str(item.get("arguments") or "{}")}
            calls.append({"id": str(item.get("call_id")), "type": "function", "function": function})
        for part in parts:
            match part:
                case {"type": "output_text", "text": str(text)}:
                    texts.append(text)
                    logprobs += part.get("logprobs") or []
                    cited += filter(None, map(_citation, part.get("annotations") or ()))
                case {"type": "refusal", "refusal": str(refusal)}:
                    refusals.append(refusal)
                case {"type": "summary_text" | "reasoning_text", "text": str(thought)}:
                    thoughts.append(thought)
    content = "".join(texts) if texts or not (calls or refusals) else None
    said: Json = {"role": "assistant", "content": content, "refusal": "".join(refusals) or None}
    if thoughts:
        said["reasoning_content"] = "".join(thoughts)
    if cited:
        said["annotations"] = cited
    if calls:
        said["tool_calls"] = calls
    return said, logprobs


def _citation(annotation: object) -> Json | None:
    """Return a citation as a chat has it; None for what it has not."""
    if not isinstance(annotation, dict) or annotation.get("type") != "url_citation":
        return None
    names = ("start_index", "end_index", "url", "title")
    return {"type": "url_citation", "url_citation": {name: annotation.get(name) for name in names}}


def finish_reason(response: Json) -> str:
    """Return a chat's word for why a response ended."""
    details = response.get("incomplete_details")
    why = details.get("reason") if isinstance(details, dict) else None
    if isinstance(why, str):
        return _FINISHES.get(why, "stop")
    return "tool_calls" if any(item.get("type") == "function_call" for item in _items(response)) else "stop"


def _items(response: Json) -> list[Json]:
    output = response.get("output")
    return [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []


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
