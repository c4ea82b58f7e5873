"""`chatgate import litellm`: what of a config.yaml moves in, and what is told of the rest."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chatgate.cli import main

FILE = """
model_list:
  - model_name: gpt-fast
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://endpoint.example.com/
      api_key: os.environ/AZURE_API_KEY
  - model_name: gpt-fast
    litellm_params:
      model: openai/gpt-a
      api_key: sk-test-1
      rpm: 600
      temperature: 0.2
  - model_name: gpt-fast
    litellm_params:
      model: groq/llama-b
      api_key: os.environ/GROQ_KEY
      rpm: 200
      order: 2
  - model_name: local
    litellm_params:
      model: hosted_vllm/org/llama
      api_base: http://127.0.0.1:8000/v1
      max_parallel_requests: 4
    model_info:
      input_cost_per_token: 0.00000015
      output_cost_per_token: 6e-7
  - model_name: "*"
    litellm_params:
      model: "openai/*"
  - model_name: embed
    litellm_params: {model: openai/embedding, api_key: sk-test-1}
    model_info: {mode: embedding}

litellm_settings:
  num_retries: 3
  request_timeout: 600
  fallbacks: [{"gpt-fast": ["local", "nobody"]}, {"local": ["gpt-fast"]}]
  success_callback: ["langfuse"]

router_settings:
  model_group_alias: {"gpt-4": "gpt-fast", "ghost": "nobody"}

general_settings:
  master_key: sk-test-master
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory without a configuration and without the surroundings' variables."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("CHATGATE_") or name in {"LANG", "API_KEY", "NO_PROXY", "no_proxy", "OPENAI_BASE_URL"}:
            monkeypatch.delenv(name)
    return tmp_path


def run(*arguments: str, **environment: str) -> Result:
    """Run the program in this process."""
    result = CliRunner().invoke(main, list(arguments), env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def moved(text: str | Mapping[str, Any], **environment: str) -> tuple[Any, list[str]]:
    """Import a configuration; return chatgate's, which `chatgate check` has found sound, and what was not carried."""
    Path("config.yaml").write_text(text if isinstance(text, str) else json.dumps(text))
    result = run("import", "litellm", "config.yaml", "--json", "--inline-keys")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    Path("checked.toml").write_text(told["config"])
    checked = run("check", "--config", "checked.toml", **environment)
    assert checked.exit_code == 0, checked.output
    return tomllib.loads(told["config"]), told["not_carried"]


def item(name: str, model: str, **settings: Any) -> dict[str, Any]:
    """Return an item of the list of models, with a key."""
    return {"model_name": name, "litellm_params": {"model": model, "api_key": "sk-test-1", **settings}}


def test_a_configuration_moves_in() -> None:
    """Models with their deployments, shares, order, prices, fallbacks and aliases; each thing left out is told."""
    found, lost = moved(FILE, GROQ_KEY="sk-test-g", OPENAI_API_KEY="sk-test-o")
    assert found["access"] == {"anonymous": False}
    assert found["retry"] == {"max_retries": 3}
    assert found["timeouts"] == {"total_seconds": 600.0}
    assert found["prices"] == [{"model": "org/llama", "input_usd_per_million": "0.15", "output_usd_per_million": "0.6"}]
    openai = {"provider": "openai", "base_url": "https://api.openai.com/v1"}
    other = {"provider": "openai_compatible"}
    assert found["upstreams"] == [
        {"name": "openai", **openai, "api_key": "sk-test-1"},
        {
            "name": "groq",
            "provider": "groq",
            "base_url": "https://api.groq.com/openai/v1",
            "api_key_env": "GROQ_KEY",
        },
        {"name": "hosted_vllm", **other, "base_url": "http://127.0.0.1:8000/v1", "api_key": "none", "max_in_flight": 4},
        {"name": "openai-2", **openai, "api_key_env": "OPENAI_API_KEY"},
    ]
    assert found["models"] == [
        {
            "name": "gpt-fast",
            "aliases": ["gpt-4"],
            "targets": [
                {"upstream": "openai", "model": "gpt-a", "weight": 3, "priority": 1},
                {"upstream": "groq", "model": "llama-b"},
            ],
            "fallbacks": ["local"],
        },
        {"name": "local", "targets": [{"upstream": "hosted_vllm", "model": "org/llama"}]},
        {"name": "*", "targets": [{"upstream": "openai-2", "model": "*"}]},
    ]
    assert lost == [
        "model_list item 1 (gpt-fast): left out: chatgate cannot speak to azure",
        "model_list item 2 (gpt-fast): temperature is not carried",
        "model_list item 6 (embed): left out: chatgate serves no models of the mode embedding yet",
        "rpm: does not limit 2 deployments any more: chatgate's limit is alike for all upstreams",
        "model_group_alias ghost: not carried: it leads to no model that is carried",
        "fallback gpt-fast to nobody: not carried: one of the two is no model that is carried",
        "fallback local to gpt-fast: not carried: it would lead back to where it began",
        "general_settings.master_key: not carried: make keys with `chatgate keys create`",
        "litellm_settings.success_callback: is not carried",
    ]


@pytest.mark.parametrize(
    ("shares", "weights"),
    [
        ([{"weight": 0.7}, {"weight": 0.3}], [7, 3]),
        ([{"weight": 2, "rpm": 9}, {"weight": 1, "rpm": 9}], [2, 1]),
        ([{"tpm": 100_000}, {"tpm": 50_000}], [2, 1]),
        ([{}, {"rpm": 5}], [1, 1]),
        ([{"weight": 10**15}, {"weight": 1}], [10**6, 1]),
    ],
)
def test_shares_are_those_of_litellm(shares: list[dict[str, Any]], weights: list[int]) -> None:
    """The first deployment decides what they are counted by; they stay in proportion."""
    items = [item("m", f"openai/m{number}", **share) for number, share in enumerate(shares)]
    found, _ = moved({"model_list": items})
    assert [target.get("weight", 1) for target in found["models"][0]["targets"]] == weights


def test_a_deployment_without_a_share_comes_last() -> None:
    """As there, where it is never drawn; the order of the others stays."""
    items = [item("m", "openai/a", weight=5, order=2), item("m", "openai/b"), item("m", "openai/c", weight=5, order=1)]
    found, lost = moved({"model_list": items})
    assert [target.get("priority", 0) for target in found["models"][0]["targets"]] == [1, 3, 0]
    assert lost == ["model m: its deployment with no weight comes last"]


def test_limits_that_are_alike_are_carried() -> None:
    """Where each deployment has an upstream of its own, one limit for every upstream says the same."""
    same = {"rpm": 60, "tpm": 90_000}
    items = [item("m", "openai/m", **same), item("m", "openai/m", **(same | {"api_key": "sk-test-2", "tpm": 1}))]
    found, lost = moved({"model_list": items})
    assert found["limits"] == [{"scope": "upstream", "resource": "requests", "amount": 60, "per": "minute"}]
    assert [line.partition(":")[0] for line in lost] == ["tpm"]
    shared, lost = moved({"model_list": [item("m", "openai/m", rpm=60), item("n", "openai/n", rpm=60)]})
    assert "limits" not in shared
    assert [line.partition(":")[0] for line in lost] == ["rpm"]


def test_credentials_and_variables_of_the_file_are_followed() -> None:
    """What the file itself says of a variable is what counts, wherever it is named."""
    found, lost = moved(
        {
            "model_list": [
                {"model_name": "a", "litellm_params": {"model": "custom_openai/x", "litellm_credential_name": "c"}},
                item("b", "openai/y", api_base="os.environ/ELSEWHERE"),
                item("c", "deepseek/z", api_base="https://proxy.example.com"),
            ],
            "credential_list": [
                {
                    "credential_name": "c",
                    "credential_values": {"api_key": "os.environ/KEY", "api_base": "os.environ/BASE"},
                }
            ],
            "environment_variables": {"KEY": "sk-test-v", "BASE": "https://api.example.com/v2/"},
        }
    )
    assert [(each["base_url"], each["api_key"]) for each in found["upstreams"]] == [
        ("https://api.example.com/v2", "sk-test-v"),
        ("https://proxy.example.com/v1", "sk-test-1"),
    ]
    assert lost == [
        "model_list item 2 (b): left out: its api_base is in a variable; write the address there and import again"
    ]


def test_what_no_configuration_may_hold_is_left_out() -> None:
    """Each with its reason, and the rest is carried."""
    entries: list[Any] = [
        "text",
        item("demo/x", "openai/a"),
        item("two**", "openai/a"),
        item("m", "bedrock/a"),
        item("m", "mystery-7b"),
        item("m", "openai/*"),
        item("m", "hosted_vllm/a"),
        item("m", "openai/a", api_key="sk-test\n1"),
        item("m", "openai/a", api_key=7),
        item("m", "openai/a", api_key="os.environ/NOT A NAME"),
        item("m", "openai/a", api_base="ftp://example.com"),
        {"model_name": "m"},
        item("m", "openai/a", input_cost_per_token="free"),
        item("m", "openai/a"),
    ]
    found, lost = moved(
        {"model_list": entries, "router_settings": {"num_retries": 99, "timeout": -1}, "guardrails": []}
    )
    assert [model["targets"] for model in found["models"]] == [[{"upstream": "openai", "model": "a"}]]
    assert [line.split(": ", 1)[1] for line in lost] == [
        "left out: it is no table",
        "left out: names that begin with demo/ are built in",
        "left out: its name has more than one *",
        "left out: chatgate cannot speak to bedrock",
        "left out: it does not say whose model mystery-7b is",
        "left out: openai/* has a * that its name has not",
        "left out: it has no api_base, and hosted_vllm has no address of its own",
        "left out: its key is not one that a header can carry",
        "left out: its api_key is no text",
        "left out: its api_key names no variable that could be set",
        "left out: must be a URL that starts with http, https",
        "left out: it has no litellm_params.model",
        "its price is no amount of dollars, and is not carried",
        "left out: an earlier item leads to the same model with the same key",
        "is no whole number from 0 to 10, and is not carried",
        "is no number of seconds up to a day, and is not carried",
        "is not carried",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model_list: [", "it is no YAML (line 1)"),
        ("- 1", "it has no model_list"),
        ("model_list: {}", "it has no model_list"),
        ("model_list: !!python/object/apply:os.getcwd []", "it is no YAML (line 1)"),
        ("[" * 100_000, "it is no YAML that can be read"),
        ("#" * (1 << 20) + "##", "is larger than 1 MiB"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, complaint: str) -> None:
    """With a line that says why and repeats nothing of it; no object but plain values is ever made."""
    Path("config.yaml").write_text(text)
    result = run("import", "litellm", "config.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert complaint in result.stderr
    assert "getcwd" not in result.stderr
    assert run("import", "litellm", "nowhere.yaml").exit_code == 1


def test_a_file_that_refers_to_itself_is_read_in_no_time() -> None:
    """Thirty lists, each of which holds the one before nine times, would fill any memory if anybody wrote them out."""
    lines = ["b0: &b0 x"] + [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 30)]
    entry = "{model_name: *b29, litellm_params: {model: *b29, api_key: *b29, rpm: *b29, input_cost_per_token: *b29}}"
    lines += [f"model_list: [*b29, {entry}, {entry.replace('model_name: *b29', 'model_name: m')}]"]
    lines += ["litellm_settings: {fallbacks: [{m: *b29}], default_fallbacks: *b29, num_retries: *b29}"]
    found, lost = moved("\n".join(lines))
    assert "models" not in found
    assert "model_list item 2 (list): left out: has no name" in lost


def test_secrets_go_into_files_and_nowhere_else(home: Path) -> None:
    """A key that is in a variable stays there."""
    Path("config.yaml").write_text(FILE)
    result = run("import", "litellm", "config.yaml", "--output", "chatgate.toml")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (home / "upstream-keys").iterdir()] == ["openai"]
    assert "sk-test" not in result.output + (home / "chatgate.toml").read_text()
    assert result.stdout.startswith("4 upstreams, 3 models, 0 keys.\nwritten: upstream-keys/openai\n")
