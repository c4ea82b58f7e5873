"""Gemini CLI works through the gateway, whose provider speaks OpenAI's chat completions."""

from __future__ import annotations

import json

import pytest

from clients.answering import CALM, GREETING, QUESTION, TOLD
from clients.far import Far
from clients.running import AGENTS, Home, need_node

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-test-caller-8300"
SETTINGS = {
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "general": {"disableAutoUpdate": True, "disableUpdateNag": True},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
}
"""The first line is what `chatgate connect gemini-cli` prints; what follows keeps it to itself."""


async def said(far: Far, home: Home, prompt: str, *options: str) -> str:
    """Have a prompt carried out; return what was printed."""
    need_node(AGENTS, "@google/gemini-cli")
    folder = home.folder / ".gemini"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    project = home.folder / "project"
    project.mkdir(exist_ok=True)
    return await home.run(
        AGENTS / "node_modules" / ".bin" / "gemini",
        "--prompt",
        prompt,
        "--model",
        "over-chat",
        "--approval-mode",
        "yolo",
        "--skip-trust",
        *options,
        folder=project,
        environment={"GOOGLE_GEMINI_BASE_URL": far.gateway.url, "GEMINI_API_KEY": KEY},
    )


async def test_a_turn(far: Far, home: Home) -> None:
    """It greets, by a stream."""
    told = json.loads(await said(far, home, "Good day", "--output-format", "json"))
    assert told["response"] == GREETING
    assert not far.claude.calls
    assert all(call.json().get("stream") for call in far.chat.calls[-1:])


async def test_a_stream(far: Far, home: Home) -> None:
    """The words come one by one."""
    lines = (await said(far, home, "Good day", "--output-format", "stream-json")).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    words = [event["content"] for event in events if event["type"] == "message" and event["role"] == "assistant"]
    assert "".join(words) == GREETING
    assert len(words) > 1


async def test_a_tool(far: Far, home: Home) -> None:
    """It reads the file that the model asks for, and tells the model what is in it."""
    sea = home.folder / "project" / "sea.txt"
    sea.parent.mkdir()
    sea.write_text(CALM)
    told = json.loads(await said(far, home, QUESTION.format(file=sea), "--output-format", "json"))
    assert told["response"] == TOLD
    asked = [call.json() for call in far.chat.calls]
    assert any(message["role"] == "tool" and CALM in str(message["content"]) for message in asked[-1]["messages"])
