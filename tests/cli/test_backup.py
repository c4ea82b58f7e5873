"""`chatgate backup` and `chatgate restore`: there and back, what they refuse, and what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chatgate.storage import ledger
from chatgate.storage.database import FILE_NAME
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


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    migrated_place: Place,  # noqa: F811 - the fixture of that name
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    """Return where a ledger with some calls is, and work in a directory without a configuration."""
    if "postgresql" in request.node.name and shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed (Debian: apt-get install postgresql-client)")
    fill(migrated_place)
    monkeypatch.chdir(migrated_place.data)
    return migrated_place


def test_what_was_copied_comes_back(place: Place, tmp_path: Path) -> None:
    """Made while the database is open; rows and counters are those of then, and what was there can come back too."""
    database = place.open()
    before = read(place, "usage")
    copy = tmp_path / "copies" / "one"
    assert told(place, "backup", str(copy)) == f"{copy}\n"
    fold(database, dispatch("later", 5, ("key/k9/day/2026-11-23",)), settlement("later", 4), first=9000)
    database.close()
    after = read(place, "usage")
    assert after != before
    lines = told(place, "restore", str(copy)).splitlines()
    assert lines[0] == f"{copy} is restored"
    assert read(place, "usage") == before
    assert told(place, "audit").endswith("\ndrift 0\n")
    database = place.open()
    assert database.read(ledger.positions) == {"0": (1, 90)}
    database.close()
    kept = lines[1].removeprefix("What was there is in ")
    told(place, "restore", kept)
    assert read(place, "usage") == after


def test_without_a_name_a_copy_goes_into_the_data_directory(place: Place) -> None:
    """Under the moment's name; the pepper is not in it, and that is said."""
    result = run(place, "backup")
    assert result.exit_code == 0
    copy = Path(result.stdout.strip())
    assert copy.parent == place.data / "backups"
    assert copy.stat().st_mode & 0o077 == 0
    assert "pepper" in result.stderr


def test_a_copy_replaces_nothing(place: Place) -> None:
    """What is there stays, and exit code 1 says so."""
    target = place.data / "precious"
    target.write_text("x")
    result = run(place, "backup", str(target))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"chatgate: {target} exists already; copies replace nothing\n"
    assert target.read_text() == "x"


def test_a_database_in_use_is_not_replaced(place: Place) -> None:
    """A gateway, which has it open while it runs, has to be stopped first."""
    copy = place.data / "copy"
    told(place, "backup", str(copy))
    database = place.open()
    database.read(ledger.positions)
    result = run(place, "restore", str(copy))
    database.close()
    assert result.exit_code == 1
    assert "stop the gateway first" in result.stderr
    told(place, "restore", str(copy))


def test_what_is_no_copy_is_refused(place: Place) -> None:
    """A file of something else, a torn copy, a file that is not there; the database stays as it is."""
    before = read(place, "usage")
    wrong = place.data / "wrong"
    wrong.write_bytes(b"not a database")
    assert run(place, "restore", str(wrong)).exit_code == 1
    copy = place.data / "copy"
    told(place, "backup", str(copy))
    wrong.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    result = run(place, "restore", str(wrong))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"chatgate: {wrong} was not restored: ")
    assert run(place, "restore", str(place.data / "nothing")).exit_code == 2
    assert read(place, "usage") == before


def test_a_copy_makes_an_empty_directory_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine, say."""
    monkeypatch.chdir(tmp_path)
    place = Place(None, tmp_path / "first")
    migrate(place)
    fill(place)
    copy = tmp_path / "copy"
    told(place, "backup", str(copy))
    other = Place(None, tmp_path / "other")
    assert told(other, "restore", str(copy)) == f"{copy} is restored\n"
    assert read(other, "usage") == read(place, "usage")
    assert (other.data / FILE_NAME).exists()
