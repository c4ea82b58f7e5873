"""The README in its four languages: what it shows runs, what it lists is what the code knows, and the four agree.

Commands, programs and outputs are cut out of the documents and tried against a gateway that speaks the document's
language. An output is the `json` or `text` block that directly follows a command.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from msgspec import NODEFAULT, Struct

from chatgate.cli import main
from chatgate.cli.chat import chat
from chatgate.paths import Table
from chatgate.protocols import openai_errors, plain
from chatgate.protocols.anthropic import errors as anthropic_errors
from chatgate.protocols.gemini import errors as gemini_errors
from chatgate.providers import demo, spec
from chatgate.server.limits import WireLimits
from chatgate.settings.keys import LISTS, SECTIONS, ServerKeys, TargetKeys
from chatgate.vocabulary.errors import Kind
from chatgate.vocabulary.exchange import Operation
from fakes.gateway import Gateway, StartGateway, running

ROOT = Path(__file__).parents[1]
NODE = Path(__file__).parent / "clients" / "node"
LANGUAGES = {
    "README.md": "en_US",
    "README-zh_CN.md": "zh_CN",
    "README-zh_TW.md": "zh_TW",
    "README-ru_RU.md": "ru_RU",
}
ADDRESS = "http://127.0.0.1:5000"
KEY = "sk-cg-…"
"""What stands for a key of the reader's own gateway."""

SECONDS = 30
FOLDING_LOOKS = 30
"""How often the record is looked at until a call is in it; each look takes about a second."""

NO_SETTINGS = {"POSIX", "HOME", "XDG_DATA_HOME"}
"""Names in the sources of the settings that an operator does not set."""

TEXT_KEYS = "user_content|content|response|current_response|delta"
"""Members of JSON that hold what people say."""

UNLISTED = {Operation.PAGE, Operation.PROBE, Operation.UNKNOWN, Operation.RESPONSE_PREPARATION}
"""What has no path of its own, or is for machines."""

in_each = pytest.mark.parametrize("name", LANGUAGES)


@dataclass(frozen=True)
class Block:
    """A fenced block of code, and the one that directly follows it with nothing but blank lines between."""

    language: str
    text: str
    output: Block | None = None


@cache
def read(name: str) -> str:
    """Return a document."""
    return (ROOT / name).read_text()


@cache
def blocks(name: str) -> tuple[Block, ...]:
    """Return the blocks of a document in order."""
    found = list(re.finditer(r"^```(\w+)\n(.*?)^```\n(\s*)", read(name), re.MULTILINE | re.DOTALL))
    made: list[Block] = []
    for match in reversed(found):
        after = made[-1] if made and read(name).startswith(("```json", "```text"), match.end()) else None
        made.append(Block(match[1], match[2], after))
    return tuple(reversed(made))


def blocks_in(name: str, *languages: str) -> list[Block]:
    """Return the blocks in some languages; there is at least one."""
    found = [block for block in blocks(name) if block.language in languages]
    assert found
    return found


def commands(name: str, start: str) -> list[Block]:
    """Return the shell blocks that start so; there is at least one."""
    found = [block for block in blocks_in(name, "sh") if re.match(start, block.text)]
    assert found
    return found


@cache
def prose(name: str) -> str:
    """Return a document with its blocks emptied, one line for each."""
    return re.sub(r"^```(\w+)\n.*?^```$", r"```\1", read(name), flags=re.MULTILINE | re.DOTALL)


def tables(name: str) -> list[list[list[str]]]:
    """Return the tables of a document as rows of cells, without their headings."""
    found = re.findall(r"^\|.*\n\|[-|: ]+\|\n((?:\|.*\n)+)", prose(name), re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] for table in found]


def table_with(name: str, key: str) -> dict[str, list[str]]:
    """Return the only table that has a row named `key`, as cells by the name that the first cell shows as code."""
    (found,) = (table for table in tables(name) if any(row[0] == f"`{key}`" for row in table))
    named = {row[0].strip("`"): row[1:] for row in found}
    assert len(named) == len(found)
    return named


def outline(name: str) -> Iterator[str]:
    """Yield what is the same in every language: levels of headings, code in rows, items, blocks, links."""
    for line in prose(name).splitlines():
        if heading := re.match(r"#+ ", line):
            yield heading[0]
        elif line.startswith("|"):
            yield f"{line.count('|') - 1} cells: {sorted(re.findall('`[^`]+`', line))}"
        elif line.startswith(("- ", "```")):
            yield line if line.startswith("```") else "-"
        yield from (target for target in re.findall(r"\]\(([^)#]+)\)", line) if not target.startswith("README"))


def without_words(block: Block) -> str:
    """Return a block without comments and without what people say in it."""
    text = re.sub(rf'"({TEXT_KEYS})":\s*"(?:[^"\\]|\\.)*"', r'"\1": "…"', block.text)
    text = re.sub(r'"((?:[^"\\\n]|\\.)*)"', lambda m: '"…"' if " " in m[1] or not m[1].isascii() else m[0], text)
    if block.language in {"sh", "toml", "nginx"}:
        text = re.sub(r"(^|\s)\s*#.*$", "", text, flags=re.MULTILINE)
    if block.language == "text":
        text = re.sub(r"^(?!data:).+$", "…", text, flags=re.MULTILINE)
    return text


def said_in(block: Block) -> list[str]:
    """Return the strings of a program that people say."""
    return [text for text in re.findall(r'"([^"\n]+)"', block.text) if " " in text or not text.isascii()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(start_gateway: StartGateway) -> dict[str, Gateway]:
    """Run a gateway for each document, in its language and with neither key nor file."""
    return {name: await start_gateway({"LANG": f"{language}.UTF-8"}) for name, language in LANGUAGES.items()}


def run(command: list[str], text: str, directory: Path, **environment: str) -> str:
    """Run a program that reads `text` from its standard input, and return what it printed; it must succeed."""
    done = subprocess.run(
        command,
        input=text,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shell(text: str, directory: Path, **environment: str) -> str:
    """Run a shell's lines in which the gateway's program is this environment's, and return what they printed."""
    return run(
        ["sh", "-eu"], text.replace(".venv/bin/chatgate", f"{sys.executable} -m chatgate"), directory, **environment
    )


def curl(block: Block, gateway: Gateway, directory: Path, key: str = KEY) -> str:
    """Run a curl line against a gateway, with a key where one belongs, and return the answer."""
    return shell(block.text.replace("curl ", "curl -sS ").replace(ADDRESS, gateway.url).replace(KEY, key), directory)


def ids_alike(text: str) -> str:
    """Return an answer in which every request has the same id."""
    return re.sub(r"req_[0-9a-f]+", "req_0", text)


# --- The four agree ---------------------------------------------------------------------------------------------------


@in_each
def test_the_structure_is_the_same(name: str) -> None:
    """Each document has the headings, tables, rows, lists, blocks and links of the English one, in its order."""
    assert list(outline(name)) == list(outline("README.md"))


@in_each
def test_the_blocks_are_the_same_but_for_what_people_say(name: str) -> None:
    """A program differs from the English one in its comments and its texts only."""
    assert [(block.language, without_words(block)) for block in blocks(name)] == [
        (block.language, without_words(block)) for block in blocks("README.md")
    ]


@in_each
def test_links_lead_somewhere(name: str) -> None:
    """Relative links name files of the project, anchors name headings, and each document leads to the other three."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(([^)]+)\)", prose(name))
    for target in targets:
        path, _, anchor = target.partition("#")
        assert (ROOT / path).is_file() if path else anchor in anchors, target
    assert set(LANGUAGES) - {name} <= set(targets)


# --- What is listed is what there is ----------------------------------------------------------------------------------


@in_each
def test_the_environment_is_the_codes(name: str) -> None:
    """The table of variables names those that the settings and the terminal client read, and no others."""
    sources = [*(ROOT / "src/chatgate/settings").glob("[!_]*.py"), ROOT / "src/chatgate/cli/chat/command.py"]
    texts = {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    known = {text for text in texts if re.fullmatch(r"[A-Z][A-Z0-9]+(_[A-Z0-9]+)*", text)}
    assert set(table_with(name, "API_KEY")) == known - NO_SETTINGS


@in_each
def test_the_defaults_of_the_environment_are_the_codes(name: str) -> None:
    """The default model is the one of the provider's file, and the address to listen on that of the settings."""
    table = table_with(name, "API_KEY")
    defaults = {f"CHATGATE_{key.upper()}": str(getattr(ServerKeys(), key)) for key in ("host", "port", "workers")}
    defaults["DEFAULT_MODEL"] = str(spec.load()["openai"].small_model)
    defaults["OPENAI_BASE_URL"] = str(spec.load()["openai"].base_url)
    for variable, default in defaults.items():
        assert table[variable][1].startswith(f"`{default}`"), variable


@in_each
def test_the_file_is_the_codes(name: str) -> None:
    """The table of the file's keys names each of them, and its default where it has one."""
    shown = table_with(name, "server.host")
    keys: dict[str, type[Struct]] = {**SECTIONS, **LISTS, "models.targets": TargetKeys}
    fields = {f"{table}.{field.name}": field for table in keys for field in msgspec.structs.fields(keys[table])}
    assert set(shown) == set(fields)
    for key, field in fields.items():
        default = field.default if field.default_factory is NODEFAULT else field.default_factory()
        if default is not NODEFAULT and default is not None:
            assert tomllib.loads(f"default = {shown[key][1].strip('`')}") == {"default": default}, key


@in_each
def test_the_example_file_is_a_configuration(name: str, tmp_path: Path) -> None:
    """The gateway takes the example, and has nothing to warn of."""
    (block,) = blocks_in(name, "toml")
    (tmp_path / "chatgate.toml").write_text(block.text)
    (tmp_path / "openai.key").write_text("sk-test-readme-0001\n")
    told = shell(".venv/bin/chatgate check", tmp_path, HOME=str(tmp_path))
    assert "this configuration is fine" in told
    assert "warnings" not in told


@in_each
def test_the_fields_are_the_plain_apis(name: str) -> None:
    """The table of fields names all that the plain API reads, both spellings included, and its bounds."""
    table = table_with(name, "user_content")
    named = {field for cells in [[key, *cells] for key, cells in table.items()] for field in _words_of(" ".join(cells))}
    assert set(table) <= plain.FIELDS <= named | set(table)
    for bound in (plain.MAX_TOKENS_LOW, plain.MAX_TOKENS_HIGH, plain.MAX_TOKENS_DEFAULT):
        assert re.search(rf"\b{bound}\b", table["max_tokens"][1], re.ASCII)


def _words_of(text: str) -> list[str]:
    return re.findall(r"[a-z_]+", text)


@in_each
def test_the_errors_are_the_codes(name: str) -> None:
    """The table of errors names every situation with its status in each protocol."""
    dialect = plain.PlainDialect("")
    statuses = (dialect.status_of, openai_errors.status_of, anthropic_errors.status_of)
    assert all(gemini_errors.status_of(kind) == openai_errors.status_of(kind) for kind in Kind)
    assert {code: cells[1:] for code, cells in table_with(name, "invalid_json").items()} == {
        kind.value: [str(status_of(kind)) for status_of in statuses] for kind in Kind
    }


@in_each
def test_the_paths_exist(name: str) -> None:
    """Each path that the document lists is an endpoint, and every operation but the page is listed."""
    paths = [path.replace("{id}", "x").split(" ") for path in table_with(name, "GET /healthz")]
    listed = {Table("").find(method, path, upgrades=True).operation for method, path in paths}
    assert listed == set(Operation) - UNLISTED


@in_each
def test_the_demo_models_are_all_there(name: str) -> None:
    """The table of demo models is the list of them."""
    assert tuple(table_with(name, "demo/echo")) == demo.MODELS


@in_each
def test_the_commands_and_options_exist(name: str) -> None:
    """The commands are the program's, the terminal client's options are its options, `make …` are targets."""
    named = {command for row in table_with_commands(name) for command in re.findall(r"`chatgate (\w+)`", row)}
    context = main.make_context("chatgate", ["check"])
    assert named == set(main.list_commands(context))
    options = {option for each in chat.params if not getattr(each, "hidden", False) for option in each.opts}
    assert set(table_with(name, "--url")) == options - {"message"}
    targets = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^|\s)make ([a-z]+)", read(name), re.MULTILINE)) <= targets


def table_with_commands(name: str) -> list[str]:
    """Return the first cells of the table of commands."""
    (found,) = (table for table in tables(name) if table[0][0].startswith("`chatgate`"))
    return [row[0] for row in found]


@in_each
def test_the_fixed_limits_are_the_servers(name: str) -> None:
    """The sizes that the document promises are those that the server enforces."""
    limits = WireLimits()
    for size in (f"{limits.body_bytes >> 20} (MiB|МиБ)", f"{limits.header_bytes >> 10} (KiB|КиБ)"):
        assert re.search(size.replace(" ", "[ \N{NO-BREAK SPACE}]"), prose(name)), size


# --- What is shown runs -----------------------------------------------------------------------------------------------


@in_each
def test_every_command_is_known(name: str) -> None:
    """No command stands in a document that none of the tests below runs, except those of the container engine."""
    lines = [line for block in blocks_in(name, "sh") for line in re.split(r"(?<![\\'{\[,])\n(?![ \]}])", block.text)]
    starts = r"curl |\.venv/bin/chatgate |(\w+=\S+ )*make run|docker |cp \.env\.example \.env|$"
    assert [line for line in lines if not re.match(starts, line)] == []


def test_starting_with_these_settings_is_possible(tmp_path: Path) -> None:
    """`make run` with the variables and arguments that are shown finds a configuration without a fault."""
    (tmp_path / "openai.key").write_text("sk-test-readme-0002\n")
    for text in sorted({block.text for name in LANGUAGES for block in commands(name, r"(\w+=\S+ )*make run")}):
        line = re.sub(r"make run(?: ARGS='([^']*)')?", r".venv/bin/chatgate check \1", text)
        assert "this configuration is fine" in shell(line, tmp_path, HOME=str(tmp_path))


@in_each
def test_curl_gets_what_is_shown(name: str, gateways: dict[str, Gateway], tmp_path: Path) -> None:
    """Every curl line gets an answer, and the one that the document shows where it shows one."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for block in commands(name, "curl "):
        if KEY in block.text:
            continue  # The story of the key carries it out.
        told = curl(block, gateways[name], tmp_path)
        if block.output is None:
            assert "content" in told or json.loads(told)["code"] == 200, told
        elif block.output.language == "json":
            assert json.loads(ids_alike(told)) == json.loads(ids_alike(block.output.text))
        else:
            assert told.strip() == block.output.text.strip()


@in_each
async def test_a_key_is_made_and_used_and_its_call_counted(name: str, tmp_path: Path) -> None:
    """The first key that the document makes opens a gateway that lets in nobody else, and has its call on record."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (create,) = commands(name, r"\.venv/bin/chatgate keys create ")
    (call,) = (block for block in commands(name, "curl ") if KEY in block.text)
    (usage,) = commands(name, r"\.venv/bin/chatgate usage$")
    assert usage.output is not None
    async with running({"LANG": LANGUAGES[name], "CHATGATE_ACCESS__ANONYMOUS": "false"}) as gateway:
        data = str(gateway.directory / "data")
        assert json.loads(curl(call, gateway, tmp_path, "sk-cg-test-0001"))["code"] == 401
        key = re.search(r"sk-cg-\S+", shell(create.text, tmp_path, HOME=str(tmp_path), CHATGATE_DATA=data))
        assert key is not None
        assert json.loads(curl(call, gateway, tmp_path, key[0]))["code"] == 200
        for _ in range(FOLDING_LOOKS):
            told = shell(usage.text, tmp_path, HOME=str(tmp_path), CHATGATE_DATA=data)
            if told == usage.output.text:
                break
        assert told == usage.output.text


@in_each
def test_the_terminal_client_says_what_is_shown(name: str, gateways: dict[str, Gateway], tmp_path: Path) -> None:
    """A single question in the terminal gets the answer that the document shows."""
    for block in commands(name, r"\.venv/bin/chatgate chat "):
        told = shell(block.text, tmp_path, HOME=str(tmp_path), CHATGATE_URL=f"{gateways[name].url}/v1")
        assert block.output is not None
        assert told == block.output.text


def judge(block: Block, told: str) -> None:
    """Fail unless a program printed what the model it asks answers."""
    assert any(text in told for text in [*said_in(block), demo.STORY[:40]]), f"{block.text}\n{told}"


@in_each
def test_python_programs_run(name: str, gateways: dict[str, Gateway], tmp_path: Path) -> None:
    """Each Python program runs as it stands, and prints the model's answer."""
    for block in blocks_in(name, "python"):
        program = block.text.replace(ADDRESS, gateways[name].url)
        judge(block, run([sys.executable, "-"], program, tmp_path, PYTHONIOENCODING="utf-8"))


@in_each
def test_javascript_programs_run(name: str, gateways: dict[str, Gateway], tmp_path: Path) -> None:
    """Each JavaScript program that imports nothing runs in Node as it stands, and prints the model's answer."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    for block in blocks_in(name, "javascript"):
        if "import " not in block.text:
            judge(block, javascript(block, gateways[name], tmp_path))


@in_each
def test_the_javascript_sdk_works(name: str, gateways: dict[str, Gateway]) -> None:
    """The program that uses the openai package for Node runs as it stands, and prints the model's answer."""
    if shutil.which("node") is None or not (NODE / "node_modules" / "openai").is_dir():
        pytest.skip("node or its openai package is not installed: make clients")
    (block,) = (block for block in blocks_in(name, "javascript") if "import " in block.text)
    judge(block, javascript(block, gateways[name], NODE))


def javascript(block: Block, gateway: Gateway, directory: Path) -> str:
    """Run a program as a module and return what it printed; packages are looked for in the directory."""
    return run(["node", "--input-type=module", "-"], block.text.replace(ADDRESS, gateway.url), directory)


def test_what_is_run_is_not_nothing() -> None:
    """The documents hold as many examples as they promise, in every language that they promise them in."""
    counted: dict[str, Any] = {language: len(blocks_in("README.md", language)) for language in ("python", "javascript")}
    counted["curl"] = len(commands("README.md", "curl "))
    assert all(count >= 3 for count in counted.values()), counted
