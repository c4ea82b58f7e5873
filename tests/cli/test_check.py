"""`chatgate check`: what it says, what it hides, and its exit codes."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chatgate.cli.check import check
from storage.redis.redis_server import RedisServer

CONFIGURATION = """
[server]
route = "api"
language = "zh_CN"
trusted_proxies = ["10.0.0.0/8"]
[access]
allow = ["192.0.2.0/24"]
[[limits]]
scope = "address"
resource = "requests"
amount = 50
per = "hour"
[[upstreams]]
name = "main"
provider = "openai"
api_keys = ["sk-test-main", "sk-test-more"]
proxy = "socks5h://user:pw-test@127.0.0.1:1080"
[[upstreams]]
name = "backup"
base_url = "http://[::1]:8000/v1"
max_in_flight = 8
continuation = "prefix"
[[models]]
name = "gpt-5-mini"
aliases = ["mini", "default"]
targets = [{ upstream = "main", weight = 2 },
           { upstream = "backup", model = "llama", context_tokens = 8192 },
           { upstream = "main", model = "gpt-5", priority = 7 }]
fallbacks = ["llama", "demo/echo"]
[[models]]
name = "llama"
balance = "least_loaded"
targets = [{ upstream = "backup" }]
[[models]]
name = "gpt-*"
targets = [{ upstream = "main" }]
"""
SECRETS = ("sk-test-main", "sk-test-more", "pw-test")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory with a configuration and without variables of the test's own surroundings."""
    (tmp_path / "chatgate.toml").write_text(CONFIGURATION)
    monkeypatch.chdir(tmp_path)
    for name in ("LANG", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(check, arguments, env=environ or {})


def words(result: Result) -> str:
    """Return what it said, on one line."""
    return " ".join(result.stdout.split())


def test_a_good_configuration_is_told_in_plain_words(directory: Path) -> None:
    """Address, route, language, callers, limits, upstreams, models, timeouts and warnings are all said."""
    result = run("--data", "mine")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = words(result)
    for said in (
        f"configuration {directory}/chatgate.toml",
        f"data {directory}/mine",
        "listens on http://127.0.0.1:5000",
        "plain API POST /api",
        "language zh_CN (from chatgate.toml)",
        "lets in 192.0.2.0/24 callers without a key too",
        "believes X-Forwarded-For from 10.0.0.0/8",
        "ledger keys and calls are kept in SQLite a call is on record before its upstream is called; the record",
        "the record outlives the end of the process calls are kept for ever",
        "limits 50 requests per hour for each address counters limits and budgets",
        "counted by the process that serves",
        "limits begin anew with a restart, budgets are kept",
        "main (openai, default): https://api.openai.com:443/v1, keys: 2, all used, through socks5h://127.0.0.1:1080 ",
        "backup (openai_compatible): http://[::1]:8000/v1, key: none needed, directly, at most 8 calls at once",
        "at most 8 calls at once, continues a broken answer by prefix",
        "gpt-5-mini (also mini, default): priority 0: 66.7 % gpt-5-mini at main, spread over 2 keys priority 0: 33.3 %",
        "33.3 % llama at backup, takes in 8192 tokens priority 7: gpt-5 at main, spread over 2 keys when all",
        "when all fail: llama, then demo/echo",
        "llama, to the least loaded: llama at backup gpt-*: the asked name at main, spread over 2 keys demo/…",
        "plain model gpt-5-mini",
        "connect 5 s, first token 60 s silence inside a stream 120 s, in all 1800 s",
        "retries 2 on the same target a stream that breaks off goes on from the next target",
        "disconnects when a caller leaves, its call is cancelled verdict",
        "this configuration is fine",
    ):
        assert said in lines
    assert "hedging" not in lines
    assert "warnings" not in lines
    assert not any(secret in result.output for secret in SECRETS)


@pytest.mark.usefixtures("directory")
def test_what_is_switched_on_is_explained() -> None:
    """Hedging and draining, which cost money, say what they will do, and so does an error in place of a rescue."""
    environ = {
        "CHATGATE_HEDGING__SHARE_PERCENT": "7",
        "CHATGATE_STREAMS__ON_DISCONNECT": "drain",
        "CHATGATE_STREAMS__DRAIN_SECONDS": "2.5",
        "CHATGATE_RETRY__RECOVERY": "error",
        "CHATGATE_RETRY__MAX_RETRIES": "0",
        "CHATGATE_TRANSLATION__DROP_UNSUPPORTED": "true",
    }
    lines = " ".join(run(environ=environ).stdout.split())
    for said in (
        "retries none on the same target a stream that breaks off ends with an error",
        "hedging a second call when the first token is later than for 95 % of the model's calls, for at most 7 % of",
        "translation what a provider's protocol cannot carry is left out and named in x-chatgate-dropped",
        "disconnects when a caller leaves, its answer is read on for its usage, 2.5 s at most, 50 answers at once verd",
    ):
        assert said in lines


@pytest.mark.usefixtures("directory")
def test_where_calls_are_kept_and_who_counts_them_is_said() -> None:
    """Another database without its password, safer records, an end to keeping, and more than one worker."""
    environ = {
        "CHATGATE_DATABASE_URL": "postgresql://chatgate:pw-test@db.example:5432/ledger",
        "CHATGATE_LEDGER__DURABILITY": "power",
        "CHATGATE_LEDGER__RETENTION_DAYS": "90",
        "CHATGATE_WORKERS": "4",
    }
    result = run(environ=environ)
    lines = words(result)
    for said in (
        "ledger keys and calls are kept in PostgreSQL at db.example:5432/ledger",
        "the record outlives the loss of power, which every call waits for calls are deleted after 90 days",
        "counters limits and budgets are counted by one process for all 4 workers",
    ):
        assert said in lines
    assert not any(secret in result.output for secret in SECRETS)


@pytest.mark.usefixtures("directory")
def test_redis_is_told_of_and_tried() -> None:
    """Whether it answers, and if not why, without what logs in there; the configuration is fine either way."""
    server = RedisServer("--maxmemory-policy", "allkeys-lru")
    try:
        url = f"redis://:pw-test@127.0.0.1:{server.port}/3"
        refused = run(environ={"CHATGATE_REDIS_URL": url})
        answered = run(environ={"CHATGATE_REDIS_URL": url.replace(":pw-test@", "")})
    finally:
        server.remove()
    gone = run(environ={"CHATGATE_REDIS_URL": url})
    for result in (refused, answered, gone):
        assert result.exit_code == 0, result.output
        assert "pw-test" not in result.output
        assert f"limits and budgets are counted in redis://127.0.0.1:{server.port}/3" in words(result)
    assert "it cannot be used now: ERR AUTH" in words(refused)
    assert "it cannot be used now: Connect call failed" in words(gone)
    assert re.search(
        r"it answers: (Redis|Valkey) \d[\d.]+, which forgets counts when its memory is full", words(answered)
    )


def test_checking_leaves_nothing_behind(directory: Path) -> None:
    """No directory is made and no file written."""
    run("--data", "mine")
    assert [path.name for path in directory.iterdir()] == ["chatgate.toml"]


def test_defaults_are_told_too(directory: Path) -> None:
    """Without any configuration the command says what that means."""
    (directory / "chatgate.toml").unlink()
    lines = " ".join(run("--host", "::", "--port", "0").stdout.split())
    for said in (
        "no file; environment and defaults",
        "listens on http://[::], any free port",
        "plain API POST / language en_US (from default)",
        "lets in every address",
        "limits none",
        "key: none, callers bring their own",
        "any name goes to the default upstream",
    ):
        assert said in lines


@pytest.mark.usefixtures("directory")
def test_budgets_and_admins_are_told(directory: Path) -> None:
    """What may be spent, and who may administer; never by which key."""
    key = "test-admin-0123456789-0123456789"
    budgets = '[[budgets]]\nscope = "owner"\nowner = "alice"\namount_usd = "5"\nper = "month"\n'
    admins = f'[[admins]]\nname = "alice"\nkey = "{key}"\nowner = "alice"\nmay = "read"\n'
    (directory / "chatgate.toml").write_text(budgets + admins)
    told = run(environ={"CHATGATE_ADMIN_KEY": f"{key}-root"}).stdout
    assert "budgets       $5 per month for the keys of alice\n" in told
    assert (
        "admin API     CHATGATE_ADMIN_KEY may change all keys\n              alice may read the keys of alice\n" in told
    )
    assert key not in told


def test_the_environment_is_heard() -> None:
    """Variables and where the language comes from show in the answer."""
    environ = {"HOUR_LIMIT": "0", "LANG": "ru_RU.UTF-8", "CHATGATE_PORT": "8080", "CHATGATE_ACCESS__ANONYMOUS": "false"}
    lines = " ".join(run(environ=environ).stdout.split())
    for said in ("limits none", "ru_RU.UTF-8 (from LANG)", ":8080", "only callers with a chatgate key"):
        assert said in lines


def test_a_bad_configuration_exits_with_78(directory: Path) -> None:
    """Problems go to stderr with file, line, key and hint; stdout stays empty; no secret is shown."""
    (directory / "chatgate.toml").write_text(CONFIGURATION.replace("amount = 50", "amuont = 50"))
    result = run(environ={"API_KEY": "sk-test-bad key"})
    assert (result.exit_code, result.stdout) == (78, "")
    assert "chatgate.toml:11: limits[0].amuont is not a known key\n    hint: did you mean amount?" in result.stderr
    assert "API_KEY: upstreams[0].api_key must be a key" in result.stderr
    assert not any(secret in result.output for secret in (*SECRETS, "sk-test-bad"))


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("arguments", [["--prot", "1"], ["--port", "x"], ["surplus"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    """Unknown options and malformed values are click's to refuse."""
    assert run(*arguments).exit_code == 2


def test_a_bad_configuration_is_refused_within_two_seconds(directory: Path) -> None:
    """A new process ends in time, with its exit code, from a fresh start of the interpreter.

    The time is what it was at work, so that other processes of a busy machine do not count.
    """
    (directory / "chatgate.toml").write_text("[server]\nport = ")
    program = "from chatgate.cli.check import check; check()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=directory, env={}, capture_output=True, text=True, timeout=60, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("chatgate.toml:2: is not valid TOML")
