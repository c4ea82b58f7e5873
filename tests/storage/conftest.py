"""Databases for tests: an empty one and one with the tables, of both kinds, each test's own.

A test that asks for `place` or `database` is run on SQLite and on PostgreSQL. Where PostgreSQL's server is not
installed, the run says at its end what it did not try.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from chatgate.storage import migration
from chatgate.storage.database import FILE_NAME, Database, open_database
from storage.postgres_server import PostgresServer, programs

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Place(NamedTuple):
    """Where a database is: arguments of `open_database`."""

    url: str | None
    data: Path

    def open(self, wait_seconds: float = 5.0) -> Database:
        """Open it."""
        return open_database(self.url, self.data, wait_seconds=wait_seconds)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run a server for the whole session."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(found)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def blank_name(postgres: PostgresServer) -> str:
    """Make a database that tests use in turn: emptying one is quicker than making one."""
    return postgres.create()


@pytest.fixture(scope="session")
def migrated_name(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make another with the tables."""
    name = postgres.create()
    migrate(Place(postgres.url(name), tmp_path_factory.mktemp("postgresql")))
    return name


@pytest.fixture
def emptied_name(postgres: PostgresServer, migrated_name: str) -> str:
    """Return the name of a database on the server with empty tables."""
    with postgres.connect(migrated_name) as connection:
        connection.execute("TRUNCATE keys, attempts, budgets, journal_positions, quarantine, responses")
        connection.execute("DELETE FROM facts WHERE name <> 'oldest_revision'")
    return migrated_name


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file with the tables, for tests to copy."""
    data = tmp_path_factory.mktemp("sqlite")
    migrate(Place(None, data))
    return data / FILE_NAME


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return where an empty database is."""
    if request.param == "sqlite":
        return Place(None, tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("blank_name")
    with server.connect(name) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return Place(server.url(name), tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return where a database with empty tables is."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("migrated_file"), tmp_path / FILE_NAME)
        return Place(None, tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    return Place(server.url(request.getfixturevalue("emptied_name")), tmp_path)


@pytest.fixture
def database(migrated_place: Place) -> Iterator[Database]:
    """Return an open database with empty tables."""
    database = migrated_place.open()
    yield database
    database.close()


def migrate(place: Place) -> migration.Migrated:
    """Make or change the tables."""
    database = place.open()
    try:
        return migration.migrate(database, place.data / "backups", NOW)
    finally:
        database.close()
