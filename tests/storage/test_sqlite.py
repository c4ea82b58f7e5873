"""What is special about SQLite: turns, settings, files, and its ways to fail."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from chatgate.storage import backup, keys, migration
from chatgate.storage.database import FILE_NAME, Database, open_database
from chatgate.storage.errors import Reason, StorageInUse, StorageUnavailable
from chatgate.vocabulary.keys import NewKey
from storage.conftest import NOW

WRITER = Path(__file__).with_name("writing_process.py")


@pytest.fixture
def data(tmp_path: Path, migrated_file: Path) -> Path:
    """Return a data directory with a database that has tables."""
    (tmp_path / FILE_NAME).write_bytes(migrated_file.read_bytes())
    return tmp_path


@pytest.fixture
def impatient(data: Path) -> Iterator[Database]:
    """Return a database that waits for hardly anybody."""
    database = open_database(None, data, wait_seconds=0.1)
    yield database
    database.close()


def make(connection: Connection, key_id: str) -> None:
    """Store a key."""
    keys.create(connection, NewKey("a key", notes="x" * 1500), key_id, f"digest of {key_id}", "", NOW)


def pragma(connection: Connection, name: str) -> object:
    """Return a setting."""
    return connection.execute(text(f"PRAGMA {name}")).scalar_one()


@contextlib.contextmanager
def raw(data: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as somebody does who takes no turns."""
    with contextlib.closing(sqlite3.connect(data / FILE_NAME, isolation_level=None)) as connection:
        yield connection


def whole(data: Path) -> bool:
    """Tell whether SQLite finds the file in order."""
    with raw(data) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)])


def test_the_settings_are_in_force(data: Path) -> None:
    """As SQLite tells them, not as they were asked for; only the writer ever checkpoints."""
    database = open_database(None, data)
    names = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys", "query_only", "wal_autocheckpoint")
    assert database.write(lambda c: [pragma(c, name) for name in names]) == ["wal", 2, 5000, 1, 0, 1000]
    read = database.read(lambda c: [pragma(c, name) for name in names])
    assert (read[0], read[2], read[4], read[5]) == ("wal", 5000, 1, 0)
    database.close()


def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    """Also those that SQLite makes next to the database, and whatever the process leaves to others by default."""
    before = os.umask(0o022)
    try:
        database = open_database(None, tmp_path / "data")
        migration.migrate(database, tmp_path / "backups", NOW)
        files = list((tmp_path / "data").iterdir())
        assert {FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"} <= {file.name for file in files}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        database.close()
    finally:
        os.umask(before)


def test_nothing_is_loaded_that_is_not_used(data: Path) -> None:
    """Neither the driver of the other database nor what takes steps when none is to be taken: both cost memory."""
    script = """
import datetime, pathlib, sys
from chatgate.storage import backup, keys, migration, pepper, threads
from chatgate.storage.database import open_database
database = open_database(None, pathlib.Path(sys.argv[1]))
migration.migrate(database, pathlib.Path(sys.argv[1]), datetime.datetime.now(datetime.UTC))
database.read(keys.count)
backup.back_up(database, pathlib.Path(sys.argv[1], "copy"))
database.close()
print(sorted({"psycopg", "alembic", "asyncpg", "sqlalchemy.orm"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", script, str(data)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_closing_leaves_one_whole_file(data: Path) -> None:
    """What was in the log is in the database: it can be copied as it is."""
    database = open_database(None, data)
    database.write(make, "one")
    database.close()
    assert not (data / f"{FILE_NAME}-wal").exists()
    assert b"digest of one" in (data / FILE_NAME).read_bytes()


def test_reading_needs_no_turn(data: Path) -> None:
    """Who only reads can open the database while another writes, and waits for nobody when closing it."""
    writing = open_database(None, data)

    def write(connection: Connection) -> int:
        make(connection, "one")
        reading = open_database(None, data, wait_seconds=1000)
        count = reading.read(keys.count)
        reading.close()
        return count

    assert writing.write(write) == 0
    writing.close()
    reading = open_database(None, data)
    assert reading.read(keys.count) == 1
    reading.close()
    assert not (data / f"{FILE_NAME}-wal").exists()


def test_a_turn_is_held_by_one(impatient: Database, data: Path) -> None:
    """Who waits for another process, or for another thread, is told in time that it is locked; reads go on."""
    lock = os.open(data / f"{FILE_NAME}-writer", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(StorageUnavailable) as caught:
        impatient.write(make, "one")
    assert caught.value.reason is Reason.LOCKED
    assert impatient.read(keys.count) == 0
    os.close(lock)
    impatient.write(make, "one")

    inside, leave = threading.Event(), threading.Event()

    def dawdle(_: Connection) -> None:
        inside.set()
        assert leave.wait(10)

    thread = threading.Thread(target=impatient.write, args=(dawdle,))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(StorageUnavailable) as caught:
        impatient.write(make, "two")
    assert caught.value.reason is Reason.LOCKED
    leave.set()
    thread.join(10)
    impatient.write(make, "two")
    assert impatient.read(keys.count) == 2


def test_somebody_who_takes_no_turns_is_waited_for(data: Path) -> None:
    """A shell on the file that holds SQLite's own lock: the write waits, and is told when that takes too long."""
    patient, impatient = open_database(None, data), open_database(None, data, wait_seconds=0.1)
    with raw(data) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable) as caught:
            impatient.write(make, "one")
        assert caught.value.reason is Reason.LOCKED
        writing = threading.Thread(target=patient.write, args=(make, "one"))
        writing.start()
        assert impatient.read(keys.count) == 0
        shell.execute("ROLLBACK")
        writing.join(10)
    assert impatient.read(keys.count) == 1
    patient.close()
    impatient.close()


def test_a_full_disk_is_told_and_gets_over(impatient: Database) -> None:
    """Nothing of the write is kept, reads go on, and when there is room again so do writes."""
    pages = impatient.write(lambda connection: pragma(connection, "page_count"))
    impatient.write(lambda connection: pragma(connection, f"max_page_count = {pages}"))

    def make_many(connection: Connection) -> None:
        for number in range(50):
            make(connection, f"id{number}")

    with pytest.raises(StorageUnavailable) as caught:
        impatient.write(make_many)
    assert caught.value.reason is Reason.FULL
    assert impatient.read(keys.count) == 0
    impatient.write(lambda connection: pragma(connection, "max_page_count = 100000"))
    impatient.write(make_many)
    assert impatient.read(keys.count) == 50


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_told(content: bytes, tmp_path: Path) -> None:
    """And left as it is."""
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(StorageUnavailable) as caught:
        migration.migrate(open_database(None, tmp_path), tmp_path, NOW)
    assert caught.value.reason is Reason.FAILED
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_damaged_file_can_be_replaced(data: Path) -> None:
    """A copy takes its place, and what was there is kept with its log."""
    database = open_database(None, data)
    database.write(make, "one")
    backup.back_up(database, data / "copy")
    database.close()
    (data / FILE_NAME).write_bytes(b"\xff" * 9000)
    (data / f"{FILE_NAME}-wal").write_bytes(b"\xff" * 100)
    kept = backup.restore(None, data, data / "copy", NOW)
    assert kept is not None
    assert kept.read_bytes() == b"\xff" * 9000
    database = open_database(None, data)
    assert database.read(keys.count) == 1
    database.close()
    assert whole(data)


def test_opening_it_twice_takes_no_locks_away(data: Path) -> None:
    """Of two in one process, the second leaves the first as it was: another process still sees that it is open."""
    first = open_database(None, data)
    first.write(make, "one")
    open_database(None, data).close()
    # Whoever closes last tidies up; a process that took itself for the last would remove the log of the first.
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM keys'); c.close()"
    subprocess.run([sys.executable, "-c", script, str(data / FILE_NAME)], check=True)
    assert (data / f"{FILE_NAME}-wal").exists()
    first.write(make, "two")
    assert first.read(keys.count) == 2
    first.close()
    assert whole(data)


def test_a_database_cannot_be_opened_while_it_is_replaced(data: Path) -> None:
    """Nor by a second that wants to replace it."""
    lock = os.open(data / f"{FILE_NAME}-open", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(StorageInUse):
        open_database(None, data)
    os.close(lock)
    open_database(None, data).close()


def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    """A file where the directory should be."""
    (tmp_path / "data").write_text("")
    with pytest.raises(StorageUnavailable) as caught:
        open_database(None, tmp_path / "data")
    assert caught.value.reason is Reason.FAILED


def start(data: Path, first: int, count: int) -> subprocess.Popen[str]:
    """Start a process that stores keys."""
    command = [sys.executable, str(WRITER), str(data), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_write_at_once_lose_nothing(data: Path) -> None:
    """Two processes and this one, each with its connections, through many checkpoints: every key is there."""
    processes = [start(data, 10_000 * number, 80) for number in range(1, 3)]
    database = open_database(None, data, wait_seconds=20)
    for number in range(80):
        database.write(make, f"id{number:06}")
        database.read(keys.count)
    for process in processes:
        told = process.communicate(timeout=60)[0]
        assert process.returncode == 0
        assert len(told.split()) == 81
    assert database.read(keys.count) == 240
    database.close()
    assert whole(data)


def test_what_was_stored_survives_the_kill_of_who_stored_it(data: Path) -> None:
    """SIGKILL at any moment, while another goes on writing: each key that was told is there, and the turn is free."""
    chance = random.Random(20261123)
    database = open_database(None, data, wait_seconds=20)
    told = []
    for round_ in range(3):
        with start(data, 10_000 * round_, 10_000) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            for number in range(chance.randrange(1, 60)):
                told.append(process.stdout.readline().strip())
                if number % 10 == 0:
                    database.write(make, f"ours{round_}-{number}")
                    told.append(f"ours{round_}-{number}")
            process.kill()
            # Lines that were on their way were told as well; the last may be torn.
            told += [line.strip() for line in process.stdout if line.endswith("\n")]
        database.write(make, f"after{round_}")
    assert len(database.read(keys.versions, told)) == len(told) > 6
    database.close()
    assert whole(data)
