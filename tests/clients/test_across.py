"""Every client says and hears the same through the gateway, whose provider speaks another protocol than it does.

A plain turn, a streamed one, and a tool that is called and answers: each program of `programs/` and `node/` does all
three as its documentation shows, and prints what it saw.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from clients.answering import GREETING, LOOK, TOLD
from clients.far import Far
from clients.running import NODE, PYTHON, Home, need_node, need_python

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-test-caller-8000"
QUIET = {
    "LANGSMITH_TRACING": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LLAMA_INDEX_CACHE_DIR": "cache",
    "AI_SDK_LOG_WARNINGS": "false",
}
"""What keeps the clients to themselves, by their own settings."""

PROGRAMS = Path(__file__).parent / "programs"


async def three_turns(far: Far, home: Home, model: str, *command: str | Path) -> None:
    """Run a program, and look at what it saw and what the provider was asked."""
    arguments = (far.gateway.url, model, KEY, "Good day", f"{LOOK}.")
    output = await home.run(*command, *arguments, folder=NODE, environment=QUIET)
    seen = json.loads(output.splitlines()[-1])
    assert seen["plain"] == GREETING
    assert "".join(seen["stream"]) == GREETING
    assert len(seen["stream"]) > 1
    assert seen["tool"] == TOLD
    provider = far.of(model)
    assert provider.calls
    other = far.chat if provider is far.claude else far.claude
    assert not other.calls
    assert {call.target.partition("?")[0] for call in provider.calls} == {
        "/v1/messages" if provider is far.claude else "/v1/chat/completions"
    }


@pytest.mark.parametrize(
    ("program", "model"),
    [
        ("openai_chat", "over-claude"),
        ("openai_responses", "over-chat"),
        ("openai_websocket", "over-claude"),
        ("anthropic", "over-chat"),
    ],
)
async def test_the_vendors_packages_for_python(far: Far, home: Home, program: str, model: str) -> None:
    """By each of their protocols."""
    await three_turns(far, home, model, sys.executable, PROGRAMS / f"{program}_client.py")


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ("langchain chat", "over-claude"),
        ("langchain responses", "over-claude"),
        ("langchain anthropic", "over-chat"),
        ("llama_index", "over-claude"),
        ("pydantic_ai chat", "over-claude"),
        ("pydantic_ai responses", "over-claude"),
        ("openai_agents", "over-claude"),
    ],
)
async def test_frameworks_for_python(far: Far, home: Home, command: str, model: str) -> None:
    """By the protocols that they choose."""
    need_python()
    program, *kind = command.split(" ")
    await three_turns(far, home, model, PYTHON, PROGRAMS / f"{program}_client.py", *kind)


@pytest.mark.parametrize(
    ("command", "package", "model"),
    [
        ("openai_package chat", "openai", "over-claude"),
        ("openai_package responses", "openai", "over-claude"),
        ("openai_package websocket", "openai", "over-claude"),
        ("anthropic_package", "@anthropic-ai/sdk", "over-chat"),
        ("vercel_ai responses", "ai", "over-claude"),
        ("vercel_ai chat", "ai", "over-claude"),
        ("vercel_ai compatible", "ai", "over-claude"),
        ("vercel_ai anthropic", "ai", "over-chat"),
    ],
)
async def test_clients_for_node(far: Far, home: Home, command: str, package: str, model: str) -> None:
    """The vendors' packages, and the Vercel AI SDK by each of its providers."""
    need_node(NODE, package)
    program, *kind = command.split(" ")
    await three_turns(far, home, model, "node", f"{program}.mjs", *kind)


async def test_llm(far: Far, home: Home) -> None:
    """The command, whose tool is a function that it is given."""
    model = {
        "model_id": "far",
        "model_name": "over-claude",
        "api_base": f"{far.gateway.url}/v1",
        "supports_tools": True,
    }
    (home.folder / "extra-openai-models.yaml").write_text(json.dumps([{**model, "api_key_name": "chatgate"}]))
    (home.folder / "keys.json").write_text(json.dumps({"chatgate": KEY}))
    environment = {"LLM_USER_PATH": str(home.folder), "LLM_LOAD_PLUGINS": ""}
    command = (sys.executable, "-m", "llm", "prompt", "-m", "far")
    for options in ((), ("--no-stream",)):
        assert (await home.run(*command, *options, "Good day", environment=environment)).strip() == GREETING
    look = 'def look(at: str) -> str:\n    "Look at something."\n    return "calm as glass"\n'
    told = await home.run(*command, "--functions", look, f"{LOOK}.", environment=environment)
    assert told.strip() == TOLD
    assert not far.chat.calls
