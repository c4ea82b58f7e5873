"""`chatgate keys`: what it makes, shows, changes and ends, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chatgate.admission import gateway_keys
from chatgate.cli import main
from chatgate.cli.keys import shown
from chatgate.cli.keys.options import read_end, read_limit
from chatgate.storage import keys as stored
from chatgate.storage import pepper
from chatgate.storage.database import FILE_NAME, open_database
from chatgate.vocabulary.keys import KeyLimit, KeyRecord
from storage.postgres_server import PostgresServer, programs

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PEPPER = "test-pepper-0123456789-0123456789"


class Command:
    """The command with a data directory of its own."""

    def __init__(self, data: Path) -> None:
        """Keep everything in `data`."""
        self.data = data
        self.environment: dict[str, str] = {}

    def run(self, *arguments: str) -> Result:
        """Run `chatgate keys` in this process."""
        result = CliRunner().invoke(main, ["keys", *arguments, "--data", str(self.data)], env=self.environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def told(self, *arguments: str) -> str:
        """Run it, well, and return what it printed on the standard output."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """Run it, well, with --json, and return what it printed."""
        return json.loads(self.told(*arguments, "--json"))

    def refused(self, exit_code: int, *arguments: str) -> str:
        """Run it, to be refused with this code, and return what it says then."""
        result = self.run(*arguments)
        assert (result.exit_code, result.stdout) == (exit_code, ""), result.output
        return result.stderr

    def record_of(self, text: str) -> KeyRecord | None:
        """Return what the database knows of a key by its text."""
        key = gateway_keys.parse(text)
        assert key is not None
        given = self.environment.get("CHATGATE_PEPPER")
        peppers = pepper.parse(given) if given else pepper.load_or_make(self.data)
        database = open_database(self.environment.get("CHATGATE_DATABASE_URL"), self.data)
        try:
            return database.read(stored.find_by_digest, gateway_keys.digest(peppers[0], key))
        finally:
            database.close()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return the command in a directory without a configuration and without the surroundings' variables."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("CHATGATE_") or name in {"LANG", "API_KEY", "NO_PROXY", "no_proxy"}:
            monkeypatch.delenv(name)
    return Command(tmp_path / "data")


# --- Making -----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_with_a_name_alone(command: Command) -> None:
    """On a machine where nothing is yet; what is printed opens the gateway and may do everything."""
    told = command.told("create", "anna")
    text = re.search(r"^    (sk-cg-\S+)$", told, re.MULTILINE)
    assert text is not None
    assert "never shown again" in told
    assert str(command.data / FILE_NAME) in told
    record = command.record_of(text[1])
    assert record is not None
    assert (record.name, record.owner, record.enabled, record.expires_at) == ("anna", "", True, None)
    assert (record.allowed_models, record.allowed_addresses, record.limits, record.budgets) == ((), (), (), ())


def test_everything_that_a_key_may_be_told(command: Command) -> None:
    """Every option arrives, exactly, money too."""
    made = command.json(
        "create",
        "bot",
        *("--owner", "李雷", "--notes", "line one\nline two", "--language", "ru_RU"),
        *("--budget-usd", "5", "--per", "month", "--budget-usd", "0.000000001", "--per", "day", "--warn-at", "80"),
        *("--limit", "requests=100/minute", "--limit", "in_flight=4", "--limit", "usd=0.5/day:gpt-*:free"),
        *("--models", "gpt-*, demo/*", "--models", "gpt-*,llama"),
        *("--allow", "192.0.2.0/24,2001:db8::1", "--allow", "10.0.0.1", "--expires", "2099-12-31"),
    )
    assert made == {
        "id": made["id"],
        "name": "bot",
        "key": made["key"],
        "display": f"sk-cg-{made['id']}-…",
        "state": "active",
        "owner": "李雷",
        "enabled": True,
        "created_at": made["created_at"],
        "expires_at": "2100-01-01T00:00:00Z",
        "revoked_at": None,
        "rotated_at": None,
        "allowed_models": ["gpt-*", "demo/*", "llama"],
        "allowed_addresses": ["192.0.2.0/24", "2001:db8::1", "10.0.0.1"],
        "limits": [
            {"resource": "requests", "amount": 100, "per": "minute", "model": None},
            {"resource": "in_flight", "amount": 4, "per": None, "model": None},
            {"resource": "usd", "amount": "0.5", "per": "day", "model": "gpt-*:free"},
        ],
        "budgets": [
            {"amount_usd": "5", "per": "month", "warn_at": 80},
            {"amount_usd": "0.000000001", "per": "day", "warn_at": 80},
        ],
        "language": "ru_RU",
        "notes": "line one\nline two",
        "version": 1,
    }
    record = command.record_of(made["key"])
    assert record is not None
    assert [budget.amount_nano_usd for budget in record.budgets] == [5_000_000_000, 1]
    assert record.limits[2] == KeyLimit("usd", 500_000_000, "day", "gpt-*:free")
    without_key = {name: value for name, value in made.items() if name != "key"}
    assert command.json("show", "bot") == without_key
    assert command.json("list") == [without_key]


def test_a_key_is_shown_once_and_kept_nowhere(command: Command) -> None:
    """Neither in what the other commands print, nor in any file."""
    key = command.json("create", "anna")["key"]
    rotated = command.json("rotate", "anna")["key"]
    told = "".join(
        command.told(*arguments) for arguments in (["list"], ["list", "--json"], ["show", "anna"], ["revoke", "anna"])
    )
    kept = b"".join(path.read_bytes() for path in command.data.rglob("*") if path.is_file())
    for text in (key, rotated):
        secret = text.rpartition("-")[2]
        assert secret not in told
        assert secret.encode() not in kept


def test_the_pepper_may_be_given(command: Command) -> None:
    """Then none is made, and another one is not taken for it."""
    command.environment = {"CHATGATE_PEPPER": PEPPER}
    assert command.record_of(command.json("create", "anna")["key"]) is not None
    assert not (command.data / pepper.FILE_NAME).exists()
    command.environment = {"CHATGATE_PEPPER": PEPPER[::-1]}
    assert "not the pepper" in command.refused(78, "create", "bob")
    assert "not the pepper" in command.refused(78, "rotate", "anna")
    command.environment = {"CHATGATE_PEPPER": f"{PEPPER[::-1]}\n{PEPPER}"}
    assert command.record_of(command.json("create", "bob")["key"]) is not None


def test_several_that_begin_on_a_new_machine_agree(command: Command) -> None:
    """Processes that start at once, with nothing there, make one database and one pepper, and each its key."""
    program = [sys.executable, "-m", "chatgate", "keys", "create", "--json", "--data", str(command.data)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(command.data.parent)}
    running = [
        subprocess.Popen([*program, f"key-{number}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        for number in range(3)
    ]
    made = []
    for process in running:
        told, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
        made.append(json.loads(told))
    assert {each["name"] for each in command.json("list")} == {"key-0", "key-1", "key-2"}
    assert all(command.record_of(each["key"]) for each in made)


def test_a_note_says_that_the_door_is_open(command: Command) -> None:
    """A key keeps nobody out while callers without one are let in; once they are not, nothing is to be said."""
    assert "callers without a key" in command.run("create", "anna").stderr
    Path("chatgate.toml").write_text("[access]\nanonymous = false")
    assert command.run("create", "bob").stderr == ""


# --- Looking ----------------------------------------------------------------------------------------------------------


def test_the_list_is_a_table(command: Command) -> None:
    """One line for each key, columns in line whatever the script, nothing longer than its column."""
    command.told("create", "anna", "--owner", "team", "--limit", "requests=100/minute", "--budget-usd", "5")
    command.told("create", "王小明的一个非常长的名字用来测试表格的宽度是否正确", "--owner", "李雷")
    command.told("create", "gone", "--expires", "2099-12-31")
    command.told("revoke", "gone")
    heading, *lines = command.told("list").splitlines()
    assert heading.split() == ["ID", "NAME", "OWNER", "STATE", "EXPIRES", "LIMITS", "BUDGET"]
    assert lines[0].split()[1:] == ["anna", "team", "active", "never", "requests=100/minute", "$5/month"]
    assert lines[2].split()[1:] == ["gone", "-", "revoked", "2100-01-01", "00:00", "-", "-"]
    at = heading.index("STATE")
    for line, state in zip(lines, ("active", "active", "revoked"), strict=True):
        assert shown._width(line[: line.index(f" {state}") + 1]) == at


def test_an_empty_list_says_where_it_looked(command: Command) -> None:
    """On stderr, for a program reads the other; somebody may have looked in the wrong place."""
    result = command.run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert str(command.data / FILE_NAME) in result.stderr
    assert command.json("list") == []


def test_keys_of_one_owner(command: Command) -> None:
    """`--owner` lists an owner's keys, and '' those of nobody."""
    for name, owner in (("a", "ada"), ("b", ""), ("c", "ada")):
        command.told("create", name, "--owner", owner)
    assert [each["name"] for each in command.json("list", "--owner", "ada")] == ["a", "c"]
    assert [each["name"] for each in command.json("list", "--owner", "")] == ["b"]
    assert command.json("list", "--owner", "nobody") == []


def test_a_long_list_is_whole(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages it takes, each key is listed once and in order."""
    monkeypatch.setattr(stored, "MAX_LISTED", 2)
    for number in range(5):
        command.told("create", f"key-{number}")
    assert [each["name"] for each in command.json("list")] == [f"key-{number}" for number in range(5)]


def test_a_key_is_found_by_all_that_names_it(command: Command) -> None:
    """Its id, its name, what is shown of it, and its whole text, for somebody who found one lying about."""
    made = command.json("create", "anna")
    for asked in (made["id"], "anna", made["display"], made["key"]):
        assert command.json("show", asked)["id"] == made["id"]


def test_of_several_keys_of_one_name_none_is_guessed(command: Command) -> None:
    """Their ids are told; those that are revoked already are not meant, unless there are no others."""
    first, second = command.json("create", "anna"), command.json("create", "anna")
    assert first["id"] in command.run("create", "anna").stderr
    complaint = command.refused(1, "revoke", "anna")
    assert first["id"] in complaint
    assert second["id"] in complaint
    third = next(each for each in command.json("list") if each["id"] not in {first["id"], second["id"]})
    for each in (first, third):
        command.told("revoke", each["id"])
    assert command.json("show", "anna")["id"] == second["id"]
    command.told("revoke", "anna")
    command.refused(1, "show", "anna")


def test_show_tells_in_words(command: Command) -> None:
    """What is set, and what is not restricted."""
    command.told("create", "anna", "--notes", "first\nsecond", "--budget-usd", "5", "--warn-at", "80")
    told = " ".join(command.told("show", "anna").split())
    for said in (
        "name anna",
        "state active",
        "models all",
        "addresses all",
        "limits none of its own",
        "budget $5 per month, warned from 80 % on",
        "notes first second",
    ):
        assert said in told


# --- Changing ---------------------------------------------------------------------------------------------------------


def test_an_update_changes_what_is_said_and_nothing_else(command: Command) -> None:
    """An option replaces all that it said before."""
    made = command.json("create", "anna", "--owner", "ada", "--models", "a,b", "--limit", "requests=1/day")
    changed = command.json("update", "anna", "--models", "c", "--disable", "--name", "anne")
    expected = {**made, "allowed_models": ["c"], "enabled": False, "state": "disabled", "name": "anne", "version": 2}
    del expected["key"]
    assert changed == expected
    assert command.json("update", "anne", "--enable")["state"] == "active"
    assert command.json("show", made["id"])["version"] == 3


def test_restrictions_are_taken_off_by_their_word(command: Command) -> None:
    """`all`, `none` and `never`."""
    command.told(
        *("create", "anna", "--owner", "ada", "--notes", "x", "--models", "a", "--allow", "192.0.2.1"),
        *("--limit", "requests=1/day", "--budget-usd", "5", "--expires", "30d", "--language", "zh_CN"),
    )
    freed = command.json(
        *("update", "anna", "--owner", "", "--notes", "", "--models", "all", "--allow", "all"),
        *("--limit", "none", "--budget-usd", "none", "--expires", "never", "--language", "none"),
    )
    assert (freed["owner"], freed["notes"], freed["expires_at"], freed["language"]) == ("", "", None, None)
    assert not any(freed[name] for name in ("allowed_models", "allowed_addresses", "limits", "budgets"))


def test_a_revoked_key_stays_revoked(command: Command) -> None:
    """It may be revoked again, and not be changed or given another secret."""
    command.told("create", "anna")
    assert "revoked" in command.told("revoke", "anna")
    at = command.json("show", "anna")["revoked_at"]
    assert command.json("revoke", "anna")["revoked_at"] == at is not None
    assert "is revoked" in command.refused(1, "update", "anna", "--enable")
    assert "is revoked" in command.refused(1, "rotate", "anna")
    assert command.json("show", "anna")["state"] == "revoked"


def test_a_rotated_key_has_another_secret(command: Command) -> None:
    """Under the same id and with the same rights; the old text opens nothing any more."""
    made = command.json("create", "anna", "--models", "a")
    rotated = command.json("rotate", "anna")
    assert (rotated["id"], rotated["allowed_models"], rotated["version"]) == (made["id"], ["a"], 2)
    assert rotated["rotated_at"] is not None
    assert command.record_of(made["key"]) is None
    assert command.record_of(rotated["key"]) is not None
    assert re.search(r"^    sk-cg-\S+$", command.told("rotate", made["id"]), re.MULTILINE)


# --- Refusing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create"], "Missing argument 'NAME'"),
        (["create", ""], "NAME: must not be empty"),
        (["create", "x\x1b[2J"], "NAME: has characters that cannot be printed"),
        (["create", "x" * 201], "NAME: is too long"),
        (["create", "x", "--notes", "\x00"], "--notes: has characters"),
        (["create", "x", "--limit", "requests=100"], "requests=100/minute"),
        (["create", "x", "--limit", "request=1/day"], "did you mean requests?"),
        (["create", "x", "--limit", "requests=1/minutes"], "did you mean minute?"),
        (["create", "x", "--limit", "requests=0/minute"], "from 1 to"),
        (["create", "x", "--limit", "requests=1.5/minute"], "no whole number"),
        (["create", "x", "--limit", "requests=１/minute"], "does not look like"),  # noqa: RUF001 - the point of it
        (["create", "x", "--limit", "in_flight=4/minute"], "in_flight=4"),
        (["create", "x", "--limit", "usd=-1/day"], "does not look like"),
        (["create", "x", "--limit", "100/minute"], "does not look like"),
        (["create", "x", "--limit", "requests=1/day", "--limit", "requests=2/day"], "limited twice"),
        (["create", "x", "--limit", "requests=1/day", "--limit", "none"], "'none' cannot stand beside"),
        (["create", "x", "--budget-usd", "0"], "above 0"),
        (["create", "x", "--budget-usd", "1e3"], "no amount of dollars"),
        (["create", "x", "--budget-usd", "0.0000000001"], "no amount of dollars"),
        (["create", "x", "--budget-usd", "99999999999"], "below"),
        (["create", "x", "--budget-usd", "5", "--per", "year"], "'year' is not one of"),
        (["create", "x", "--per", "day"], "add --budget-usd"),
        (["create", "x", "--budget-usd", "5", "--budget-usd", "6"], "as many --per"),
        (["create", "x", "--budget-usd", "5", "--budget-usd", "6", "--per", "day", "--per", "day"], "two budgets per"),
        (["create", "x", "--budget-usd", "none", "--per", "day"], "'none' cannot stand beside"),
        (["create", "x", "--models", ""], "'all' stands for no restriction"),
        (["create", "x", "--models", "a,,b"], "empty item"),
        (["create", "x", "--models", "all,a"], "'all' cannot stand beside"),
        (["create", "x", "--allow", ""], "'all' stands for no restriction"),
        (["create", "x", "--allow", "all", "--allow", "192.0.2.1"], "'all' cannot stand beside"),
        (["create", "x", "--allow", "10.0.0.1/8"], "write 10.0.0.0/8"),
        (["create", "x", "--allow", "localhost"], "is not an IP address"),
        (["create", "x", "--expires", ""], "is none of 30d"),
        (["create", "x", "--expires", "tomorrow"], "is none of 30d"),
        (["create", "x", "--expires", "2020-01-01"], "in the past"),
        (["create", "x", "--language", "klingon"], "'klingon' is not one of"),
        (["update", "x"], "nothing to change"),
        (["update", "x", "--name", ""], "--name: must not be empty"),
        (["revok", "x"], "Did you mean 'revoke'?"),
        (["list", "--port", "1"], "No such option"),
    ],
)
def test_wrong_usage_is_said_in_one_line_before_anything_is_made(
    command: Command, arguments: list[str], said: str
) -> None:
    """Exit code 2; the last line says what is wrong, and no database has come to be."""
    result = CliRunner().invoke(main, ["keys", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr.splitlines()[-1]
    assert not command.data.exists()


@pytest.mark.parametrize("arguments", [["show"], ["update", "--disable"], ["revoke"], ["rotate"]])
def test_a_key_that_there_is_not(command: Command, arguments: list[str]) -> None:
    """Exit code 1, and how to find the right one; what looks like a secret is not repeated."""
    command.told("create", "anna")
    assert "chatgate keys list" in command.refused(1, *arguments, "nobody")
    stray = gateway_keys.make(lambda count: bytes(range(count))).text
    assert stray.rpartition("-")[2] not in command.refused(1, *arguments, stray)


def test_a_bad_configuration(command: Command) -> None:
    """Exit code 78, as everywhere, and no secret in what is said."""
    Path("chatgate.toml").write_text("[server]\nprot = 1")
    assert "chatgate.toml:2: server.prot is not a known key" in command.refused(78, "list")
    Path("chatgate.toml").unlink()
    command.environment = {"CHATGATE_DATABASE_URL": "mysql://u:pw-test@db/x"}
    assert "pw-test" not in command.refused(78, "list")


def test_a_database_out_of_reach(command: Command) -> None:
    """Exit code 1, with the reason and without the password."""
    command.environment = {"CHATGATE_DATABASE_URL": "postgresql://u:pw-test@127.0.0.1:1/x"}
    complaint = command.refused(1, "create", "anna")
    assert "cannot be reached" in complaint
    assert "pw-test" not in complaint
    command.environment = {}
    command.data.mkdir()
    (command.data / FILE_NAME).write_bytes(b"no database" * 100)
    assert "cannot be read" in command.refused(1, "list")


# --- On PostgreSQL ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """Run a server for the tests of this file."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(found)
    yield server
    server.remove()


def test_a_life_of_a_key_on_postgresql(command: Command, postgres: PostgresServer) -> None:
    """The same there, from an empty database on."""
    command.environment = {"CHATGATE_DATABASE_URL": postgres.url(postgres.create())}
    made = command.json("create", "anna", "--owner", "李雷", "--budget-usd", "0.1", "--expires", "2099-12-31")
    assert command.json("update", "anna", "--disable")["state"] == "disabled"
    rotated = command.json("rotate", "anna")
    assert command.record_of(made["key"]) is None
    record = command.record_of(rotated["key"])
    assert record is not None
    assert record.budgets[0].amount_nano_usd == 100_000_000
    assert command.json("revoke", "anna")["state"] == "revoked"
    assert [each["name"] for each in command.json("list")] == ["anna"]
    assert not (command.data / FILE_NAME).exists()


# --- Reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("30d", NOW + timedelta(days=30)),
        ("12h", NOW + timedelta(hours=12)),
        ("2w", NOW + timedelta(days=14)),
        ("2026-11-23", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-12-31T18:00", datetime(2026, 12, 31, 18, tzinfo=UTC)),
        ("2026-12-31T18:00+02:00", datetime(2026, 12, 31, 16, tzinfo=UTC)),
        ("2026-12-31T18:00Z", datetime(2026, 12, 31, 18, tzinfo=UTC)),
        ("never", None),
    ],
)
def test_ends_are_read(text: str, end: datetime | None) -> None:
    """A span from now on, a date as the last day, a time, or never."""
    assert read_end(text, NOW) == end


@pytest.mark.parametrize(
    "text", ["0d", "d", "-1d", "30 d", "30m", "9999-12-31", "2026-02-30", "2026-11-22", "20261231"]
)
def test_what_is_no_end_is_refused(text: str) -> None:
    """Also the last day of time, after which there is none, and days that are over."""
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        read_end(text, NOW)


@pytest.mark.parametrize("text", ["requests=100/minute", "in_flight=4", "usd=0.25/month", "tokens=5/day:a:b*/c=d"])
def test_a_limit_is_shown_as_it_is_written(text: str) -> None:
    """What `show` prints can be given to `update`."""
    limit = read_limit(text)
    assert limit is not None
    assert shown.limit_text(limit) == text
