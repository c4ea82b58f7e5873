"""`chatgate connect` prints what connects a client, and nothing that would not work."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from chatgate.cli import main
from chatgate.cli.connect import clients
from chatgate.cli.connect.clients import PROTOCOLS, Values
from chatgate.cli.connect.page import page

URL, KEY, MODEL = "https://gate.example:8443", "sk-cg-test-0007", "maker/model:7b-2026.1"
CLIENTS = clients.load()
ROOT = Path(__file__).parents[2]
PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
    "sh": shlex.split,
}


def run(*arguments: str, config: str = "", **environment: str) -> Result:
    """Run the command in an empty environment but for what is given here, with a configuration of its own."""
    clean = {**dict.fromkeys(os.environ), "LANG": "C.UTF-8", **environment}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "chatgate.toml")
        file.write_text(config)
        result = CliRunner().invoke(main, ["connect", *arguments, "--config", str(file)], env=clean)
    assert not isinstance(result.exception, Exception), result.output
    return result


# --- The list ---------------------------------------------------------------------------------------------------------


def test_each_client_has_a_line() -> None:
    """Its name, its title and what it speaks."""
    result = run()
    assert result.exit_code == 0
    heading, *lines = result.stdout.splitlines()
    assert heading.split() == ["NAME", "CLIENT", "SPEAKS"]
    assert [line.split()[0] for line in lines] == list(CLIENTS)


def test_each_protocol_has_a_client() -> None:
    """And the most common clients are there."""
    assert {"curl", "openai-python", "cherry-studio", "cline", "continue", "open-webui", "dify"} <= set(CLIENTS)
    assert {client.protocol for client in CLIENTS.values()} == set(PROTOCOLS)


# --- A client ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIENTS)
def test_a_configuration_is_whole(name: str) -> None:
    """It has the address, the key and the model, no placeholder is left, and where each part belongs is said."""
    result = run(name, "--url", URL, "--key", KEY, "--model", MODEL)
    assert result.exit_code == 0
    for value in (URL, KEY, MODEL):
        assert value in result.stdout
    assert not re.search(r"@[A-Z]+@", result.output)
    assert "127.0.0.1" not in result.stdout
    for part in CLIENTS[name].parts:
        assert f"In {part.where}:" in result.stderr
        assert part.where not in result.stdout


@pytest.mark.parametrize("name", CLIENTS)
def test_every_part_can_be_read(name: str) -> None:
    """JSON, YAML, TOML and shell are that after they are filled in, also with odd names; so is Python."""
    values = Values(URL, KEY, MODEL)
    for part in CLIENTS[name].parts:
        text = clients.filled(CLIENTS[name], part, values)
        if part.language == "python":
            compile(text, name, "exec")
        elif part.language not in {"text", "js"}:
            assert PARSERS[part.language](text)


@pytest.mark.parametrize("written", ["Open WebUI", "open_webui", "OPEN-WEBUI"])
def test_names_are_taken_as_they_are_written(written: str) -> None:
    """Capitals, blanks and underscores are no obstacle."""
    assert run(written).stdout == run("open-webui").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["opencod"], "did you mean opencode?"),
        (["zzzz"], "chatgate connect lists them"),
        (["curl", "--url", "gate.example"], "--url must be"),
        (["curl", "--url", "http://"], "--url must be"),
        (["curl", "--url", "http://a'; rm -rf '"], "--url must be"),
        (["curl", "--key", "it's"], "--key must be"),
        (["curl", "--model", "a b"], "--model must be"),
        (["curl", "--model", "$(reboot)"], "--model must be"),
        (["curl", "--model", "@KEY@"], "--model must be"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    """What would break out of a quotation, or is no client, is refused with a hint and nothing is printed."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr


def test_a_bad_configuration() -> None:
    """The settings are read first, for the address comes from them."""
    assert run("curl", config="[server]\nport = true\n").exit_code == 78


# --- The address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", "http://127.0.0.1:5000"),
        ('[server]\nhost = "0.0.0.0"\nport = 8123\n', "http://127.0.0.1:8123"),
        ('[server]\nhost = "::"\n', "http://[::1]:5000"),
        ('[server]\nhost = "::1"\n', "http://[::1]:5000"),
        ('[server]\nhost = "192.0.2.7"\n', "http://192.0.2.7:5000"),
    ],
)
def test_the_configured_address(config: str, expected: str) -> None:
    """A server on every address is reached at this machine's own."""
    assert f"curl {expected}/v1/chat/completions" in run("curl", config=config).stdout


@pytest.mark.parametrize(
    "written", ["https://gate.example/ai", "https://gate.example/ai/v1", "https://gate.example/ai/v1/"]
)
def test_an_address_with_a_path(written: str) -> None:
    """The `/v1` is there once, whether it was given or not."""
    assert "curl https://gate.example/ai/v1/chat/completions" in run("curl", "--url", written).stdout


def test_a_client_in_a_container_reaches_its_host() -> None:
    """127.0.0.1 would be the container itself; another address stays as it is."""
    result = run("open-webui")
    assert "http://host.docker.internal:5000/v1" in result.stdout
    assert "--host 0.0.0.0" in result.stderr
    assert "http://host.docker.internal:9/v1" in run("open-webui", "--url", "http://localhost:9").stdout
    assert "http://localhost.example/v1" in run("open-webui", "--url", "http://localhost.example").stdout
    assert "127.0.0.1:5000" in run("aider").stdout


# --- Key and model ----------------------------------------------------------------------------------------------------


def test_without_a_providers_key_it_is_the_demo_model() -> None:
    """What is printed answers at once; the words say that it is a demo."""
    result = run("curl")
    assert "demo/echo" in result.stdout
    assert "Bearer none'" in result.stdout
    assert "demo model" in result.stderr


def test_with_a_providers_key_it_is_the_plain_apis_model() -> None:
    """The provider's own key is in no output: callers need none."""
    upstream = '[[upstreams]]\nname = "main"\nprovider = "deepseek"\napi_key_env = "DEEPSEEK_API_KEY"\n'
    result = run("curl", config=upstream, DEFAULT_MODEL="gpt-test", DEEPSEEK_API_KEY="sk-test-provider")
    assert "gpt-test" in result.stdout
    assert "Bearer none'" in result.stdout
    assert "sk-test-provider" not in result.output
    assert "demo" not in result.output


def test_callers_who_bring_the_providers_key_are_told_so() -> None:
    """The word `none` would be refused by the provider."""
    for result in (run("curl", "--model", "gpt-test"), run("curl", DEFAULT_MODEL="gpt-test")):
        assert "gpt-test" in result.stdout
        assert "Bearer sk-…'" in result.stdout
        assert "bring their own" in result.stderr


def test_where_keys_are_needed_one_is_asked_for() -> None:
    """A server without anonymous callers needs a key of its own; given one, nothing more is said."""
    closed = "[access]\nanonymous = false\n"
    result = run("curl", config=closed)
    assert "Bearer sk-cg-…'" in result.stdout
    assert "chatgate keys create" in result.stderr
    for given in (run("curl", "--key", KEY, config=closed), run("curl", config=closed, CHATGATE_KEY=KEY)):
        assert f"Bearer {KEY}'" in given.stdout
        assert "chatgate keys create" not in given.stderr


def test_words_are_in_the_configured_language() -> None:
    """The configuration itself is the same in all of them."""
    chinese, english = run("open-webui", LANG="zh_CN.UTF-8"), run("open-webui")
    assert chinese.stdout == english.stdout
    assert "演示模型" in chinese.stderr
    assert run(LANG="ru_RU.UTF-8").stdout.startswith("ИМЯ")


# --- The page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_what_the_command_prints() -> None:
    """After a change: python -m chatgate.cli.connect.page > docs/clients.md."""
    assert (ROOT / "docs" / "clients.md").read_text() == page()
