"""`chatgate providers` tells what is known by name, and tries a vendor without ever showing the key."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from chatgate.cli import main
from chatgate.cli.providers.trouble import hint_of
from chatgate.providers import failures, spec
from chatgate.vocabulary.errors import GateError, UpstreamError
from chatgate.vocabulary.upstreams import Origin
from fakes import candidates, messages, scripts
from fakes.scripts import Script
from fakes.upstream import FakeUpstream

KEY = "sk-test-vendors-0001"
PLAIN, PROXIED = Origin("https", "up.invalid", 443), Origin("https", "up.invalid", 443, "http://proxy.invalid:3128")


@pytest_asyncio.fixture
async def vendor() -> AsyncIterator[FakeUpstream]:
    """Run a vendor that takes one key only."""
    async with FakeUpstream(KEY) as upstream:
        yield upstream


def run(*arguments: str, **environment: str) -> Result:
    """Run the command in an empty environment but for what is given here; the key is in no output."""
    clean = {**dict.fromkeys(os.environ), "LANG": "C.UTF-8", **environment}
    result = CliRunner().invoke(main, ["providers", *arguments], env=clean)
    assert KEY not in result.output
    assert not isinstance(result.exception, Exception), result.output
    return result


async def tried(*arguments: str, **environment: str) -> tuple[int, dict[str, str], str]:
    """Run a trial; return its exit code, what each step says, and all of it."""
    result = await asyncio.to_thread(run, "test", *arguments, **environment)
    lines = [line.split(None, 2) for line in result.output.splitlines() if not line.startswith(" ")]
    return result.exit_code, {step: f"{verdict} {said}" for step, verdict, said in lines}, result.output


# --- The list ---------------------------------------------------------------------------------------------------------


def test_each_vendor_has_a_line() -> None:
    """Its name, where it is, which variable its key is in, and what is odd about it."""
    result = run()
    assert result.exit_code == 0
    heading, *lines = result.output.splitlines()
    assert heading.split() == ["NAME", "BASE", "URL", "KEY", "IN", "NOTES"]
    assert [line.split()[0] for line in lines] == list(spec.load())
    said = {line.split()[0]: line for line in lines}
    assert "https://api.deepseek.com  " in said["deepseek"]
    assert "DEEPSEEK_API_KEY" in said["deepseek"]
    assert "goes on with broken answers" in said["mistral"]
    assert "Authorization: Api-Key" in said["yandex"]
    assert said["vllm"].split()[2] == "-"
    assert "no key needed" in said["vllm"]


def test_the_list_is_in_the_configured_language() -> None:
    """Chinese columns are aligned by what they take on a terminal."""
    heading, first, *_ = run(LANG="zh_CN.UTF-8").output.splitlines()
    assert heading.startswith("名称")
    assert heading.index("基础网址") + 2 == first.index("https://")


def test_programs_get_json() -> None:
    """All that a file says is there."""
    listed = {each["name"]: each for each in json.loads(run("--json").output)}
    assert list(listed) == list(spec.load())
    assert listed["azure"]["auth"] == "api-key: {key}"
    assert listed["together"]["failures"] == {"403": "length"}
    assert listed["mistral"]["renamed"]["seed"] == "random_seed"


# --- A trial ----------------------------------------------------------------------------------------------------------


async def test_a_vendor_that_is_well_passes_every_step(vendor: FakeUpstream) -> None:
    """It is reached, takes the key, lists models, and answers whole and streamed."""
    code, said, _ = await tried("deepseek", "--base-url", vendor.base_url, DEEPSEEK_API_KEY=KEY)
    assert code == 0
    assert list(said) == ["reached", "key", "models", "chat", "stream"]
    assert all(each.startswith("ok ") for each in said.values())
    assert "2 listed: gpt-fake-large" in said["models"]
    assert "Say hello." in said["chat"]
    assert [call.target for call in vendor.calls] == ["/v1/models", *["/v1/chat/completions"] * 2]
    whole, streamed = (call.json() for call in vendor.calls[1:])
    assert whole["model"] == "gpt-fake-large"
    assert whole["max_tokens"] == 64
    assert streamed["stream"] is True


async def test_vendors_with_protocols_of_their_own_are_tried_in_them() -> None:
    """Gemini and Anthropic, each as it is called and as it answers."""
    gemini_list = {"models": [{"name": "models/gemini-x"}]}
    claude_list = {"data": [{"type": "model", "id": "claude-x"}]}
    for name, listed, answers, where in (
        ("gemini", gemini_list, candidates.answering(candidates.text("Hello")), "/v1beta/models/m:generateContent"),
        ("anthropic", claude_list, messages.answering(messages.text_block("Hello")), "/v1/messages"),
    ):
        async with FakeUpstream() as upstream:
            upstream.queue(scripts.whole(listed), answers, answers)
            base = upstream.base_url.removesuffix("/v1")
            code, said, output = await tried(name, "--base-url", base, "--model", "m", "--key-env", "MINE", MINE=KEY)
            assert code == 0, output
            assert all(step in said for step in ("reached", "key", "models", "chat", "stream"))
            assert "Hello, 4" in said["chat"]
            assert upstream.calls[1].target == where


async def test_ollama_is_tried_in_its_own_protocol(vendor: FakeUpstream) -> None:
    """It answers in lines."""
    models = scripts.whole({"data": [{"id": "m"}]})
    counts = {"done": True, "prompt_eval_count": 3, "eval_count": 1}
    answer = json.dumps({"model": "m", "message": {"content": "Hello."}, **counts}).encode()
    lines = [("Content-Type", "application/x-ndjson")]
    vendor.queue(models, scripts.whole(answer), scripts.whole(answer + b"\n", headers=lines))
    code, said, output = await tried("ollama", "--base-url", vendor.base_url, OLLAMA_API_KEY=KEY)
    assert code == 0, output
    assert "Hello." in said["chat"]
    assert [call.target for call in vendor.calls] == ["/v1/models", *["/api/chat"] * 2]


async def test_the_key_comes_from_where_it_is_said(vendor: FakeUpstream, tmp_path: Path) -> None:
    """From a variable, a file, or the vendor's usual variable; without any there is no trial."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    at = ("groq", "--base-url", vendor.base_url, "--model", "m")
    for more, environment in (
        (("--key-env", "MY_KEY"), {"MY_KEY": KEY}),
        (("--key-file", str(tmp_path / "key")), {}),
        ((), {"GROQ_API_KEY": KEY}),
    ):
        assert (await tried(*at, *more, **environment))[0] == 0
    result = run("test", *at)
    assert result.exit_code == 2
    assert "GROQ_API_KEY" in result.output
    assert run("test", *at, "--key-env", "NOT_SET").exit_code == 78
    assert run("test", *at, "--key-env", KEY).exit_code == 78


async def test_an_upstream_of_the_configuration_is_tried_as_it_is(vendor: FakeUpstream, tmp_path: Path) -> None:
    """Its address, key and vendor are those of the file."""
    config = tmp_path / "chatgate.toml"
    config.write_text(
        f'[[upstreams]]\nname = "mine"\nprovider = "mistral"\nbase_url = "{vendor.base_url}"\napi_key = "{KEY}"\n'
    )
    code, said, _ = await tried("mine", "--config", str(config), "--model", "m")
    assert code == 0
    assert "m is not among them" in said["models"]
    assert "stream_options" not in vendor.calls[-1].json()


async def test_a_refused_key_ends_the_trial(vendor: FakeUpstream) -> None:
    """Nothing further is asked, and the reader is told what to look at."""
    code, said, output = await tried("deepseek", "--base-url", vendor.base_url, DEEPSEEK_API_KEY="sk-test-wrong-0001")
    assert code == 1
    assert list(said) == ["reached", "key"]
    assert said["key"].startswith("failed Incorrect API key provided: [redacted]")
    assert "does not take this key" in output
    assert len(vendor.calls) == 1
    _, _, output = await tried(
        "deepseek", "--base-url", vendor.base_url, DEEPSEEK_API_KEY="sk-test-wrong-0001", LANG="ru_RU.UTF-8"
    )
    assert "Провайдер не принимает этот ключ" in output


MISSING = scripts.whole(scripts.error_body("no such path"), 404)
STREAM_CUT = scripts.stream(scripts.text_events("Hello")[:2], end=b"", then="close", close=False)


@pytest.mark.parametrize(
    ("answers", "failed", "hint"),
    [
        ([scripts.whole({"error": {"message": "Insufficient Balance"}}, 402)], "key", "top it up"),
        ([scripts.whole({"error": {"message": "Country, region, or territory not supported"}}, 403)], "key", "country"),
        ([scripts.whole({"error": {"message": "not yours"}}, 403)], "key", "may have to be enabled"),
        ([MISSING, scripts.whole({"error": {"message": "User location is not supported"}}, 400)], "chat", "country"),
        ([MISSING, scripts.whole({"error": {"message": "no such model"}}, 404)], "chat", "--model"),
        ([MISSING, scripts.whole({"error": {"message": "slow down"}}, 429)], "chat", "in a minute"),
        ([MISSING, scripts.whole(b"<html>A portal</html>", 200, [("Content-Type", "text/html")])], "chat", "/v1"),
        ([MISSING, scripts.provider, STREAM_CUT], "stream", ""),
    ],
)
async def test_frequent_troubles_are_explained(
    vendor: FakeUpstream, answers: list[Script], failed: str, hint: str
) -> None:
    """The step that failed says what the vendor said, and the line below it what helps; the exit code is 1."""
    vendor.queue(*answers, scripts.provider, scripts.provider)
    code, said, output = await tried("xai", "--base-url", vendor.base_url, "--model", "m", XAI_API_KEY=KEY)
    assert code == 1
    assert [step for step, each in said.items() if each.startswith("failed")] == [failed]
    assert hint in output


async def test_what_is_not_there_is_not_reached() -> None:
    """A closed port, a name that nobody has, and a proxy that is down are told apart."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
        for url, environment, hint in (
            (f"http://{closed}/v1", {}, "Nothing listens there"),
            ("http://nobody.invalid/v1", {}, "The name was not found"),
            ("http://nobody.invalid/v1", {"HTTPS_PROXY": f"http://user:secret-0001@{closed}"}, "The proxy"),
        ):
            code, said, output = await tried("vllm", "--base-url", url, **environment)
            assert code == 1
            assert list(said) == ["reached"]
            assert hint in output
            assert "secret-0001" not in output


def test_nobody_and_nowhere_are_wrong_usage() -> None:
    """A name that is not known, or a vendor that has no address of its own, is told so."""
    assert "no vendor" in run("test", "nobody").output
    assert run("test", "nobody").exit_code == 2
    result = run("test", "azure", AZURE_OPENAI_API_KEY=KEY)
    assert result.exit_code == 2
    assert "https://YOUR-RESOURCE.openai.azure.com/openai/v1" in result.output


@pytest.mark.parametrize("origin", [PLAIN, PROXIED])
def test_a_certificate_is_blamed_for_itself(origin: Origin) -> None:
    """With or without a proxy."""
    error = UpstreamError("upstream_unreachable")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    assert hint_of(error, origin) == "trial_tls"


def test_silence_is_blamed_on_the_way() -> None:
    """Behind a proxy another one may help, without one a proxy may."""
    error = UpstreamError("upstream_connect_timeout")
    assert hint_of(error, PLAIN) == "trial_timeout"
    assert hint_of(error, PROXIED) == "trial_timeout_proxy"


def test_what_nobody_can_explain_is_not_explained() -> None:
    """A vendor's own fault speaks for itself."""
    error: GateError = failures.failure_of(
        500, message="sad", code=None, param=None, retry_after_seconds=None, model="m", own_key=False
    )
    assert hint_of(error, PLAIN) is None
