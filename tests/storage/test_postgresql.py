"""What is special about PostgreSQL: a server that goes away and comes back, and one that freezes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy import func as sql

from chatgate.storage import backup, keys
from chatgate.storage.database import Database, open_database
from chatgate.storage.errors import BackupError, Reason, StorageUnavailable
from chatgate.storage.threads import DatabaseThreads
from chatgate.vocabulary.keys import NewKey
from storage.conftest import NOW
from storage.postgres_server import PASSWORD, PostgresServer


@pytest.fixture
def name(emptied_name: str) -> str:
    """Return a database with empty tables."""
    return emptied_name


@pytest.fixture
def server_database(postgres: PostgresServer, name: str, tmp_path: Path) -> Iterator[Database]:
    """Return it opened."""
    database = open_database(postgres.url(name), tmp_path, wait_seconds=1)
    yield database
    database.close()


def make(connection: Connection, key_id: str) -> None:
    """Store a key."""
    keys.create(connection, NewKey("a key"), key_id, f"digest of {key_id}", "", NOW)


def wait_until_usable(database: Database) -> float:
    """Return the seconds until a read is answered; fails after five."""
    began = time.monotonic()
    while True:
        try:
            database.read(keys.count)
        except StorageUnavailable:
            assert time.monotonic() < began + 5
            time.sleep(0.02)
        else:
            return time.monotonic() - began


def test_a_restart_between_two_uses_is_not_noticed(postgres: PostgresServer, server_database: Database) -> None:
    """Connections that were open are tried before they are used."""
    server_database.write(make, "one")
    postgres.stop()
    postgres.start()
    server_database.write(make, "two")
    assert server_database.read(keys.count) == 2


def test_an_immediate_stop_is_told_and_gotten_over(postgres: PostgresServer, server_database: Database) -> None:
    """While the server is down everything is out of reach; when it is back, within five seconds, nothing is missing."""
    server_database.write(make, "one")
    postgres.stop(signal.SIGQUIT)
    for work in (server_database.read, server_database.write):
        with pytest.raises(StorageUnavailable) as caught:
            work(keys.count)
        assert caught.value.reason is Reason.OUT_OF_REACH
        assert PASSWORD not in str(caught.value)
    postgres.start()
    wait_until_usable(server_database)
    server_database.write(make, "two")
    assert server_database.read(keys.count) == 2


def test_a_session_that_is_ended_in_a_write_undoes_it(
    postgres: PostgresServer, name: str, server_database: Database
) -> None:
    """It is told as out of reach, and the next write works."""

    def be_ended(connection: Connection) -> None:
        make(connection, "one")
        backend = connection.execute(select(sql.pg_backend_pid())).scalar_one()
        with postgres.connect(name) as administrator:
            administrator.execute("SELECT pg_terminate_backend(%s)", [backend])
        make(connection, "two")

    with pytest.raises(StorageUnavailable) as caught:
        server_database.write(be_ended)
    assert caught.value.reason is Reason.OUT_OF_REACH
    server_database.write(make, "three")
    assert [key.id for key in server_database.read(keys.list_keys)] == ["three"]


async def test_a_frozen_server_holds_up_nobody_for_long(server_database: Database) -> None:
    """Each caller is told that it is slow, as soon as too many wait at once; when it thaws, all goes on by itself."""
    threads = DatabaseThreads(server_database, read_seconds=0.2, write_seconds=0.2, max_waiting=3)
    backend = await threads.write(lambda connection: connection.execute(select(sql.pg_backend_pid())).scalar_one())
    os.kill(backend, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(StorageUnavailable) as caught:
                await threads.write(make, "given up")
            assert caught.value.reason is Reason.SLOW
        outcomes = await asyncio.gather(
            *(threads.write(make, f"given up {number}") for number in range(20)), return_exceptions=True
        )
        assert all(isinstance(outcome, StorageUnavailable) for outcome in outcomes)
    finally:
        os.kill(backend, signal.SIGCONT)
    deadline = time.monotonic() + 5
    while True:
        try:
            await threads.write(make, "after")
            break
        except StorageUnavailable:
            assert time.monotonic() < deadline
    stored = [key.id for key in await threads.read(keys.list_keys)]
    # The one that had begun was finished; those that had not were never done.
    assert stored == ["after", "given up"]
    assert await threads.close()


def test_a_table_that_is_locked_is_waited_for_but_not_for_ever(
    postgres: PostgresServer, name: str, server_database: Database
) -> None:
    """An administrator's ALTER TABLE, say."""
    with postgres.connect(name) as administrator, administrator.transaction():
        administrator.execute("LOCK TABLE keys")
        with pytest.raises(StorageUnavailable) as caught:
            server_database.write(make, "one")
    assert caught.value.reason is Reason.LOCKED
    server_database.write(make, "one")


def test_too_many_connections_are_told(postgres: PostgresServer, name: str, tmp_path: Path) -> None:
    """The server has none left for us: slow, not a mistake."""
    with postgres.connect() as administrator:
        administrator.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        administrator.execute("CREATE ROLE visitor LOGIN PASSWORD 'sk-test-visitor'")
    url = postgres.url(name).replace("postgres:", "visitor:", 1).partition("visitor:")[0]
    database = open_database(f"{url}visitor:sk-test-visitor@127.0.0.1:{postgres.port}/{name}", tmp_path, wait_seconds=1)
    with pytest.raises(StorageUnavailable) as caught:
        database.read(keys.count)
    assert caught.value.reason in {Reason.SLOW, Reason.OUT_OF_REACH}
    database.close()
    with postgres.connect() as administrator:
        administrator.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
        administrator.execute("DROP ROLE visitor")


def test_a_wrong_password_is_out_of_reach_and_not_repeated(postgres: PostgresServer, name: str, tmp_path: Path) -> None:
    """Neither the wrong one nor the right one."""
    database = open_database(f"postgresql://postgres:mistaken@127.0.0.1:{postgres.port}/{name}", tmp_path)
    with pytest.raises(StorageUnavailable) as caught:
        database.read(keys.count)
    assert caught.value.reason is Reason.OUT_OF_REACH
    assert "mistaken" not in str(caught.value)
    database.close()


def test_the_password_is_no_argument_of_a_program(
    postgres: PostgresServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody on the machine sees arguments; what the program is told leaves nothing behind."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pg_dump"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    database = open_database(postgres.url(name), tmp_path)
    with pytest.raises(BackupError) as caught:
        backup.back_up(database, tmp_path / "copy")
    database.close()
    assert caught.value.code == "failed"
    arguments = (tmp_path / "arguments").read_text()
    assert "passfile=" in arguments
    assert "pass\\'word" not in arguments
    assert "pass'word" not in arguments
    assert not Path(arguments.partition("passfile=")[2].split()[0]).exists()


def test_a_missing_program_is_named(
    postgres: PostgresServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whoever reads it knows what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    database = open_database(postgres.url(name), tmp_path)
    with pytest.raises(BackupError) as caught:
        backup.back_up(database, tmp_path / "copy")
    database.close()
    assert (caught.value.code, caught.value.detail) == ("program_missing", "pg_dump")


def test_a_read_only_server_is_told(server_database: Database) -> None:
    """A standby, say."""

    def as_on_a_standby(connection: Connection) -> None:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        make(connection, "one")

    with pytest.raises(StorageUnavailable) as caught:
        server_database.write(as_on_a_standby)
    assert caught.value.reason is Reason.FAILED
