"""Whole answers, both ways: Ollama's object and OpenAI's completion; with them counts and reasons to stop.

Pure. The streams use the same tables. A duration is told where it was seen here, and left out where it was not.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from chatgate.protocols import openai_errors
from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import UpstreamError

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NANOSECONDS: Final = 1_000_000_000
_MAX_TIME: Final = 253_402_300_799
"""The last second of the year 9999."""


class Shape(Struct, frozen=True):
    """How answers to a caller look: those to a chat have a message, those to a completion a text of its own."""

    is_chat: bool

    def said(self, content: str, thinking: str = "", calls: list[Json] | None = None) -> Json:
        """Return the fields that say something."""
        if not self.is_chat:
            return {"response": content, **({"thinking": thinking} if thinking else {})}
        message: Json = {"role": "assistant", "content": content}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = calls
        return {"message": message}


CHAT: Final = Shape(is_chat=True)
COMPLETION: Final = Shape(is_chat=False)


class Times(Struct, frozen=True):
    """When what was, in seconds of a monotonic clock; None for what was not seen."""

    began_at: float
    spoke_at: float | None
    ended_at: float

    def fields(self) -> Json:
        """Return the durations, in nanoseconds, as they were seen from here."""
        told: Json = {"total_duration": _nanoseconds(self.ended_at - self.began_at)}
        if self.spoke_at is not None:
            told["prompt_eval_duration"] = _nanoseconds(self.spoke_at - self.began_at)
            told["eval_duration"] = _nanoseconds(self.ended_at - self.spoke_at)
        return told


def _nanoseconds(seconds: float) -> int:
    return max(round(seconds * _NANOSECONDS), 1)


def moment(unix_seconds: float) -> str:
    """Return a time as Ollama writes it."""
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def done_reason(finish: object) -> str:
    """Return Ollama's word for why an answer ended."""
    return "length" if finish == "length" else "stop"


def finish_reason(reason: object, *, has_calls: bool) -> str:
    """Return OpenAI's word for why an answer ended."""
    if reason == "length":
        return "length"
    return "tool_calls" if has_calls else "stop"


def counts_of(usage: object) -> Json:
    """Return an OpenAI usage object as Ollama's counts, nothing where nobody counted."""
    if not isinstance(usage, dict):
        return {}
    named = (("prompt_eval_count", "prompt_tokens"), ("eval_count", "completion_tokens"))
    return {theirs: usage[ours] for theirs, ours in named if isinstance(usage.get(ours), int)}


def usage_of(answer: Json) -> Json | None:
    """Return Ollama's counts as an OpenAI usage object, None when it did not count both ways."""
    sent, got = answer.get("prompt_eval_count"), answer.get("eval_count")
    if not isinstance(sent, int) or not isinstance(got, int):
        return None
    return {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got}


def identity_of(answer: Json) -> str:
    """Return an id for an answer, which Ollama has not: the same for each line of one, as they bear the same model."""
    told = f"{answer.get('model')} {answer.get('created_at')}"
    return "chatcmpl-" + hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def created_of(answer: Json, otherwise: int) -> int:
    """Return the Unix time of an answer."""
    try:
        at = datetime.fromisoformat(str(answer.get("created_at"))).timestamp()
    except (ValueError, OverflowError):
        return otherwise
    return int(at) if 0 < at < _MAX_TIME else otherwise


def calls_of(message: Json, identity: str, begun: int = 0) -> list[Json]:
    """Return the calls of a message as OpenAI's; those without an id get one. `begun` calls were there before."""
    calls: list[Json] = []
    for number, call in enumerate(_mappings(message.get("tool_calls")), begun):
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UpstreamError("upstream_bad_answer")
        arguments = function.get("arguments")
        told = call.get("id")
        calls.append(
            {
                "id": told if isinstance(told, str) and told else f"call_{identity[-12:]}_{number}",
                "type": "function",
                "function": {
                    "name": function["name"],
                    "arguments": msgspec.json.encode(arguments if isinstance(arguments, dict) else {}).decode(),
                },
            }
        )
    return calls


def ollama_calls(calls: object) -> list[Json]:
    """Return OpenAI's calls as Ollama's. Raises `UpstreamError` when arguments are no object."""
    told: list[Json] = []
    for number, call in enumerate(_mappings(calls)):
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            continue
        try:
            arguments = msgspec.json.decode(function.get("arguments") or "{}", type=Json)
        except (*UNREADABLE, UnicodeEncodeError, TypeError):
            raise UpstreamError("upstream_bad_answer") from None
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        function = {"index": number, "name": function["name"], "arguments": arguments}
        told.append({**identity, "function": function})
    return told


def openai_logprobs(told: object) -> Json | None:
    """Return Ollama's log-probabilities as OpenAI's, None without any."""
    tokens = [_openai_logprob(each) for each in _mappings(told)]
    return {"content": tokens, "refusal": None} if tokens else None


def _openai_logprob(token: Json) -> Json:
    others = [
        {"token": each.get("token"), "logprob": each.get("logprob"), "bytes": each.get("bytes")}
        for each in _mappings(token.get("top_logprobs"))
    ]
    told = {"token": token.get("token"), "logprob": token.get("logprob"), "bytes": token.get("bytes")}
    return {**told, "top_logprobs": others}


def ollama_logprobs(told: object) -> list[Json]:
    """Return OpenAI's log-probabilities as Ollama's."""
    content = told.get("content") if isinstance(told, dict) else None
    return [
        {name: token[name] for name in ("token", "logprob", "bytes", "top_logprobs") if token.get(name)}
        for token in _mappings(content)
    ]


def _mappings(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def error_of(answer: Json) -> Json | None:
    """Return what an answer says went wrong, as OpenAI's; None when it says nothing of that kind."""
    said = answer.get("error")
    if not said:
        return None
    return {"message": said if isinstance(said, str) else "", "type": "api_error", "param": None, "code": None}


def to_completion(body: bytes, created: int) -> bytes:
    """Write Ollama's whole answer as a completion; `created` is Unix time. Raises `UpstreamError` when it is none.

    A body with an error in it becomes an OpenAI body with that error.
    """
    try:
        answer = msgspec.json.decode(body, type=Json)
    except UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    if (error := error_of(answer)) is not None:
        return msgspec.json.encode({"error": error})
    message = answer.get("message")
    if "response" in answer:
        message = {"content": answer["response"], "thinking": answer.get("thinking")}
    if not isinstance(message, dict) or answer.get("done") is not True:
        raise UpstreamError("upstream_bad_answer")
    identity = identity_of(answer)
    calls = calls_of(message, identity)
    content = message.get("content")
    said: Json = {"role": "assistant", "content": content if content or not calls else None, "refusal": None}
    if message.get("thinking"):
        said["reasoning_content"] = message["thinking"]
    if calls:
        said["tool_calls"] = calls
    choice = {
        "index": 0,
        "message": said,
        "logprobs": openai_logprobs(answer.get("logprobs")),
        "finish_reason": finish_reason(answer.get("done_reason"), has_calls=bool(calls)),
    }
    told = {
        "id": identity,
        "object": "chat.completion",
        "created": created_of(answer, created),
        "model": answer.get("model") if isinstance(answer.get("model"), str) else "",
        "choices": [choice],
    }
    usage = usage_of(answer)
    return msgspec.json.encode(told if usage is None else {**told, "usage": usage})


def from_completion(body: bytes, shape: Shape, model: str, at: float, times: Times) -> bytes:
    """Write a completion as Ollama's whole answer. Raises `UpstreamError` when it is none.

    `model` is what the caller asked for, `at` the Unix time.
    """
    try:
        completion = msgspec.json.decode(body, type=Json)
        choice: Any = completion["choices"][0]
        message = choice["message"]
        thought = message.get("reasoning_content") or message.get("reasoning")
        content = _text_of(message.get("content")) or message.get("refusal") or ""
    except (*UNREADABLE, LookupError, TypeError, AttributeError):
        raise UpstreamError("upstream_bad_answer") from None
    calls = ollama_calls(message.get("tool_calls"))
    told: Json = {"model": model, "created_at": moment(at)}
    told |= shape.said(content, thought if isinstance(thought, str) else "", calls)
    told |= {"done": True, "done_reason": done_reason(choice.get("finish_reason"))}
    told |= times.fields() | counts_of(completion.get("usage"))
    if logprobs := ollama_logprobs(choice.get("logprobs")):
        told["logprobs"] = logprobs
    return msgspec.json.encode(told)


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in _mappings(content))


def to_openai_error(status: int, body: bytes) -> tuple[int, bytes]:
    """Return the status and the body that an OpenAI-compatible server would have refused with."""
    message = openai_errors.message_of(body)
    try:
        said = msgspec.json.decode(body, type=Json).get("error")
    except UNREADABLE:
        return status, body
    if isinstance(said, str):
        message = said
    told = {"message": message, "type": "invalid_request_error" if status < 500 else "api_error", "param": None}  # noqa: PLR2004 - where faults of the server begin
    code = "model_not_found" if status == 404 else None  # noqa: PLR2004 - paths are ours, so it is the model
    return status, msgspec.json.encode({"error": {**told, "code": code}})
