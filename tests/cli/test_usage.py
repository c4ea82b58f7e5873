"""`chatgate usage`: its groups, its table, what programs and spreadsheets get, and its exit codes."""

from __future__ import annotations

import csv
import io
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chatgate.accounting.usage import Usage as Tokens
from chatgate.cli.usage_table import table, width_of
from chatgate.storage.usage import Usage
from cli.ledgers import fill, read, run, told
from storage.conftest import (  # noqa: F401 - fixtures are found by their names
    Place,
    emptied_name,
    migrate,
    migrated_file,
    migrated_name,
    migrated_place,
    postgres,
)
from storage.records import dispatch, fold, settlement

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def place(migrated_place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:  # noqa: F811 - the fixture of that name
    """Return where a ledger with some calls is, and work in a directory without a configuration."""
    fill(migrated_place)
    monkeypatch.chdir(migrated_place.data)
    return migrated_place


def test_programs_get_exact_sums(place: Place) -> None:
    """By key and model unless asked otherwise; a call without a key has none, a key that is gone no name."""
    groups = read(place, "usage")
    assert groups[0] == {
        "key": "k1",
        "key_name": "Büro 東京",
        "model": "fast",
        "calls": 3,
        "input_tokens": 1207,
        "output_tokens": 45,
        "cost_usd": "0.011500001",
        "unknown_calls": 1,
        "unknown_usd": "0.009",
        "own_key_calls": 0,
        "own_key_usd": "0",
    }
    assert [(group["key"], group["key_name"], group["cost_usd"]) for group in groups[1:]] == [
        ("k2", None, "0.000000123"),
        (None, None, "0"),
    ]
    days = read(place, "usage", "--by", "day")
    assert [(group["day"], group["calls"]) for group in days] == [("2026-11-23", 4), ("2026-11-24", 1)]
    assert [group["calls"] for group in read(place, "usage", "--by", "")] == [5]


def test_calls_by_their_callers_own_keys_are_told_apart(place: Place) -> None:
    """Of each group it is said how many went on the callers' own bills, and for how much."""
    database = place.open()
    fold(
        database,
        dispatch("f", key_id=""),
        settlement("f", 7, usage=Tokens(1, 1)),
        dispatch("g", key_id="", own_key=True),
        settlement("g", 5, usage=Tokens(1, 1)),
        first=1000,
    )
    database.close()
    (group,) = [each for each in read(place, "usage") if (each["key"], each["model"]) == (None, "fast")]
    assert (group["calls"], group["cost_usd"]) == (2, "0.000000012")
    assert (group["own_key_calls"], group["own_key_usd"]) == (1, "0.000000005")
    last = told(place, "usage").splitlines()[-1]
    assert last == (
        "1 call was made with their callers' own keys of the provider, who sends them the bill: $0.000000005"
    )


def test_only_calls_since_a_time_are_counted(place: Place) -> None:
    """A date is that day's beginning in UTC."""
    assert [group["calls"] for group in read(place, "usage", "--since", "2026-11-24", "--by", "key")] == [1]
    assert read(place, "usage", "--since", "2099-01-01") == []
    assert told(place, "usage", "--since", "2099-01-01") == "no calls since 2099-01-01 00:00 UTC\n"


def test_people_get_a_table(place: Place) -> None:
    """Aligned, with a total, without bars where no terminal is, and with a word about what is not known."""
    lines = told(place, "usage", "--by", "key").splitlines()
    assert lines == [
        "key        calls  input tokens  output tokens    cost in $",
        "Büro 東京      3         1,207             45  0.011500001",
        "k2             1             1              1  0.000000123",
        "(no key)       1             0              0  0.000000000",
        "total          5         1,208             46  0.011500124",
        "1 call was interrupted and counted at the most that can have been spent: $0.009",
    ]
    assert len({width_of(line) for line in lines[:5]}) == 1
    assert "\x1b" not in told(place, "usage")


def test_a_spreadsheet_runs_nothing(place: Place, tmp_path: Path) -> None:
    """A text that begins like a formula is no formula any more; the file is for programs too."""
    result = run(place, "usage", "--csv", str(tmp_path / "usage.csv"))
    assert (result.exit_code, result.stdout) == (0, "")
    written = (tmp_path / "usage.csv").read_text("utf-8")
    assert written == told(place, "usage", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(written)))
    assert [row["model"] for row in rows] == ["fast", "'=cmd|' /C calc'!A1\x1b[31m", "demo/echo"]
    assert [row["cost_usd"] for row in rows] == ["0.011500001", "0.000000123", "0"]
    assert [row["key_name"] for row in rows] == ["Büro 東京", "", ""]


def test_a_file_that_cannot_be_written_is_told(place: Place) -> None:
    """In a line, with exit code 1."""
    result = run(place, "usage", "--csv", str(place.data / "none" / "usage.csv"))
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "cannot be written: No such file or directory" in result.stderr


@pytest.mark.parametrize(
    "wrong", [("--by", "key,colour"), ("--since", "yesterday"), ("--since", "7x"), ("--since", "")]
)
def test_wrong_usage_is_told(place: Place, wrong: tuple[str, str]) -> None:
    """With exit code 2, the option, and what it takes."""
    result = run(place, "usage", *wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert wrong[0] in result.stderr


def test_a_database_out_of_reach_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line without a password, with exit code 1."""
    monkeypatch.chdir(tmp_path)
    result = run(Place("postgresql://user:pass'word@127.0.0.1:1/none", tmp_path), "usage")
    assert result.exit_code == 1
    assert "the database cannot be used" in result.stderr


def test_a_terminal_gets_bars(tmp_path: Path) -> None:
    """As wide as the terminal lets them be, made of what it can show."""
    place = Place(None, tmp_path)
    migrate(place)
    fill(place)
    shown = {encoding: _in_terminal(place, encoding) for encoding in ("utf-8", "ascii")}
    assert "█" * 10 in shown["utf-8"]
    assert "#" * 10 in shown["ascii"]
    assert "█" not in shown["ascii"]


def _in_terminal(place: Place, encoding: str) -> str:
    """Run the command in a terminal of 120 columns and return what it shows."""
    ours, its = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "COLUMNS": "120", "PYTHONIOENCODING": f"{encoding}:replace"}
    command = [sys.executable, "-m", "chatgate", "usage", "--by", "model", "--data", str(place.data)]
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=subprocess.PIPE, env=environment, cwd=place.data
    ) as process:
        os.close(its)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # The other end is closed: that is how a terminal says so.
            pass
        assert process.wait(20) == 0
    os.close(ours)
    return shown.decode(encoding)


def test_bars_show_calls_when_nothing_cost_anything() -> None:
    """The longest is as long as there is room, a small one is still seen, and without room there are none."""
    groups = [Usage(("a",), None, 1000, 0, 0, 0, 0, 0), Usage(("b",), None, 1, 0, 0, 0, 0, 0)]
    wide = list(table(["model"], groups, None, 200, blocks=True))
    assert wide[1].endswith(f"  {'█' * 40}")
    assert wide[2].endswith("0.00  █")
    assert "█" not in "".join(table(["model"], groups, None, 60, blocks=True))
    assert max(map(width_of, table(["model"], groups, None, 80, blocks=True))) < 80


def test_a_long_name_is_cut_and_a_wide_one_aligned() -> None:
    """Columns stay columns."""
    names = ["x" * 256, "模" * 256, "e\u0301" * 10, "a\nb\tc"]
    groups = [Usage((name,), None, 1, 1, 1, 1, 0, 0) for name in names]
    lines = list(table(["model"], groups, None, None, blocks=True))
    assert len({width_of(line) for line in lines}) == 1
    assert lines[1].startswith("x" * 39 + "…")
    assert lines[4].startswith("a b c ")
