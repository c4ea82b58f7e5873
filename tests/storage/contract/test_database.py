"""Reads see one moment, writes are whole or not at all, and failures are told from mistakes."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, Connection, String, Table, delete, insert, select, update
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.exc import DBAPIError

from chatgate.storage import schema
from chatgate.storage.database import Database, open_database
from chatgate.storage.errors import Reason, StorageUnavailable
from storage.conftest import Place

BUDGET = {"account": "global//day/2026-11-23"}
SPENT = schema.budgets.c.spent_nano_usd


def open_budget(connection: Connection) -> None:
    """Make a budget of which nothing is spent."""
    connection.execute(insert(schema.budgets).values(BUDGET))


def spend(connection: Connection, nano_usd: int) -> None:
    """Spend from it."""
    connection.execute(update(schema.budgets).values(spent_nano_usd=SPENT + nano_usd))


def spent(connection: Connection) -> int:
    """Return what is spent of it."""
    found: int = connection.execute(select(SPENT)).scalar_one()
    return found


class Mishap(Exception):  # noqa: N818 - it is none of ours
    """Something that goes wrong in the middle of a write."""


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    """Whatever is raised in it, statements before that are undone."""
    database.write(open_budget)

    def fail(connection: Connection) -> None:
        spend(connection, 5)
        raise Mishap

    with pytest.raises(Mishap):
        database.write(fail)
    assert database.read(spent) == 0
    database.write(spend, 7)
    assert database.read(spent) == 7


def test_writes_at_once_all_count(database: Database) -> None:
    """Eight threads that add to one sum: it is exact, to the last nano-dollar that 64 bits hold."""
    database.write(open_budget)
    database.write(spend, 2**63 - 1 - 8 * 10 * 3)

    def add(_: int) -> None:
        for _each in range(10):
            database.write(spend, 3)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert database.read(spent) == 2**63 - 1


def test_a_read_sees_one_moment(database: Database) -> None:
    """What is written while it runs, it does not see; it holds up no write, and no write holds it up."""
    database.write(open_budget)
    begun, written = threading.Event(), threading.Event()

    def look_twice(connection: Connection) -> tuple[int, int]:
        first = spent(connection)
        begun.set()
        assert written.wait(10)
        return first, spent(connection)

    with ThreadPoolExecutor(1) as pool:
        looks = pool.submit(database.read, look_twice)
        assert begun.wait(10)
        database.write(spend, 5)
        assert database.read(spent) == 5
        written.set()
        assert looks.result(10) == (0, 0)
    assert database.read(spent) == 5


def test_a_read_cannot_write(database: Database) -> None:
    """What is asked for as a read changes nothing, whatever it tries."""
    database.write(open_budget)
    with pytest.raises((StorageUnavailable, DBAPIError)):
        database.read(spend, 5)
    assert database.read(spent) == 0


@pytest.mark.parametrize(
    "values",
    [
        {"spent_nano_usd": -1},
        {"reserved_nano_usd": -1},
        {"account": None},
        {"spent_nano_usd": 2**63},
    ],
)
def test_what_cannot_be_is_refused_by_the_database(database: Database, values: dict[str, Any]) -> None:
    """Sums below nothing, missing texts, more than 64 bits: a mistake of ours, and no reason to try again."""

    def store(connection: Connection) -> None:
        connection.execute(insert(schema.budgets).values(BUDGET | values))

    with pytest.raises((DBAPIError, OverflowError)):
        database.write(store)
    assert database.read(lambda connection: connection.execute(select(SPENT)).all()) == []


def plain_row(table: Table) -> dict[str, Any]:
    """Return a row that the table takes, as a statement of somebody else would write it."""
    return {
        column.name: "x" if hasattr(column.type, "characters") else isinstance(column.type, Boolean) or 1
        for column in table.columns
    } | ({"state": "settled"} if "state" in table.columns else {})


@pytest.mark.parametrize("table", schema.metadata.sorted_tables, ids=lambda table: table.name)
def test_every_text_is_bounded_by_the_database_itself(database: Database, table: Table) -> None:
    """Also for those who write with statements of their own, and on SQLite, which takes text of any length.

    There, `attempts` is the exception: `calls` alone bounds what it writes.
    """
    if table is schema.attempts and database.dialect == "sqlite":
        return
    plain = sql_table(table.name, *(sql_column(column.name) for column in table.columns))
    row = plain_row(table)

    def store(connection: Connection, /, **other: str) -> None:
        connection.execute(delete(plain))
        connection.execute(insert(plain).values(row | other))

    for column in table.columns:
        assert hasattr(column.type, "characters") or not isinstance(column.type, String), column
        if hasattr(column.type, "characters") and column.name != "state":
            database.write(store, **{column.name: "é" * column.type.characters})
            with pytest.raises(DBAPIError, match=f"{column.name}_length|too long"):
                database.write(store, **{column.name: "é" * (column.type.characters + 1)})


def test_two_open_databases_at_one_place_are_one(migrated_place: Place, database: Database) -> None:
    """What is written through one is seen through the other."""
    other = migrated_place.open()
    database.write(open_budget)
    other.write(spend, 1)
    database.write(spend, 2)
    assert other.read(spent) == database.read(spent) == 3
    other.close()


IN_A_CHILD = """
import os, pathlib, sys
from chatgate.storage.database import open_database
database = open_database(sys.argv[1] or None, pathlib.Path(sys.argv[2]))
database.read(lambda connection: None)
if os.fork() == 0:
    try:
        database.read(lambda connection: None)
    except RuntimeError:
        os._exit(7)
    os._exit(1)
status = os.wait()[1]
database.read(lambda connection: None)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_child_is_told_not_to_use_what_its_parent_opened(migrated_place: Place) -> None:
    """Two processes on one connection would break it for both."""
    command = [sys.executable, "-c", IN_A_CHILD, migrated_place.url or "", str(migrated_place.data)]
    assert subprocess.run(command, check=False).returncode == 7


def test_an_error_tells_no_values(database: Database) -> None:
    """It is logged, and what was to be stored may be a digest."""

    def store_twice(connection: Connection) -> None:
        for _ in range(2):
            connection.execute(insert(schema.facts).values(name="name", value="sk-test-value"))

    with pytest.raises(DBAPIError) as caught:
        database.write(store_twice)
    assert "sk-test-value" not in str(caught.value)


def test_where_it_is_can_be_told_to_anybody(database: Database) -> None:
    """The location names the place and no password."""
    assert "pass" not in database.location
    assert "chatgate.db" in database.location or "***" in database.location


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://user:secret@127.0.0.1/x",
        "postgresql://user:secret@127.0.0.1",
        "postgresql://user:secret@127.0.0.1:port/x",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////tmp/x?mode=secret",
        "postgresql+asyncpg://user:secret@127.0.0.1/x",
    ],
)
def test_another_url_is_refused_without_repeating_it(url: str, tmp_path: Path) -> None:
    """It may hold a password."""
    with pytest.raises(ValueError, match="looks like") as caught:
        open_database(url, tmp_path)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_sqlite_url_names_a_file(tmp_path: Path) -> None:
    """An absolute path is that path; directories that are missing are made."""
    database = open_database(f"sqlite:///{tmp_path}/deep/er/name.db", tmp_path / "elsewhere")
    assert database.file == tmp_path / "deep/er/name.db"
    database.close()
    assert (tmp_path / "deep/er/name.db").exists()


def test_a_server_that_is_not_there_is_out_of_reach(tmp_path: Path) -> None:
    """Opening is no error yet; using it is, in a moment and without the password."""
    database = open_database("postgresql://user:secret@127.0.0.1:1/name", tmp_path)
    with pytest.raises(StorageUnavailable) as caught:
        database.read(spent)
    assert caught.value.reason is Reason.OUT_OF_REACH
    assert "secret" not in str(caught.value)
    database.close()
