"""Anthropic's answers, as its API writes them: whole messages and streams, for fakes and comparisons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fakes.scripts import Headers, Script, stream, whole
from fakes.upstream import Exchange

Json = dict[str, Any]
USAGE: Json = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 1,
    "service_tier": "standard",
}


def text_block(text: str) -> Json:
    """Return a block of text."""
    return {"type": "text", "text": text}


def message(*blocks: Json, stop: str = "end_turn", **more: Any) -> Json:
    """Return a whole message."""
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-fake-1",
        "content": list(blocks),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {**USAGE, "output_tokens": 4},
        **more,
    }


def event(value: Json) -> bytes:
    """Write an event under its own name."""
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


def block_events(index: int, block: Json, pieces: int = 2) -> list[bytes]:
    """Write the events of a block, its content cut into pieces."""
    kind = block["type"]
    ends: list[Json] = []
    match kind:
        case "text":
            empty, content, delta, field = {**block, "text": ""}, block["text"], "text_delta", "text"
        case "thinking":
            empty, content = {**block, "thinking": "", "signature": ""}, block["thinking"]
            delta, field = "thinking_delta", "thinking"
            ends = [{"type": "signature_delta", "signature": block["signature"]}]
        case _:
            empty, content = {**block, "input": {}}, json.dumps(block["input"]) if block["input"] else ""
            delta, field = "input_json_delta", "partial_json"
    size = max(-(-len(content) // pieces), 1)
    parts = [content[at : at + size] for at in range(0, len(content), size)] or [""]
    deltas = [{"type": delta, field: part} for part in parts if part or kind == "tool_use"]
    return [
        event({"type": "content_block_start", "index": index, "content_block": empty}),
        *(event({"type": "content_block_delta", "index": index, "delta": each}) for each in (*deltas, *ends)),
        event({"type": "content_block_stop", "index": index}),
    ]


def events(*blocks: Json, stop: str = "end_turn", output_tokens: int = 4, pieces: int = 2) -> list[bytes]:
    """Write the events of a whole stream."""
    begun = message(stop_reason=None)
    begun["usage"] = dict(USAGE)
    out = [event({"type": "message_start", "message": begun}), event({"type": "ping"})]
    for index, block in enumerate(blocks):
        out += block_events(index, block, pieces)
    delta = {"stop_reason": stop, "stop_sequence": None}
    out.append(event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}}))
    return [*out, event({"type": "message_stop"})]


def error(kind: str, text: str) -> Json:
    """Return an error's body."""
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_011"}


def answering(*blocks: Json, headers: Headers = (), **more: Any) -> Script:
    """Answer with a message, streamed or whole as it is asked."""

    async def script(exchange: Exchange) -> None:
        if exchange.call.json().get("stream"):
            await stream(events(*blocks, **more), end=b"")(exchange)
        else:
            more.pop("pieces", None)
            await whole(message(*blocks, **more), headers=headers)(exchange)

    return script


def read(body: bytes) -> list[Json]:
    """Return the events of a stream, each of which must say its name in both places; comments are left out."""
    found: list[Json] = []
    for part in body.split(b"\n\n"):
        if not part or part.startswith(b":"):
            continue
        name, data = part.split(b"\n")
        value: Json = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + value["type"].encode()
        found.append(value)
    return found


def assembled(found: Sequence[Json]) -> Json:
    """Return the message that a client puts together from events, which must come in the protocol's order."""
    kinds = [each["type"] for each in found if each["type"] != "ping"]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    told: Json = dict(found[0]["message"])
    content: list[Json] = []
    texts: list[str] = []
    is_open = False
    for each in found[1:]:
        match each["type"]:
            case "content_block_start":
                assert not is_open
                assert each["index"] == len(content)
                is_open = True
                content.append(dict(each["content_block"]))
                texts.append("")
            case "content_block_delta":
                assert is_open
                assert each["index"] == len(content) - 1
                delta = each["delta"]
                field = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
                if delta["type"] == "signature_delta":
                    content[-1]["signature"] = delta["signature"]
                else:
                    texts[-1] += delta[field[delta["type"]]]
            case "content_block_stop":
                assert is_open
                is_open = False
                kind = content[-1]["type"]
                if kind == "tool_use":
                    content[-1]["input"] = json.loads(texts[-1] or "{}")
                else:
                    content[-1][kind] = texts[-1]
            case "message_delta":
                assert not is_open
                told |= each["delta"]
                told["usage"] = told["usage"] | {name: n for name, n in each["usage"].items() if n is not None}
    return {**told, "content": content}
