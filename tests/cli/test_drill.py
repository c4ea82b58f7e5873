"""`chatgate drill`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chatgate.cli.drill import drill

CONFIGURATION = """
[retry]
max_retries = {retries}
[[upstreams]]
name = "main"
base_url = "https://main.example/v1"
api_key = "sk-test-secret"
[[models]]
name = "one"
targets = [{{ upstream = "main" }}]
[[models]]
name = "two"
targets = [{{ upstream = "main" }}]
[[models]]
name = "three"
targets = [{{ upstream = "main" }}]
[[models]]
name = "four"
targets = [{{ upstream = "main" }}]
"""

CARELESS = """
[retry]
recovery = "error"
[[upstreams]]
name = "backup"
base_url = "https://backup.example/v1"
[[upstreams]]"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory with a configuration."""
    (tmp_path / "chatgate.toml").write_text(CONFIGURATION.format(retries=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(drill, arguments, env={})


def test_the_scorecard_can_be_read(directory: Path) -> None:
    """It names models, scenarios, verdicts and their sum, leaves the fourth model out, and shows no secret."""
    result = run("--only", "all is well", "--only", "s04")
    assert result.exit_code == 0, result.output
    for said in (
        "3 scenarios for each model, with short timeouts",
        "one → main/one",
        "three → main/three",
        "pass        all is well (stream)",
        "safe    S04 overloaded (stream)",
        "6 pass, 0 partial, 3 safe, 0 fail",
        "3 of them: a fallback at another upstream",
        "1 more models were left out; --all drills them too",
    ):
        assert said in result.output
    assert "four" not in result.output
    assert "sk-test" not in result.output
    assert sorted(path.name for path in directory.iterdir()) == ["chatgate.toml"]


def test_a_program_can_read_it(directory: Path) -> None:
    """`--json` prints one object with every verdict and every attempt."""
    result = run("--only", "all is well", "--all", "--json")
    assert result.exit_code == 0, result.output
    card = json.loads(result.stdout)
    assert [model["model"] for model in card["models"]] == ["one", "two", "three", "four"]
    first = card["models"][0]["results"][0]
    assert (first["scenario"], first["stream"], first["verdict"]) == ("all is well", True, "pass")
    assert [attempt["place"] for attempt in first["attempts"]] == ["main/one"]
    assert card["summary"] == {"pass": 8, "partial": 0, "safe": 0, "fail": 0}
    assert directory.exists()


def test_a_failure_is_told_and_exits_with_one(directory: Path) -> None:
    """Whoever configures no rescue for streams is shown what happens, and how to change it."""
    file = directory / "chatgate.toml"
    models = file.read_text().partition("[[upstreams]]")[2].partition('[[models]]\nname = "two"')[0]
    file.write_text(CARELESS + models.replace('upstream = "main" }', 'upstream = "main" }, { upstream = "backup" }'))
    result = run("--only", "s08")
    assert result.exit_code == 1, result.output
    for said in (
        "fail    S08 stream cut (stream)",
        "not rescued (upstream_error), although",
        "the provider closes the connection after 40 of 60 words",
        'what would rescue it: recovery = "resume"',
        "fail: callers or providers would suffer from this",
    ):
        assert said in result.output


def test_a_configuration_that_is_bad_is_no_drill(directory: Path) -> None:
    """It exits with 78 and says why."""
    (directory / "chatgate.toml").write_text("[server]\nport = -1\n")
    result = run()
    assert result.exit_code == 78
    assert "port" in result.stderr


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("option", ["--only", "--model"])
def test_what_does_not_exist_is_wrong_usage(option: str) -> None:
    """A name that nothing has is no drill that passes."""
    result = run(option, "no such thing")
    assert result.exit_code == 2
    assert option in result.output


@pytest.mark.usefixtures("directory")
def test_one_model_can_be_chosen() -> None:
    """A model beyond the first ones is drilled alone when it is named."""
    result = run("--model", "four", "--only", "all is well")
    assert result.exit_code == 0, result.output
    assert "four → main/four" in result.output
    assert "2 pass, 0 partial, 0 safe, 0 fail" in result.output
    assert "left out" not in result.output
