"""Bring the tables of a database to the form this program knows.

Owns when and under which lock that happens; the steps are the revisions in `migrations/`. They only go forward, and
all of them are taken or none. The composition root and the commands call `migrate` after `open_database`.

A program also works with tables that a later version has already changed, as long as that version has not said that
it no longer can (`schema.FACT_OLDEST_REVISION`): so machines can be upgraded one by one, and one can be taken back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import MetaData, Table, inspect, select, text

from chatgate.storage import backup, schema
from chatgate.storage.errors import SchemaTooNew

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from chatgate.storage.database import Database

_ADVISORY_LOCK = 0x6368_6174_6761_7465
"""PostgreSQL's advisory locks are numbers; this one spells the program's name."""

_REVISION = Table("alembic_version", MetaData())


class Program(Struct, frozen=True):
    """What a version of the program knows: the directory with its revisions, and the last of them."""

    steps: Path
    head: str


_OURS = Program(Path(__file__).with_name("migrations"), schema.HEAD)


class Migrated(Struct, frozen=True):
    """What was done. `before` is None for an empty database; `backup` is None when none was needed or made."""

    before: str | None
    after: str
    backup: Path | None


def revision(connection: Connection) -> str | None:
    """Return the revision of the tables; None for a database without any."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(select(text("version_num")).select_from(_REVISION)).scalar_one_or_none()


def migrate(database: Database, backups: Path, now: datetime, program: Program = _OURS) -> Migrated:
    """Bring the tables up to the program's head; a no-op when they are. Of several that start at once, one does it.

    A database of SQLite is copied into the directory `backups` first, unless it is empty; the backups of a PostgreSQL
    are its operator's. When a step fails on either, everything is as it was before, and the copy is removed again.
    Raises `SchemaTooNew`, `BackupError` when no copy can be made, and `StorageUnavailable`.
    """
    found = database.read(_stand, program.head)
    if found is not None:
        return Migrated(found, found, None)
    return database.write(_upgrade, database, backups, now, program)


def _stand(connection: Connection, head: str) -> str | None:
    """Return the revision when this program can work with it as it is; None when there is something to do."""
    found = revision(connection)
    if found is None or found < head:
        return None
    if found > head:
        facts = schema.facts
        oldest = select(facts.c.value).where(facts.c.name == schema.FACT_OLDEST_REVISION)
        if connection.execute(oldest).scalar_one() > head:
            raise SchemaTooNew(found, head)
    return found


def _upgrade(connection: Connection, database: Database, backups: Path, now: datetime, program: Program) -> Migrated:
    """Take the steps, in the transaction that the connection is in, which is the lock as well on SQLite."""
    if database.dialect == "postgresql":
        # The others wait for as long as it takes, which may be long.
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
    if (stand := _stand(connection, program.head)) is not None:
        return Migrated(stand, stand, None)
    before = revision(connection)
    copy = None
    if before is not None and database.file is not None:
        copy = backups / f"before-{program.head}-{now:%Y%m%dT%H%M%SZ}.db"
        backup.copy_sqlite(database.file, copy)
    try:
        _take_steps(connection, program.steps)
    except BaseException:
        # It is a copy of what is still there; a service that is started again and again would fill the disk with them.
        if copy is not None:
            copy.unlink()
        raise
    return Migrated(before, program.head, copy)


def _take_steps(connection: Connection, steps: Path) -> None:
    from alembic import command  # noqa: PLC0415 - most starts find nothing to do, and need not wait for it to load
    from alembic.config import Config  # noqa: PLC0415 - the same

    config = Config()
    config.set_main_option("script_location", str(steps).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
