"""The tables come to be, once, and are those that the statements are built from."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, inspect, text, update

from chatgate.storage import audit, keys, migration, schema
from chatgate.storage.database import Database
from chatgate.storage.errors import SchemaTooNew
from chatgate.vocabulary.keys import NewKey
from storage.conftest import NOW, Place, migrate
from storage.records import DAY, dispatch, dump, failure, fold, settlement


@pytest.fixture
def empty(place: Place) -> Iterator[Database]:
    """Return an open database without tables."""
    database = place.open()
    yield database
    database.close()


def test_an_empty_database_gets_its_tables_once(place: Place) -> None:
    """The second time there is nothing to do, and nothing was worth a copy."""
    assert migrate(place) == migration.Migrated(None, schema.HEAD, None)
    assert migrate(place) == migration.Migrated(schema.HEAD, schema.HEAD, None)
    assert not (place.data / "backups").exists()


def test_of_many_that_start_at_once_one_makes_the_tables(place: Place) -> None:
    """The others wait and find them made."""
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: migrate(place), range(6)))
    assert sorted(each.before or "" for each in done) == ["", *[schema.HEAD] * 5]


def test_the_tables_are_those_of_the_schema(empty: Database, tmp_path: Path) -> None:
    """What the revisions make and what the statements are built from are held to each other, checks included."""
    migration.migrate(empty, tmp_path, NOW)

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata))

    assert empty.read(differences) == []

    def shape(connection: Connection) -> dict[str, object]:
        found = inspect(connection)
        return {
            table.name: (
                sorted((check["name"], check["sqltext"]) for check in found.get_check_constraints(table.name)),
                found.get_pk_constraint(table.name),
                sorted(
                    (index["name"], index["column_names"], index["unique"]) for index in found.get_indexes(table.name)
                ),
                [str(column) for column in found.get_columns(table.name)],
            )
            for table in schema.metadata.sorted_tables
        }

    made = empty.read(shape)

    def make_anew(connection: Connection) -> None:
        schema.metadata.drop_all(connection)
        schema.metadata.create_all(connection)

    empty.write(make_anew)
    assert empty.read(shape) == made


def test_what_was_stored_by_the_first_revision_is_kept(empty: Database, tmp_path: Path) -> None:
    """Every row of the ledger is still there, though some moved to another table, and the ledger goes on."""
    migration.migrate(empty, tmp_path, NOW)
    fold(empty, dispatch("c1", 9, (DAY,)), settlement("c1", 4), dispatch("c2", 9, (DAY,)), failure("c2"))
    before = dump(empty)
    first = shutil.copytree(Path(migration.__file__).with_name("migrations"), tmp_path / "first")
    for later in sorted((first / "versions").glob("v0*.py"))[1:]:
        later.unlink()

    def take_out(connection: Connection) -> dict[str, list[dict[str, object]]]:
        names = ("attempts", "budgets", "journal_positions")
        rows = {
            name: [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {name}"))] for name in names
        }
        schema.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
        return rows

    found = empty.write(take_out)
    migration.migrate(empty, tmp_path, NOW, migration.Program(first, "0001"))

    def put_back(connection: Connection) -> None:
        for name, rows in found.items():
            old = Table(name, MetaData(), autoload_with=connection)
            connection.execute(old.insert(), [{key: row[key] for key in row if key in old.c} for row in rows])

    empty.write(put_back)
    done = migration.migrate(empty, tmp_path / "backups", NOW)
    assert (done.before, done.after) == ("0001", schema.HEAD)
    assert (done.backup is None) is (empty.dialect == "postgresql")
    assert dump(empty) == before
    fold(empty, dispatch("c2", 9, (DAY,), 2), settlement("c2", 5, 2), first=40)
    assert empty.read(audit.audit).differences == ()


def test_the_last_revision_is_the_one_the_program_names() -> None:
    """One line of revisions, each a number, ends in `HEAD`."""
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    revisions = [step.revision for step in ScriptDirectory.from_config(config).walk_revisions()]
    assert revisions[0] == schema.HEAD
    assert revisions == sorted(revisions, reverse=True)
    assert all(len(revision) == 4 and revision.isdigit() for revision in revisions)


NEXT = f"{int(schema.HEAD) + 1:04}"
NEXT_STEP = f"""
import sqlalchemy as sa
from alembic import op

revision = "{NEXT}"
down_revision = "{schema.HEAD}"


def upgrade() -> None:
    op.add_column("keys", sa.Column("of_the_future", sa.Integer, server_default=sa.text("7"), nullable=False))
    op.execute("UPDATE keys SET notes = 'seen'")
"""


def next_version(directory: Path, step: str) -> migration.Program:
    """Return a program that has one more revision than ours."""
    shutil.copytree(Path(migration.__file__).with_name("migrations"), directory)
    (directory / "versions" / f"v{NEXT}_more.py").write_text(step)
    return migration.Program(directory, NEXT)


def test_the_next_version_keeps_what_is_stored(empty: Database, tmp_path: Path) -> None:
    """Its step is taken with the keys in place, after a copy on SQLite; this program goes on with the result."""
    migration.migrate(empty, tmp_path, NOW)
    empty.write(keys.create, NewKey("a key"), "id", "digest", "", NOW)
    done = migration.migrate(empty, tmp_path / "backups", NOW, next_version(tmp_path / "next", NEXT_STEP))
    assert (done.before, done.after) == (schema.HEAD, NEXT)
    assert empty.read(lambda c: c.execute(text("SELECT of_the_future FROM keys")).scalar_one()) == 7
    assert empty.read(keys.get, "id").notes == "seen"
    assert migration.migrate(empty, tmp_path, NOW).after == NEXT
    if empty.dialect == "postgresql":
        assert done.backup is None
        return
    assert done.backup == tmp_path / "backups" / f"before-{NEXT}-20261123T120000Z.db"
    with contextlib.closing(sqlite3.connect(done.backup)) as copy:
        assert copy.execute("SELECT id, notes FROM keys").fetchall() == [("id", "")]
        assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == (schema.HEAD,)


def test_a_next_version_that_fails_half_way_changes_nothing(empty: Database, tmp_path: Path) -> None:
    """Neither tables nor rows, and no copies pile up; the version before goes on."""
    migration.migrate(empty, tmp_path, NOW)
    empty.write(keys.create, NewKey("a key"), "id", "digest", "", NOW)
    program = next_version(tmp_path / "next", NEXT_STEP + "    raise ValueError('half-way')\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="half-way"):
            migration.migrate(empty, tmp_path / "backups", NOW, program)
    assert "of_the_future" not in empty.read(lambda c: [each["name"] for each in inspect(c).get_columns("keys")])
    assert empty.read(keys.get, "id").notes == ""
    assert migration.migrate(empty, tmp_path, NOW).after == schema.HEAD
    assert not list((tmp_path / "backups").glob("*"))


def later_version(connection: Connection, oldest: str) -> None:
    """Do what a later version's migration does: a table more, a revision more, and the oldest it still knows."""
    connection.execute(text("CREATE TABLE of_the_future (id INTEGER)"))
    connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    here = schema.facts.c.name == schema.FACT_OLDEST_REVISION
    connection.execute(update(schema.facts).where(here).values(value=oldest))


def test_a_program_works_on_tables_that_were_only_added_to(empty: Database, tmp_path: Path) -> None:
    """The one before can be started again after an upgrade."""
    migration.migrate(empty, tmp_path, NOW)
    empty.write(later_version, schema.HEAD)
    assert migration.migrate(empty, tmp_path, NOW) == migration.Migrated("0999", "0999", None)
    empty.write(keys.create, NewKey("a key"), "id", "digest", "", NOW)


def test_a_program_refuses_tables_it_no_longer_knows(empty: Database, tmp_path: Path) -> None:
    """And touches nothing."""
    migration.migrate(empty, tmp_path, NOW)
    empty.write(later_version, "0998")
    with pytest.raises(SchemaTooNew) as caught:
        migration.migrate(empty, tmp_path, NOW)
    assert (caught.value.revision, caught.value.known) == ("0999", schema.HEAD)


def test_a_step_that_fails_leaves_the_tables_as_they_were(empty: Database, tmp_path: Path) -> None:
    """Something in the way: no table is made, and after it is gone all are."""
    empty.write(lambda connection: connection.execute(text("CREATE TABLE facts (id INTEGER)")))
    with pytest.raises(Exception, match="facts"):
        migration.migrate(empty, tmp_path, NOW)
    assert empty.read(lambda connection: inspect(connection).get_table_names()) == ["facts"]
    empty.write(lambda connection: connection.execute(text("DROP TABLE facts")))
    assert migration.migrate(empty, tmp_path, NOW).after == schema.HEAD


def test_migrating_leaves_the_log_alone(empty: Database, tmp_path: Path) -> None:
    """The library that takes the steps sets up no logging of its own."""
    before = (logging.getLogger().level, list(logging.getLogger().handlers))
    migration.migrate(empty, tmp_path, NOW)
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before
