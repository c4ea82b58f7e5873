"""The `openai` package for Node talks to the gateway as it talks to OpenAI.

`node/session.mjs` does what an application does and prints what it saw as JSON; here that is judged. The package is
installed by `make test` (`npm ci`); where Node or the package is missing, the run says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fakes import scripts
from fakes.gateway import StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOLDER = Path(__file__).parent / "node"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> dict[str, Any]:
    """Run the session once and return what it saw."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (FOLDER / "node_modules" / "openai").is_dir():
        pytest.skip("the openai package for Node is not installed: npm ci --prefix tests/clients/node")
    gateway = await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url})
    cut = scripts.stream(scripts.text_events("one two three")[:3], end=b"", close=False, then="close")
    upstream_of_file.on_model("cut", cut)
    upstream_of_file.on_model("broken", scripts.raw(b"", then="close"))
    process = await asyncio.create_subprocess_exec(
        "node",
        "session.mjs",
        f"{gateway.url}/v1",
        "sk-test-caller-2100",
        cwd=FOLDER,
        env={"PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, complaints.decode()
    told: dict[str, Any] = json.loads(output)
    return told


async def test_a_completion(seen: dict[str, Any]) -> None:
    """An answer is an answer, with usage and the gateway's request id."""
    assert seen["whole"]["text"] == "Hello there"
    assert seen["whole"]["usage"]["total_tokens"] == 9
    assert seen["whole"]["requestId"].startswith("req_")
    assert seen["whole"]["requestId"] == seen["whole"]["header"]


async def test_a_stream(seen: dict[str, Any]) -> None:
    """A stream yields its words and ends by itself; usage comes only to who asked."""
    assert seen["stream"] == {"text": "a b c", "usage": None}
    assert seen["streamWithUsage"]["text"] == "a b c"
    assert seen["streamWithUsage"]["usage"]["total_tokens"] == 10


async def test_models(seen: dict[str, Any]) -> None:
    """Models can be listed, and one can be looked at."""
    assert "demo/echo" in seen["models"]
    assert seen["model"] == "demo/echo"


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("unknownModel", 404, "model_not_found"),
        ("unknownKey", 401, "invalid_api_key"),
        ("noKey", 401, "invalid_api_key"),
        ("wrongField", 400, "invalid_value"),
        ("limit", 429, None),
        ("broken", 502, "upstream_error"),
    ],
)
async def test_errors_are_of_their_class(seen: dict[str, Any], name: str, status: int, code: str | None) -> None:
    """Each failure has the class, the status and the code that applications look at."""
    classes = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}
    error = seen["errors"][name]
    assert (error["class"], error["status"]) == (classes.get(status, "InternalServerError"), status)
    assert code is None or error["code"] == code
    assert error["requestId"].startswith("req_")


async def test_a_stream_that_breaks_throws(seen: dict[str, Any]) -> None:
    """The words that came are there, and then the client throws."""
    assert seen["cut"]["text"] == "one two"
    assert seen["cut"]["error"]["code"] == "upstream_error"
