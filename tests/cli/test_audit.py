"""`chatgate audit`: its last line and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from chatgate.storage import schema
from cli.ledgers import fill, read, run, told
from storage.conftest import (  # noqa: F401 - fixtures are found by their names
    Place,
    emptied_name,
    migrated_file,
    migrated_name,
    migrated_place,
    postgres,
)
from storage.records import DAY, dispatch, fold


@pytest.fixture
def place(migrated_place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:  # noqa: F811 - the fixture of that name
    """Return where a ledger with some calls is, and work in a directory without a configuration."""
    fill(migrated_place)
    monkeypatch.chdir(migrated_place.data)
    return migrated_place


def test_counters_that_are_right_are_told_so(place: Place) -> None:
    """The last line is `drift 0`, whatever else there is to say, also while the database is open elsewhere."""
    database = place.open()
    fold(database, dispatch("open", 5, (DAY,)), b"torn", first=1000)
    assert told(place, "audit").splitlines() == [
        "6 calls in 6 attempts, 1 account",
        "1 call under way",
        "1 call interrupted: what was reserved counts as spent",
        "1 record in quarantine: no row could be made of that",
        "drift 0",
    ]
    database.close()
    assert read(place, "audit") == {
        "calls": 6,
        "attempts": 6,
        "open_calls": 1,
        "unknown_calls": 1,
        "accounts": 1,
        "quarantined": 1,
        "differences": [],
        "drift": 0,
    }


def test_each_difference_is_told(place: Place) -> None:
    """With both amounts and exit code 1; an account's name cannot move the cursor."""
    database = place.open()
    budgets = schema.budgets
    database.write(lambda connection: connection.execute(update(budgets).values(spent_nano_usd=11_500_001)))
    odd = insert(budgets).values(account="owner/\x1b[2J/day/2026-11-23", reserved_nano_usd=7)
    database.write(lambda connection: connection.execute(odd))
    database.close()
    result = run(place, "audit")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-3:] == [
        f"{DAY}: spent is $0.011500001, its rows add up to $0.0115",
        "owner/[2J/day/2026-11-23: reserved is $0.000000007, its rows add up to $0",
        "drift 2",
    ]
    result = run(place, "audit", "--json")
    assert (result.exit_code, json.loads(result.stdout)["drift"]) == (1, 2)


def test_a_fresh_directory_has_nothing_to_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty ledger is a right one."""
    monkeypatch.chdir(tmp_path)
    assert told(Place(None, tmp_path), "audit").splitlines() == ["0 calls in 0 attempts, 0 accounts", "drift 0"]


def test_a_bad_configuration_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 78."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chatgate.toml").write_text("[server]\nport = 'x'\n")
    assert run(Place(None, tmp_path), "audit").exit_code == 78
