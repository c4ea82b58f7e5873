"""`llm`, a command-line client that many people use, configured for the gateway as its documentation says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-test-caller-2200"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway whose callers bring their keys."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url})


@pytest.fixture
def user_path(gateway: Gateway, tmp_path: Path) -> Path:
    """Return a folder with llm's configuration: two models behind the gateway, and their key."""
    models = "".join(
        f"- model_id: {name}\n  model_name: {model}\n  api_base: {gateway.url}/v1\n  api_key_name: chatgate\n"
        for name, model in (("through-gate", "gpt-fake-small"), ("gate-echo", "demo/echo"))
    )
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    (tmp_path / "keys.json").write_text(json.dumps({"chatgate": KEY}))
    return tmp_path


async def llm(user_path: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the command without any plug-in, for one of them needs what is not installed; return code and outputs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "llm",
        *arguments,
        env={"PATH": os.environ["PATH"], "LLM_USER_PATH": str(user_path), "LLM_LOAD_PLUGINS": "", "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode is not None
    return process.returncode, output.decode(), complaints.decode()


async def test_the_models_are_known(user_path: Path) -> None:
    """`llm models` lists what the configuration says."""
    code, output, complaints = await llm(user_path, "models")
    assert code == 0, complaints
    assert "through-gate" in output
    assert "gate-echo" in output


@pytest.mark.parametrize("options", [[], ["--no-stream"]], ids=["stream", "whole"])
async def test_a_prompt(user_path: Path, upstream: FakeUpstream, options: list[str]) -> None:
    """A prompt is answered, streamed and not, and usage is counted."""
    arguments = ["prompt", "-m", "through-gate", "-s", "Be kind.", "-u", *options, "Guten Tag, Welt"]
    code, output, complaints = await llm(user_path, *arguments)
    assert code == 0, complaints
    assert output.strip() == "Guten Tag, Welt"
    assert "7 input, 3 output" in complaints
    call = await upstream.last_call()
    assert call.header("authorization") == f"Bearer {KEY}"
    assert call.json()["messages"][0]["role"] == "system"
    assert bool(call.json().get("stream")) == (not options)


async def test_the_demo_model(user_path: Path, upstream: FakeUpstream) -> None:
    """The built-in echo answers without a provider."""
    code, output, complaints = await llm(user_path, "prompt", "-m", "gate-echo", "Anyone there?")
    assert (code, output.strip()) == (0, "Anyone there?"), complaints
    assert upstream.calls == []


async def test_a_refusal_is_shown(user_path: Path, upstream: FakeUpstream) -> None:
    """The reason reaches the person at the terminal."""
    refusal = scripts.whole(scripts.error_body("The model is on holiday", "model_on_holiday"), 400)
    upstream.queue(refusal)
    code, _, complaints = await llm(user_path, "prompt", "-m", "through-gate", "Hi")
    assert code == 1
    assert "on holiday" in complaints
