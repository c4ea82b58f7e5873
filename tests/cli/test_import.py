"""`chatgate import one-api`: what moves in from one-api and new-api, what does not, and that nothing is overwritten."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import tomllib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chatgate.cli import main
from chatgate.storage.database import FILE_NAME
from cli.one_api_databases import NEW_API, ONE_API, Rows, make

FAR = int(datetime(2099, 1, 1, tzinfo=UTC).timestamp())
PAST = int((datetime.now(UTC) - timedelta(days=1)).timestamp())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory without a configuration and without the surroundings' variables."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("CHATGATE_") or name in {"LANG", "API_KEY", "NO_PROXY", "no_proxy", "OPENAI_BASE_URL"}:
            monkeypatch.delenv(name)
    return tmp_path


def run(*arguments: str) -> Result:
    """Run the program in this process, with its data below the current directory."""
    result = CliRunner().invoke(main, list(arguments), env={"CHATGATE_DATA": "data"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def moved(schema: str, rows: Rows, *options: str) -> Any:
    """Import a database of these rows, and return the object that programs get."""
    make(Path("old.db"), schema, rows)
    result = run("import", "one-api", "old.db", "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def configured(told: Any) -> Any:
    """Return the configuration as the gateway reads it, after `chatgate check` has found it sound."""
    Path("checked.toml").write_text(told["config"])
    checked = run("check", "--config", "checked.toml")
    assert checked.exit_code == 0, checked.output
    return tomllib.loads(told["config"])


def token(name: str, **values: Any) -> dict[str, Any]:
    """Return a token without a quota."""
    return {"user_id": 1, "name": name, "key": f"old-{name}", "unlimited_quota": 1, **values}


ROOT = {"id": 1, "username": "root", "password": "secret-hash", "quota": 500_000_000_000_000}
OPENAI = {"type": 1, "name": "Main account", "key": "sk-test-main", "models": "gpt-a,gpt-b"}


# --- Channels ---------------------------------------------------------------------------------------------------------


def test_channels_become_upstreams_and_models() -> None:
    """With their addresses, mappings and priorities; those that lead to the same model share its calls."""
    told = moved(
        ONE_API,
        {
            "channels": [
                OPENAI | {"priority": 5, "weight": 3},
                {
                    "type": 8,
                    "name": "代理",
                    "key": "sk-test-b",
                    "base_url": "https://api.example.com/",
                    "models": "gpt-a",
                },
                {"type": 50, "name": "own", "key": "none", "base_url": "http://127.0.0.1:9/v1", "models": "gpt-a,llama"}
                | {"model_mapping": '{"gpt-a": "llama-3"}', "priority": -7},
                {"type": 40, "name": "demo", "key": "sk-test-d", "models": "doubao"},
            ],
            "tokens": [],
        },
        "--inline-keys",
    )
    found = configured(told)
    assert found["access"] == {"anonymous": False}
    assert found["upstreams"] == [
        {
            "name": "Main-account",
            "provider": "openai",
            "base_url": "https://api.openai.com/v1",
            "api_key": "sk-test-main",
        },
        {
            "name": "upstream",
            "provider": "openai_compatible",
            "base_url": "https://api.example.com/v1",
            "api_key": "sk-test-b",
        },
        {"name": "own", "provider": "openai_compatible", "base_url": "http://127.0.0.1:9/v1", "api_key": "none"},
        {
            "name": "demo-2",
            "provider": "doubao",
            "base_url": "https://ark.cn-beijing.volces.com/api/v3",
            "api_key": "sk-test-d",
        },
    ]
    assert {model["name"]: model["targets"] for model in found["models"]} == {
        "gpt-a": [
            {"upstream": "Main-account", "model": "gpt-a"},
            {"upstream": "upstream", "model": "gpt-a", "priority": 1},
            {"upstream": "own", "model": "llama-3", "priority": 2},
        ],
        "gpt-b": [{"upstream": "Main-account", "model": "gpt-b"}],
        "llama": [{"upstream": "own", "model": "llama"}],
        "doubao": [{"upstream": "demo-2", "model": "doubao"}],
    }
    assert told["not_carried"] == []


def test_new_api_numbers_its_channels_in_its_own_way() -> None:
    """Several keys are several upstreams, weights count plus ten, and a mapping is followed to its end."""
    told = moved(
        NEW_API,
        {
            "channels": [
                OPENAI | {"key": "sk-test-1\nsk-test-2\nsk-test-1\n", "weight": 20},
                {"type": 43, "name": "deep", "key": "sk-test-3", "models": "gpt-a", "weight": 0}
                | {"model_mapping": '{"gpt-a": "mid", "mid": "deepseek-chat", "x": "y", "y": "x"}'},
                {"type": 8, "name": "full", "key": "sk-test-4", "models": "m"}
                | {"base_url": "https://api.example.com/v9/chat/completions"},
            ],
            "tokens": [],
        },
        "--inline-keys",
    )
    found = configured(told)
    assert [(each["name"], each["base_url"], each["api_key"]) for each in found["upstreams"]] == [
        ("Main-account", "https://api.openai.com/v1", "sk-test-1"),
        ("Main-account-2", "https://api.openai.com/v1", "sk-test-2"),
        ("deep", "https://api.deepseek.com/v1", "sk-test-3"),
        ("full", "https://api.example.com/v9", "sk-test-4"),
    ]
    assert found["models"][0]["targets"] == [
        {"upstream": "Main-account", "model": "gpt-a", "weight": 30},
        {"upstream": "Main-account-2", "model": "gpt-a", "weight": 30},
        {"upstream": "deep", "model": "deepseek-chat", "weight": 10},
    ]
    assert [line.partition(":")[0] for line in told["not_carried"]] == ["channel 1 (Main account)"]


def test_what_cannot_be_carried_is_told_line_by_line() -> None:
    """And never with a secret in it."""
    key = "sk-test-hidden"
    told = moved(
        NEW_API,
        {
            "channels": [
                {"type": 3, "name": "azure", "key": key, "models": "a", "base_url": "https://x.example.com"},
                {"type": 50, "name": "video", "key": key, "models": "a"},
                {"type": 1, "name": "off", "key": key, "models": "a", "status": 2},
                {"type": 1, "name": "blank", "key": f"{key} {key}", "models": "a"},
                {"type": 8, "name": "place", "key": key, "models": "a", "base_url": "https://x.example.com/{model}"},
                {"type": 8, "name": "nowhere", "key": key, "models": "a"},
                {"type": 24, "name": "gem\x1b[2J", "key": key, "models": "gemini-x,demo/echo", "group": "vip,default"}
                | {"param_override": '{"temperature": 0}', "model_mapping": "{", "setting": "{}"},
            ],
            "tokens": [],
        },
    )
    seventh = "channel 7 (gem\N{REPLACEMENT CHARACTER}[2J):"
    lines = [
        "channel 1 (azure): left out: chatgate cannot speak to channels of its kind (Azure)",
        "channel 2 (video): left out: chatgate cannot speak to channels of its kind (number 50)",
        "channel 3 (off): left out: it is disabled",
        "channel 4 (blank): left out: its key is not one that a header can carry",
        "channel 5 (place): left out: its base URL has the model's name in it",
        "channel 6 (nowhere): left out: it has no base URL",
        f"{seventh} goes to Gemini's OpenAI-compatible address now; check that it answers there",
        f"{seventh} was for the groups vip; now any key that may use its models gets there",
        f"{seventh} param_override is not carried",
        f"{seventh} its model mapping cannot be read; models go there by their own names",
        "model demo/echo: left out: names that begin with demo/ are built in",
    ]
    assert told["not_carried"] == lines
    assert key not in json.dumps(told)
    assert [model["name"] for model in tomllib.loads(told["config"])["models"]] == ["gemini-x"]


# --- Tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_become_keys_that_may_as_much() -> None:
    """Another text, the same name, models, networks, end and state; what is left of the quota is the budget."""
    told = moved(
        ONE_API,
        {
            "channels": [OPENAI],
            "users": [ROOT, {"id": 2, "username": "anna", "password": "x", "quota": 750_001}],
            "tokens": [
                token("all"),
                token("some", models="gpt-a, gpt-b", subnet="10.1.2.3/8,2001:db8::/32", expired_time=FAR),
                token("poor", unlimited_quota=0, remain_quota=1),
                token("spent", unlimited_quota=0, remain_quota=900, status=4),
                token("off", status=2),
                token("hers", user_id=2),
            ],
        },
    )
    keys = {key["name"]: key for key in told["keys"]}
    assert list(keys) == ["all", "some", "poor", "spent", "off", "hers"]
    assert keys["all"]["budgets"] == keys["all"]["allowed_models"] == keys["all"]["allowed_addresses"] == []
    assert keys["all"]["owner"] == "root"
    assert keys["some"]["allowed_models"] == ["gpt-a", "gpt-b"]
    assert keys["some"]["allowed_addresses"] == ["10.0.0.0/8", "2001:db8::/32"]
    assert keys["some"]["expires_at"] == "2099-01-01T00:00:00Z"
    assert [(each["amount_usd"], each["per"]) for each in keys["poor"]["budgets"]] == [("0.000002", "ever")]
    assert keys["spent"]["budgets"][0]["amount_usd"] == "0"
    assert (keys["off"]["enabled"], keys["all"]["enabled"]) == (False, True)
    # The token had no bound of its own, but its user had.
    assert (keys["hers"]["owner"], keys["hers"]["budgets"][0]["amount_usd"]) == ("anna", "1.500002")
    assert all(key["key"].startswith("sk-cg-") for key in told["keys"])
    listed = json.loads(run("keys", "list", "--json").stdout)
    assert listed == [{name: value for name, value in key.items() if name != "key"} for key in told["keys"]]
    assert told["not_carried"] == [
        "token 5 (off): it is disabled, and so is its key",
        "model gpt-a: keys with a budget cannot use it until [[prices]] says what it costs",
        "model gpt-b: keys with a budget cannot use it until [[prices]] says what it costs",
    ]


def test_models_with_a_known_price_are_not_complained_of() -> None:
    """Only those that a key with a budget would be refused for, and only where there is such a key."""
    rows: Rows = {"channels": [OPENAI | {"models": "gpt-4o,gpt-a"}], "users": [ROOT], "tokens": [token("t")]}
    assert moved(ONE_API, rows, "--dry-run")["not_carried"] == []
    Path("old.db").unlink()
    rows["tokens"] = [token("t", unlimited_quota=0, remain_quota=5)]
    assert [line.partition(":")[0] for line in moved(ONE_API, rows)["not_carried"]] == ["model gpt-a"]


def test_a_restriction_that_cannot_be_kept_disables() -> None:
    """No key may do more than its token did."""
    many = ",".join(f"m{number}" for number in range(101))
    told = moved(
        NEW_API,
        {
            "channels": [],
            "users": [ROOT, {"id": 2, "username": "bob", "password": "x", "status": 2, "quota": 500_000}],
            "options": [{"key": "QuotaPerUnit", "value": "1000"}],
            "tokens": [
                token("none", model_limits_enabled=1, model_limits=""),
                token("free", model_limits_enabled=0, model_limits="gpt-a", allow_ips="10.0.0.1\n10.1.0.0/16,\n"),
                token("many", model_limits_enabled=1, model_limits=many),
                token("nowhere", allow_ips="somewhere"),
                token("old", expired_time=PAST),
                token("gone", deleted_at="2026-01-01 00:00:00"),
                token("bob-1", user_id=2),
                token("bob-2", user_id=2, unlimited_quota=0, remain_quota=2_500, group="vip"),
                token("x" * 300),
                token("orphan", user_id=9),
            ],
        },
    )
    keys = {key["name"]: key for key in told["keys"]}
    assert [name for name, key in keys.items() if key["enabled"]] == ["free", "x" * 200]
    assert keys["free"]["allowed_models"] == []
    assert keys["free"]["allowed_addresses"] == ["10.0.0.1/32", "10.1.0.0/16"]
    assert [keys[name]["budgets"][0]["amount_usd"] for name in ("bob-1", "bob-2")] == ["500", "2.5"]
    assert told["not_carried"] == [
        "token 1 (none): it may use no model, and its key is disabled",
        "token 3 (many): names 101 models, of which a key holds the first 100; it is disabled",
        "token 4 (nowhere): somewhere is no address and no CIDR, and lets nobody in",
        "token 4 (nowhere): none of its addresses can be read, and its key is disabled",
        "token 5 (old): left out: it has expired",
        "token 7 (bob-1): its user is disabled, and so is its key",
        "token 8 (bob-2): its user is disabled, and so is its key",
        "token 8 (bob-2): its group vip is not carried",
        "token 10 (orphan): its user is gone, and its key is disabled",
        "user bob: its 2 keys shared what is left to the account ($500), and now each has a budget",
    ]


def test_a_second_import_makes_no_second_key() -> None:
    """Unless the first was revoked; then it makes another one."""
    rows: Rows = {"channels": [], "users": [ROOT], "tokens": [token("a"), token("a", key="other")]}
    first = moved(ONE_API, rows)
    assert len(first["keys"]) == 2
    again = json.loads(run("import", "one-api", "old.db", "--json").stdout)
    assert again["keys"] == []
    assert again["not_carried"] == ["key a: is there already, from an earlier import, and is left as it is"] * 2
    run("keys", "revoke", first["keys"][0]["id"])
    once_more = json.loads(run("import", "one-api", "old.db", "--json").stdout)
    assert [key["notes"] for key in once_more["keys"]] == [first["keys"][0]["notes"]]


# --- Files ------------------------------------------------------------------------------------------------------------


def test_secrets_go_into_files_of_their_own(home: Path) -> None:
    """Readable by their owner alone, found by the configuration, and not in it."""
    make(Path("old.db"), ONE_API, {"channels": [OPENAI], "users": [ROOT], "tokens": [token("t")]})
    before = Path("old.db").read_bytes()
    result = run("import", "one-api", "old.db", "--output", "gate/chatgate.toml")
    assert result.exit_code == 1, "the directory is not there, and none is made for a slip"
    Path("gate").mkdir()
    result = run("import", "one-api", "old.db", "--output", "gate/chatgate.toml")
    assert result.exit_code == 0, result.output
    config, key = home / "gate/chatgate.toml", home / "gate/upstream-keys/Main-account"
    assert key.read_text() == "sk-test-main\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (config, key, key.parent)] == [0o600, 0o600, 0o700]
    assert "sk-test" not in config.read_text()
    assert run("check", "--config", str(config)).exit_code == 0
    assert "sk-cg-" in result.stdout
    assert "sk-test" not in result.output
    assert Path("old.db").read_bytes() == before


@pytest.mark.parametrize("taken", ["chatgate.toml", "upstream-keys/Main-account"])
def test_nothing_is_overwritten(home: Path, taken: str) -> None:
    """If anything is where something would be written, nothing is: no file and no key."""
    make(Path("old.db"), ONE_API, {"channels": [OPENAI], "users": [ROOT], "tokens": [token("t")]})
    (home / taken).parent.mkdir(exist_ok=True)
    (home / taken).write_text("")
    files = sorted(home.rglob("*"))
    result = run("import", "one-api", "old.db", "--output", "chatgate.toml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{taken} cannot be written: exists already; nothing was done" in result.stderr
    assert sorted(home.rglob("*")) == files
    assert json.loads(run("keys", "list", "--json").stdout) == []


def test_when_no_keys_can_be_made_no_files_are_left(home: Path) -> None:
    """A database that cannot be used ends it before anything stays behind."""
    make(Path("old.db"), ONE_API, {"channels": [OPENAI], "users": [ROOT], "tokens": [token("t")]})
    (home / "data").mkdir()
    (home / "data" / FILE_NAME).write_bytes(b"no database, but long enough to be looked at as one" * 40)
    result = run("import", "one-api", "old.db", "--output", "new.toml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the database cannot be used" in result.stderr
    assert not (home / "new.toml").exists()
    assert not (home / "upstream-keys").exists()


def test_a_dry_run_does_nothing(home: Path) -> None:
    """It shows the configuration on standard output and the rest beside it."""
    make(Path("old.db"), ONE_API, {"channels": [OPENAI | {"status": 3}], "users": [ROOT], "tokens": [token("t")]})
    result = run("import", "one-api", "old.db", "--output", "chatgate.toml", "--dry-run")
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout) == {"access": {"anonymous": False}}
    assert "0 upstreams, 0 models, 1 key.\nwould be written: chatgate.toml\n" in result.stderr
    assert "channel 1 (Main account): left out: it is disabled" in result.stderr
    assert sorted(path.name for path in home.iterdir()) == ["old.db"]


def test_without_an_output_the_configuration_alone_is_on_standard_output(home: Path) -> None:
    """So that it can be sent to a file; the keys are told on standard error, once."""
    make(Path("old.db"), ONE_API, {"channels": [OPENAI], "users": [ROOT], "tokens": [token("t", status=2)]})
    result = run("import", "one-api", "old.db")
    assert tomllib.loads(result.stdout)["upstreams"][0]["api_key_file"] == "upstream-keys/Main-account"
    assert (home / "upstream-keys/Main-account").is_file()
    assert result.stderr.count("  t  sk-cg-") == 1
    assert "(disabled)" in result.stderr


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file or directory"),
        (b"not a database, but long enough to be looked at as one" * 40, "file is not a database"),
        ("CREATE TABLE channels (id)", "it has no table tokens"),
        ("CREATE TABLE tokens (id); CREATE VIEW channels AS SELECT 1", "it has no table channels"),
    ],
)
def test_what_is_no_such_database_is_refused(content: bytes | str | None, complaint: str) -> None:
    """With a line that says why."""
    file = Path("old.db")
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(content)
    result = run("import", "one-api", "old.db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert complaint in result.stderr


def test_cells_of_any_type_are_read() -> None:
    """SQLite keeps in a column what was put there: numbers as text, text as bytes, nothing at all."""
    told = moved(
        ONE_API,
        {
            "channels": [
                {
                    "type": "1",
                    "name": b"bytes",
                    "key": b"sk-test-x",
                    "models": b"gpt-a",
                    "priority": "x",
                    "status": 1.0,
                },
                {"type": None, "name": None, "key": None, "models": None, "status": None},
            ],
            "users": [ROOT],
            "tokens": [token("t", user_id="1", expired_time="never", remain_quota=1e300, unlimited_quota="false")],
        },
    )
    assert configured(told | {"config": told["config"].replace("api_key_file", "api_key")})["models"]
    assert told["keys"][0]["budgets"][0]["amount_usd"] == "9223372036.854775807"
    assert told["not_carried"] == [
        "channel 2 (no name): left out: chatgate cannot speak to channels of its kind (number 0)",
        "model gpt-a: keys with a budget cannot use it until [[prices]] says what it costs",
    ]
