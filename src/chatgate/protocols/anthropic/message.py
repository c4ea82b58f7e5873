"""Whole answers, both ways: Anthropic's message and OpenAI's completion; with them counts and reasons to stop.

Pure. The streams use the same tables.
Sources (read 2026-11-23): https://platform.claude.com/docs/en/api/messages,
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons,
https://platform.openai.com/docs/api-reference/chat/object.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import UpstreamError

UNSIGNED = "chatgate:unsigned"
"""The signature of thinking that Anthropic did not sign: clients want one, and Anthropic must not be shown it."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TO_STOP = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_TO_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def stop_reason(finish_reason: object) -> str:
    """Return Anthropic's word for why an answer ended; what is unknown is taken for its usual end."""
    return _TO_STOP.get(finish_reason, "end_turn") if isinstance(finish_reason, str) else "end_turn"


def finish_reason(stop: object) -> str:
    """Return OpenAI's word for why an answer ended."""
    return _TO_FINISH.get(stop, "stop") if isinstance(stop, str) else "stop"


def message_id(identity: object) -> str:
    """Return an id of a message as Anthropic's look."""
    told = identity if isinstance(identity, str) and identity else "0"
    return told if told.startswith("msg_") else f"msg_{told.removeprefix('chatcmpl-')}"


def completion_id(identity: object) -> str:
    """Return an id of a completion as OpenAI's look."""
    told = identity if isinstance(identity, str) and identity else "0"
    return told if told.startswith("chatcmpl-") else f"chatcmpl-{told.removeprefix('msg_')}"


# --- Counts -----------------------------------------------------------------------------------------------------------


def _count(source: object, name: str) -> int:
    value = source.get(name) if isinstance(source, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def to_anthropic_usage(usage: object) -> Json:
    """Return an OpenAI usage object as Anthropic's, whose input leaves out what the cache gave or took."""
    inputs = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    outputs = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    read, written = _count(inputs, "cached_tokens"), _count(inputs, "cache_write_tokens")
    thinking = _count(outputs, "reasoning_tokens")
    return {
        "input_tokens": max(_count(usage, "prompt_tokens") - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": _count(usage, "completion_tokens"),
        "output_tokens_details": {"thinking_tokens": thinking} if thinking else None,
        "server_tool_use": None,
    }


def message_of(identity: object, model: str, content: list[Json], stop: Json, usage: object) -> Json:
    """Return a message; `stop` is what `stop_fields` returned, `usage` is OpenAI's.

    The vendor's schema wants every field, also those that say nothing.
    """
    return {
        "id": message_id(identity),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        **stop,
        "container": None,
        "usage": {
            **to_anthropic_usage(usage),
            "cache_creation": None,
            "inference_geo": None,
            "service_tier": None,
        },
    }


def stop_fields(reason: str | None, sequence: str | None) -> Json:
    """Return the fields that say why an answer ended."""
    return {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None}


def text_block(text: str) -> Json:
    """Return a block of text. The vendor wants its citations named, and the Vercel AI SDK takes no null for them."""
    return {"type": "text", "text": text, "citations": []}


def tool_block(identity: str, name: str, arguments: Json) -> Json:
    """Return a block that calls a tool."""
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments, "caller": {"type": "direct"}}


def to_openai_usage(usage: object) -> Json | None:
    """Return an Anthropic usage object as OpenAI's; None when it does not count both ways."""
    if not isinstance(usage, dict) or "input_tokens" not in usage or "output_tokens" not in usage:
        return None
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    sent, answered = usage["input_tokens"], usage["output_tokens"]
    if isinstance(sent, int):
        sent += read + written
    told: Json = {"prompt_tokens": sent, "completion_tokens": answered}
    if isinstance(sent, int) and isinstance(answered, int):
        told["total_tokens"] = sent + answered
    told["prompt_tokens_details"] = {"cached_tokens": read, "cache_write_tokens": written}
    thinking = _count(usage.get("output_tokens_details"), "thinking_tokens")
    told["completion_tokens_details"] = {"reasoning_tokens": thinking}
    return told


# --- Whole answers ----------------------------------------------------------------------------------------------------


class _Function(Struct):
    name: str
    arguments: str | None = None


class _Call(Struct):
    id: str | None = None
    function: _Function | None = None


class _Said(Struct):
    content: Any = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    message: _Said
    finish_reason: str | None = None
    stop_reason: Any = None


class _Completion(Struct):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    usage: Any = None


_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_message = msgspec.json.Decoder(Json).decode


def stop_of(finish: object, stopped_by: object, *, refused: bool, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """Return why an answer ended, and the caller's stop sequence that ended it, None when that is not known.

    `stopped_by` is what some servers (vLLM) say beside the finish reason: the sequence.
    """
    if refused:
        return "refusal", None
    if finish == "stop" and isinstance(stopped_by, str) and stopped_by in stops:
        return "stop_sequence", stopped_by
    return stop_reason(finish), None


def to_message(body: bytes, model: str, stops: tuple[str, ...] = ()) -> bytes:
    """Write a completion as a message. Raises `UpstreamError` when it is none.

    `model` is reported when the provider does not say which one answered; `stops` are the caller's stop sequences.
    """
    try:
        completion = _decode_completion(body)
        choice = completion.choices[0]
        content = _blocks(choice.message)
    except (*_UNREADABLE, IndexError):
        raise UpstreamError("upstream_bad_answer") from None
    refused = choice.message.refusal is not None and choice.message.refusal != ""
    stop = stop_fields(*stop_of(choice.finish_reason, choice.stop_reason, refused=refused, stops=stops))
    return msgspec.json.encode(message_of(completion.id, completion.model or model, content, stop, completion.usage))


def _blocks(said: _Said) -> list[Json]:
    blocks: list[Json] = []
    thought = said.reasoning_content or said.reasoning
    if isinstance(thought, str) and thought:
        blocks.append({"type": "thinking", "thinking": thought, "signature": UNSIGNED})
    blocks += [text_block(text) for text in (_text_of(said.content), said.refusal) if text]
    for number, call in enumerate(said.tool_calls or ()):
        if call.function is not None:
            arguments = msgspec.json.decode(call.function.arguments or "{}", type=Json)
            identity = call.id or f"call_{number}"
            blocks.append(tool_block(identity, call.function.name, arguments))
    return blocks


def _text_of(content: object) -> str:
    """Return what is said: a text, or the texts of parts, as some servers answer."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def to_completion(body: bytes, created: int) -> bytes:
    """Write a message as a completion; `created` is Unix time. Raises `UpstreamError` when it is no message.

    A body with an error in it becomes an OpenAI body with that error.
    """
    try:
        message = _decode_message(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    if message.get("type") == "error":
        return msgspec.json.encode({"error": message.get("error") or {"message": ""}})
    content = message.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise UpstreamError("upstream_bad_answer")
    finish = finish_reason(message.get("stop_reason"))
    said = _said_in(content)
    if finish == "content_filter":
        details = message.get("stop_details")
        explained = details.get("explanation") if isinstance(details, dict) else None
        said["refusal"] = explained if isinstance(explained, str) else None
    return msgspec.json.encode(
        {
            "id": completion_id(message.get("id")),
            "object": "chat.completion",
            "created": created,
            "model": message.get("model") if isinstance(message.get("model"), str) else "",
            "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish}],
            "usage": to_openai_usage(message.get("usage")),
        }
    )


def _said_in(content: list[Json]) -> Json:
    """Return an assistant's message with what some blocks say."""
    texts, thoughts, calls = [], [], []
    for block in content:
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "thinking", "thinking": str(thought)}:
                thoughts.append(thought)
            case {"type": "tool_use", "id": str(identity), "name": str(name)}:
                arguments = msgspec.json.encode(block.get("input") or {}).decode()
                function = {"name": name, "arguments": arguments}
                calls.append({"id": identity, "type": "function", "function": function})
    said: Json = {"role": "assistant", "content": "".join(texts) if texts or not calls else None, "refusal": None}
    if any(thoughts):
        said["reasoning_content"] = "".join(thoughts)
    if calls:
        said["tool_calls"] = calls
    return said
