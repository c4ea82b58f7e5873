"""Codex works through the gateway, whose provider speaks Anthropic's messages, over HTTP and over a WebSocket."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clients.answering import CALM, GREETING, QUESTION, TOLD
from clients.far import Far
from clients.running import AGENTS, Home, need_node

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-test-caller-8100"
CONFIG = """
model = "over-claude"
model_provider = "chatgate"
check_for_update_on_startup = false
[model_providers.chatgate]
name = "chatgate"
base_url = "{url}/v1"
env_key = "CHATGATE_KEY"
wire_api = "responses"
supports_websockets = {sockets}
[analytics]
enabled = false
[features]
plugins = false
apps = false
remote_plugin = false
"""
"""As `chatgate connect codex` prints it; what follows the provider keeps it to itself."""


async def said(home: Home, prompt: str) -> list[dict[str, Any]]:
    """Have a prompt carried out; return the items that came of it."""
    project = home.folder / "project"
    project.mkdir(exist_ok=True)
    command = (AGENTS / "node_modules" / ".bin" / "codex", "exec", "--skip-git-repo-check", "--json")
    # What it is told to run is `cat` on a file of ours, and not every machine has what its sandbox needs.
    output = await home.run(
        *command,
        "--sandbox",
        "danger-full-access",
        prompt,
        folder=project,
        environment={"CODEX_HOME": str(home.folder), "CHATGATE_KEY": KEY},
    )
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert events[-1]["type"] == "turn.completed", events
    return [event["item"] for event in events if event["type"] == "item.completed"]


@pytest.mark.parametrize("sockets", ["false", "true"], ids=["SSE", "WebSocket"])
async def test_a_turn_and_a_tool(far: Far, home: Home, sockets: str) -> None:
    """It greets; it runs what the model asks for, and tells the model what came of it."""
    need_node(AGENTS, "@openai/codex")
    (home.folder / "config.toml").write_text(CONFIG.format(url=far.gateway.url, sockets=sockets))
    sea = home.folder / "sea.txt"
    sea.write_text(CALM)
    assert (await said(home, "Good day"))[-1]["text"] == GREETING
    items = await said(home, QUESTION.format(file=sea))
    assert items[-1]["text"] == TOLD
    (ran,) = (item for item in items if item["type"] == "command_execution")
    assert (ran["aggregated_output"].strip(), ran["exit_code"]) == (CALM, 0)
    assert not far.chat.calls
    assert all(call.json()["stream"] for call in far.claude.calls)
    talks = await far.gateway.logged("call", 0, operation="conversation", status=101)
    prepared = await far.gateway.logged("call", 0, operation="response_preparation", status=200)
    assert (len(talks), len(prepared)) == ((2, 2) if sockets == "true" else (0, 0))
