"""Claude Code works through the gateway, whose provider speaks OpenAI's chat completions."""

from __future__ import annotations

import json

import pytest

from clients.answering import CALM, GREETING, QUESTION, TOLD
from clients.far import Far
from clients.running import AGENTS, Home, need_node

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-test-caller-8200"


async def said(far: Far, home: Home, prompt: str, *options: str) -> str:
    """Have a prompt carried out; return what was printed."""
    project = home.folder / "project"
    project.mkdir(exist_ok=True)
    return await home.run(
        AGENTS / "node_modules" / ".bin" / "claude",
        "-p",
        prompt,
        *options,
        folder=project,
        environment={
            "ANTHROPIC_BASE_URL": far.gateway.url,
            "ANTHROPIC_AUTH_TOKEN": KEY,
            "ANTHROPIC_MODEL": "over-chat",
            "ANTHROPIC_SMALL_FAST_MODEL": "over-chat",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
        },
    )


async def test_a_turn(far: Far, home: Home) -> None:
    """It greets, and knows what that took."""
    need_node(AGENTS, "@anthropic-ai/claude-code")
    told = json.loads(await said(far, home, "Good day", "--output-format", "json"))
    assert (told["result"], told["is_error"]) == (GREETING, False)
    assert told["usage"]["output_tokens"] > 0
    assert not far.claude.calls


async def test_a_stream(far: Far, home: Home) -> None:
    """The words come one by one."""
    need_node(AGENTS, "@anthropic-ai/claude-code")
    options = ("--output-format", "stream-json", "--include-partial-messages", "--verbose")
    lines = [json.loads(line) for line in (await said(far, home, "Good day", *options)).splitlines()]
    deltas = [line["event"]["delta"] for line in lines if line.get("event", {}).get("type") == "content_block_delta"]
    words = [delta["text"] for delta in deltas if delta["type"] == "text_delta"]
    assert "".join(words) == GREETING
    assert len(words) > 1


async def test_a_tool(far: Far, home: Home) -> None:
    """It reads the file that the model asks for, and tells the model what is in it."""
    need_node(AGENTS, "@anthropic-ai/claude-code")
    sea = home.folder / "project" / "sea.txt"
    sea.parent.mkdir()
    sea.write_text(CALM)
    told = json.loads(await said(far, home, QUESTION.format(file=sea), "--output-format", "json"))
    assert (told["result"], told["num_turns"]) == (TOLD, 2)
    asked = [call.json() for call in far.chat.calls]
    assert any(message["role"] == "tool" and CALM in str(message["content"]) for message in asked[-1]["messages"])
