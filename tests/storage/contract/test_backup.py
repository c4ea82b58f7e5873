"""A copy is made while the database is used, and is all there is needed to go back."""

from __future__ import annotations

import shutil
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from chatgate.storage import backup, keys, schema
from chatgate.storage.database import Database
from chatgate.storage.errors import BackupError, StorageInUse
from chatgate.vocabulary.keys import NewKey
from storage.conftest import NOW, Place, migrate


@pytest.fixture(autouse=True)
def _programs(request: pytest.FixtureRequest) -> None:
    """PostgreSQL's copies are made by its own programs, which come with the server."""
    if "postgresql" in request.node.name and shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed (Debian: apt-get install postgresql-client)")


def make(database: Database, key_id: str) -> None:
    """Store a key."""
    database.write(keys.create, NewKey(f"«{key_id}»"), key_id, f"digest of {key_id}", "", NOW)


def ids(place: Place) -> list[str]:
    """Return the ids of the keys at a place."""
    database = place.open()
    try:
        return [key.id for key in database.read(keys.list_keys)]
    finally:
        database.close()


def test_what_was_copied_comes_back(place: Place) -> None:
    """Keys made after the copy are gone, those revoked after it are as they were; what was there is kept."""
    migrate(place)
    database = place.open()
    make(database, "before")
    copy = place.data / "copies" / "one"
    backup.back_up(database, copy)
    make(database, "after")
    database.write(keys.revoke, "before", NOW)
    database.close()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    kept = backup.restore(place.url, place.data, copy, NOW)
    migrate(place)
    assert ids(place) == ["before"]
    database = place.open()
    assert database.read(keys.get, "before").revoked_at is None
    database.close()
    assert kept is not None
    backup.restore(place.url, place.data, kept, NOW + timedelta(seconds=1))
    assert sorted(ids(place)) == ["after", "before"]
    left = {path.name for path in copy.parent.iterdir()} | {path.name for path in kept.parent.iterdir()}
    assert not [name for name in left if name.startswith(".")]


def test_a_copy_makes_an_empty_place_whole(place: Place, tmp_path: Path) -> None:
    """On another machine, say; there is nothing to keep then."""
    migrate(place)
    database = place.open()
    make(database, "one")
    backup.back_up(database, tmp_path / "copy")
    database.close()
    other = place._replace(data=tmp_path / "other")
    if place.url is not None:
        # The same server, with everything of ours gone.
        database = place.open()
        database.write(lambda connection: [connection.exec_driver_sql(f"DROP TABLE {name}") for name in _TABLES])
        database.close()
    assert backup.restore(other.url, other.data, tmp_path / "copy", NOW) is None
    assert migrate(other).before == schema.HEAD
    assert ids(other) == ["one"]


_TABLES = ("keys", "attempts", "budgets", "journal_positions", "quarantine", "facts", "responses", "alembic_version")


def test_a_copy_is_of_one_moment_while_others_write(place: Place) -> None:
    """The keys in it are the first ones made, without a gap."""
    migrate(place)
    database = place.open()
    begun, enough = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        while not enough.is_set() and number < 5000:
            make(database, f"{number:05}")
            number += 1
            if number == 5:
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert begun.wait(20)
    backup.back_up(database, place.data / "copy")
    enough.set()
    writer.join(20)
    database.close()
    backup.restore(place.url, place.data, place.data / "copy", NOW)
    found = ids(place)
    assert len(found) >= 5
    assert found == [f"{number:05}" for number in range(len(found))]


def test_a_copy_replaces_nothing(migrated_place: Place, database: Database) -> None:
    """Neither another copy nor anything else that is there."""
    target = migrated_place.data / "copy"
    target.write_text("precious")
    with pytest.raises(BackupError) as caught:
        backup.back_up(database, target)
    assert caught.value.code == "exists"
    assert target.read_text() == "precious"
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".")]


def test_a_database_that_is_open_is_not_replaced(place: Place) -> None:
    """Whoever uses it would go on with what is no longer there."""
    migrate(place)
    database = place.open()
    make(database, "one")
    backup.back_up(database, place.data / "copy")
    with pytest.raises(StorageInUse) as caught:
        backup.restore(place.url, place.data, place.data / "copy", NOW)
    assert "pass" not in str(caught.value)
    database.close()
    backup.restore(place.url, place.data, place.data / "copy", NOW)
    assert ids(place) == ["one"]


@pytest.mark.parametrize(
    "content", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 5000, b"PGDMP" + b"\0" * 99]
)
def test_what_is_no_copy_is_refused_and_nothing_changes(place: Place, content: bytes) -> None:
    """Something else, empty or broken."""
    migrate(place)
    database = place.open()
    make(database, "one")
    database.close()
    (place.data / "copy").write_bytes(content)
    with pytest.raises(BackupError):
        backup.restore(place.url, place.data, place.data / "copy", NOW)
    assert ids(place) == ["one"]


def test_a_torn_copy_is_refused_and_nothing_changes(place: Place) -> None:
    """One whose second half is missing, or only its last bytes."""
    migrate(place)
    database = place.open()
    make(database, "one")
    backup.back_up(database, place.data / "copy")
    database.close()
    whole = (place.data / "copy").read_bytes()
    for length in (len(whole) // 2, len(whole) - 20):
        (place.data / "torn").write_bytes(whole[:length])
        with pytest.raises(BackupError):
            backup.restore(place.url, place.data, place.data / "torn", NOW)
    assert ids(place) == ["one"]


def test_a_copy_that_is_not_there_is_told(place: Place) -> None:
    """No such file."""
    with pytest.raises(BackupError):
        backup.restore(place.url, place.data, place.data / "copy", NOW)
