"""What `chatgate connect` prints is run as it is, with the clients that are here, against the demo models."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from clients import running
from clients.running import AGENTS, NODE, PYTHON, need_node, need_python
from fakes.gateway import Gateway, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(start_gateway: StartGateway) -> Gateway:
    """Run a gateway that has nothing but its demo models."""
    return await start_gateway({})


async def output_of(*command: str, folder: Path, stdin: str = "") -> str:
    """Run a program that has to succeed; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "LLM_USER_PATH": str(folder),
            "LLM_LOAD_PLUGINS": "",
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await asyncio.wait_for(process.communicate(stdin.encode()), 40)
    assert process.returncode == 0, complaints.decode()
    return output.decode()


async def printed(client: str, gateway: Gateway, folder: Path) -> str:
    """Return the configuration of a client."""
    arguments = ("--url", gateway.url, "--model", "demo/echo")
    return await output_of(sys.executable, "-m", "chatgate", "connect", client, *arguments, folder=folder)


async def test_curl(gateway: Gateway, tmp_path: Path) -> None:
    """The line goes into a shell."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    told = await output_of("sh", folder=tmp_path, stdin=await printed("curl", gateway, tmp_path))
    assert '"content":"Hello"' in told


async def test_openai_for_python(gateway: Gateway, tmp_path: Path) -> None:
    """The file is run."""
    script = await printed("openai-python", gateway, tmp_path)
    assert await output_of(sys.executable, "-", folder=tmp_path, stdin=script) == "Hello\n"


async def test_openai_for_node(gateway: Gateway, tmp_path: Path) -> None:
    """The module is run where the package is."""
    need_node(NODE, "openai")
    script = await printed("openai-node", gateway, tmp_path)
    assert await output_of("node", "--input-type=module", folder=NODE, stdin=script) == "Hello\n"


async def test_llm(gateway: Gateway, tmp_path: Path) -> None:
    """The first part is a file in its folder, the second goes into a shell."""
    lines = (await printed("llm", gateway, tmp_path)).splitlines(keepends=True)
    models = "".join(line for line in lines if not line.startswith("llm "))
    assert yaml.safe_load(models)
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    told = await output_of("sh", folder=tmp_path, stdin="".join(line for line in lines if line.startswith("llm ")))
    assert told == "Hello\n"


async def test_langchain(gateway: Gateway, tmp_path: Path) -> None:
    """The file is run where the package is."""
    need_python()
    (tmp_path / "hello.py").write_text(await printed("langchain", gateway, tmp_path))
    async with running.home(tmp_path) as home:
        assert await home.run(PYTHON, "hello.py", environment={"LANGSMITH_TRACING": "false"}) == "Hello\n"


async def test_codex(gateway: Gateway, tmp_path: Path) -> None:
    """The first part is its file, the second goes into a shell, where its last word is the command."""
    need_node(AGENTS, "@openai/codex")
    config, export, rest = (await printed("codex", gateway, tmp_path)).partition("export ")
    (tmp_path / "config.toml").write_text(
        f"check_for_update_on_startup = false\n{config}"
        "[analytics]\nenabled = false\n[features]\nplugins = false\napps = false\nremote_plugin = false\n"
    )
    command = f"{AGENTS / 'node_modules' / '.bin' / 'codex'} exec --skip-git-repo-check --json Hello"
    script = f"{export}{rest.strip().removesuffix('codex')}{command}"
    async with running.home(tmp_path) as home:
        told = await home.run("sh", "-c", script, environment={"CODEX_HOME": str(tmp_path)})
    assert '"text":"Hello"' in told
    assert await gateway.logged("call", operation="conversation", status=101)


async def test_claude_code(gateway: Gateway, tmp_path: Path) -> None:
    """The lines go into a shell; the last one is the command."""
    need_node(AGENTS, "@anthropic-ai/claude-code")
    lines = (await printed("claude-code", gateway, tmp_path)).strip().removesuffix("claude")
    script = f"{lines}{AGENTS / 'node_modules' / '.bin' / 'claude'} -p Hello"
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1"}
    async with running.home(tmp_path) as home:
        assert (await home.run("sh", "-c", script, environment=quiet)).strip().endswith("Hello")
