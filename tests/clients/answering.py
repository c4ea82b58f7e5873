"""What the upstreams behind the clients answer: one scripted mind in two protocols, so that either can stand in.

It greets. Asked to look at the sea it calls the tool that it is offered for that, and says what the tool told it. It
owns no state: what was said so far is in each call.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fakes import messages, scripts
from fakes.upstream import Exchange

GREETING = "Good day from afar, where the sea is wide."
QUESTION = "Look at the sea in {file} please."
LOOK = "Look at the sea"
CALM = "calm as glass"
TOLD = f"The sea is {CALM}."
CALL_ID = "call_sea_1"


async def chat(exchange: Exchange) -> None:
    """Answer as OpenAI's chat completions do."""
    asked = exchange.call.json()
    last = _last(asked["messages"])
    functions = [tool["function"]["name"] for tool in asked.get("tools") or []]
    call = _call(_text(last["content"]), functions) if last["role"] == "user" else None
    if call is None:
        text = _told(_text(last["content"])) if last["role"] == "tool" else GREETING
        await scripts.telling(text, by="far")(exchange)
        return
    name, arguments = call
    function = {"name": name, "arguments": json.dumps(arguments)}
    made = {"id": CALL_ID, "type": "function", "function": function}
    if asked.get("stream"):
        pieces = [{**made, "index": 0, "function": {**function, "arguments": ""}}]
        half = len(function["arguments"]) // 2
        parts = (function["arguments"][:half], function["arguments"][half:])
        pieces += [{"index": 0, "function": {"arguments": part}} for part in parts]
        chunks = [scripts.chunk({"tool_calls": [piece]}) for piece in pieces]
        usage = scripts.chunk(None, usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
        chunks += [scripts.chunk({}, finish="tool_calls"), usage]
        await scripts.stream([scripts.event(chunk) for chunk in chunks])(exchange)
        return
    whole = scripts.completion("")
    whole["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [made]}
    whole["choices"][0]["finish_reason"] = "tool_calls"
    await scripts.whole(whole)(exchange)


async def claude(exchange: Exchange) -> None:
    """Answer as Anthropic's messages do."""
    asked = exchange.call.json()
    content = _last(asked["messages"])["content"]
    results = [block for block in content if block["type"] == "tool_result"] if isinstance(content, list) else []
    call = None if results else _call(_text(content), [tool["name"] for tool in asked.get("tools") or []])
    if call is not None:
        block = {"type": "tool_use", "id": "toolu_sea_1", "name": call[0], "input": call[1]}
        await messages.answering(block, stop="tool_use")(exchange)
    else:
        text = _told(_text(results[-1]["content"])) if results else GREETING
        await messages.answering(messages.text_block(text), pieces=4)(exchange)


def _call(text: str, tools: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Return the tool to call and its arguments, None when nobody asks to look."""
    if LOOK not in text:
        return None
    file = text.split(LOOK, 1)[1].split()[1] if f"{LOOK} in " in text else ""
    known = {
        "look": {"at": "sea"},
        "Read": {"file_path": file},
        "read_file": {"file_path": file},
        "exec_command": {"cmd": f"cat {file}"},
        "shell_command": {"command": f"cat {file}"},
    }
    return next(((name, known[name]) for name in tools if name in known), None)


def _last(said: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what was said last; agents put reminders of the system's behind it."""
    return next(message for message in reversed(said) if message["role"] not in ("system", "developer"))


def _told(text: str) -> str:
    return TOLD if CALM in text else f"The tool said: {text}"


def _text(content: Any) -> str:
    """Return the text of a message's content, whatever form it has."""
    if isinstance(content, str):
        return content
    return "\n".join(_text(part.get("text") or "") for part in content or [])
