"""The demo clients that the seed published run against the gateway unmodified.

Their text is not part of this repository. Where the seed's document lies beside it, both programs are cut out of the
document, get back the indentation that it lost and the address and key that their comments ask for, and are run as
they are. Clients of ours that send and read the same fields are run in any case.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = Path(__file__).parents[3] / "shared" / "seed"
CALLER_KEY = "sk-test-caller-1200"

SINGLE_TURN = """
import json
import sys
import requests

system = input("sys> ")
question = input("user> ")
fields = dict(system_content=system, user_content=question, model="gpt-3.5-turbo", continuous=[], max_tokens=3000)
answer = requests.post("URL", json=fields | {"api_key": "KEY"})
if answer.status_code != 200:
    print(answer.status_code, answer.text)
    sys.exit(1)
result = json.loads(answer.text)
print(f"ChatGPT> {result['current_response']}")
"""

CONTINUOUS = """
import json
import requests

system = input("sys> ")
while (question := input("user> ")).lower() not in ("exit", "quit"):
    fields = dict(system_content=system, user_content=question, model="gpt-3.5-turbo", continuous=[], max_tokens=3000)
    answer = requests.post("URL", json=fields | {"api_key": "KEY"})
    if answer.status_code != 200:
        print(answer.status_code, answer.text)
        continue
    result = json.loads(answer.text)
    print(f"ChatGPT> {result['current_response']}")
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run the gateway as the seed's compose file does, without its limits and without a key of the server's."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url, "ROUTE": "api", "LANG": "zh_CN"})


@pytest.fixture(params=["seed", "ours"])
def programs(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Return both programs, `single` and `continuous`: the seed's, and ours which ask and read the same."""
    if request.param == "ours":
        return {"single": SINGLE_TURN, "continuous": CONTINUOUS}
    documents = sorted(SEED.glob("*.txt")) if SEED.is_dir() else []
    if not documents:
        pytest.skip("the seed's document is not here; only clients of ours were run")
    found = [program for document in documents for program in programs_of(document.read_text())]
    return {"continuous" if "while True:" in program else "single": program for program in found}


def programs_of(document: str) -> list[str]:
    """Cut the demo programs out of the seed's document and give them back their indentation.

    A program runs from its first import to its last line of Python; `indented` finds where the blocks end.
    """
    lines = document.splitlines()
    blocks: list[list[str]] = []
    for number, line in enumerate(lines):
        starts = line.startswith("import ") and not lines[number - 1].startswith("import ")
        if starts:
            blocks.append([])
        if blocks:
            blocks[-1].append(line)
    return [indented(block) for block in blocks]


def indented(lines: list[str]) -> str:
    """Indent a program that lost its indentation, and nothing else of it.

    A colon at a line's end opens a block. A block ends where its kind says: `if` before `else`, after `continue`,
    `break` and `sys.exit`, which nothing can follow; `while True` where the program takes its leave, which is the only
    thing that follows the loop. Inside braces the depth stays.
    """
    written = []
    depth = braces = loop_depth = 0
    for line in lines:
        text = line.strip()
        if text.startswith("print(") and text.endswith('退出")'):
            depth = loop_depth = 0
        if text.startswith("#"):
            depth = loop_depth
        written.append("    " * (depth + braces) + text)
        code = text.split("  #")[0].split(" #")[0].rstrip()
        braces += code.count("{") - code.count("}") if code.endswith(("{", "}")) else 0
        if code.endswith(":"):
            depth += 1
            loop_depth = depth if code.startswith("while") else loop_depth
        if code in {"break", "continue"} or code.startswith("sys.exit"):
            depth -= 1
    return "\n".join(written) + "\n"


async def run(program: str, gateway: Gateway, directory: Path, typed: str) -> tuple[int, str]:
    """Run a program with the address and key put where its comments ask for them; return its exit code and output."""
    for placeholder, value in (
        ("https://chatgpt.example.com/api", f"{gateway.url}/api"),
        ("Your API Key", CALLER_KEY),
        ('"URL"', f'"{gateway.url}/api"'),
        ('"KEY"', f'"{CALLER_KEY}"'),
    ):
        program = program.replace(placeholder, value)
    path = directory / "client.py"
    path.write_text(program)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(path),
        env={"PYTHONIOENCODING": "utf-8"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(typed.encode()), 30)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_the_single_turn_client_gets_its_answer(
    gateway: Gateway, upstream: FakeUpstream, programs: Mapping[str, str], tmp_path: Path
) -> None:
    """One question, one answer, through the published program."""
    upstream.queue(scripts.whole(scripts.completion("四")))
    code, output = await run(programs["single"], gateway, tmp_path, "Answer briefly.\n二加二?\n")
    assert code == 0, output
    assert "ChatGPT> 四" in output
    call = await upstream.last_call()
    assert call.header("authorization") == f"Bearer {CALLER_KEY}"
    asked = call.json()
    assert asked["model"] == "gpt-3.5-turbo"
    assert asked.get("max_tokens", asked.get("max_completion_tokens")) == 3000
    assert asked["messages"] == [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "二加二?"},
    ]


async def test_the_continuous_client_goes_on_until_it_is_told_to_stop(
    gateway: Gateway, upstream: FakeUpstream, programs: Mapping[str, str], tmp_path: Path
) -> None:
    """Question after question until `exit`, and a failure in between does not end the program."""
    refusal = scripts.whole(scripts.error_body("no such model", "model_not_found"), 404)
    upstream.queue(scripts.whole(scripts.completion("one")), refusal, scripts.whole(scripts.completion("three")))
    code, output = await run(programs["continuous"], gateway, tmp_path, "Count.\na\nb\nc\nEXIT\n")
    assert code == 0, output
    assert output.index("ChatGPT> one") < output.index("400") < output.index("ChatGPT> three")
    assert [json.loads(call.body)["messages"][-1]["content"] for call in upstream.calls] == ["a", "b", "c"]


async def test_the_client_shows_the_servers_reason(
    gateway: Gateway, upstream: FakeUpstream, programs: Mapping[str, str], tmp_path: Path
) -> None:
    """A refusal is JSON with a reason in the server's language, which the client prints."""
    upstream.queue(scripts.refuse_key)
    code, output = await run(programs["single"], gateway, tmp_path, "\nHi\n")
    assert code == 1
    assert "401" in output
    assert '"msg":"failed"' in output.replace(" ", "")
