"""The programs that come with PostgreSQL and copy a database: `pg_dump` and `pg_restore`.

Owns how they are called, and what has to be true of a database before its tables are replaced; `backup` is the only
user. Loaded when a copy of PostgreSQL is made or used, and not before.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from chatgate.storage import schema
from chatgate.storage.database import first_line, reason_of
from chatgate.storage.errors import BackupError, Reason, StorageInUse, StorageUnavailable
from chatgate.storage.new_file import new_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

_CONNECT_SECONDS = 5
_TABLES = [*schema.metadata.tables, "alembic_version"]


def dump(url: URL, target: Path) -> None:
    """Copy a database as it is at one moment into an empty file. Raises `BackupError`."""
    with _connection_words(url) as where:
        _run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}", where)


def examine(source: Path) -> None:
    """Raise `BackupError` for what is not a whole copy of a database of this program."""
    # Read to its end, so that a torn copy is found before anything is touched.
    _run("pg_restore", "--file=/dev/null", str(source))
    contents = _run("pg_restore", "--list", str(source))
    if not all(f" TABLE public {name} " in contents for name in ("alembic_version", "keys")):
        raise BackupError("not_a_backup", "it has none of the tables")


def tables(url: URL) -> list[str]:
    """Return which of our tables are there. Raises `StorageInUse` when a gateway is connected."""
    with _connection(url) as connection:
        users = connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'chatgate' AND backend_type = 'client backend'"
        ).fetchone()
        if users is not None:
            raise StorageInUse(url.render_as_string(hide_password=True))
        there = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename = ANY(%s)", [_TABLES]
        )
        return [name for (name,) in there]


def replace(url: URL, former: list[str], source: Path) -> None:
    """Remove the `former` tables and make those of a copy. Raises `BackupError`."""
    with _connection(url) as connection:
        for name in former:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    with _connection_words(url) as where:
        _run("pg_restore", "--no-owner", "--no-privileges", "--single-transaction", f"--dbname={where}", str(source))


@contextlib.contextmanager
def _connection(url: URL) -> Iterator[psycopg.Connection]:
    """Yield a connection in a transaction. Raises `StorageUnavailable`."""
    try:
        with (
            _connection_words(url) as where,
            psycopg.connect(where, application_name="chatgate-restore", connect_timeout=_CONNECT_SECONDS) as connection,
        ):
            connection.execute(f"SET LOCAL lock_timeout = '{_CONNECT_SECONDS}s'")
            yield connection
    except psycopg.Error as error:
        reason = reason_of(error, lost=True) or Reason.FAILED
        raise StorageUnavailable(reason, first_line(error)) from error


@contextlib.contextmanager
def _connection_words(url: URL) -> Iterator[str]:
    """Yield what PostgreSQL's programs are told to connect to.

    The password is in a file that goes away with the block: everybody on the machine sees arguments.
    """
    words = {"host": url.host, "port": url.port, "user": url.username, "dbname": url.database, **url.query}
    with contextlib.ExitStack() as stack:
        if url.password is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chatgate-"))
            escaped = str(url.password).replace("\\", "\\\\").replace(":", "\\:")
            words["passfile"] = str(Path(folder) / "pgpass")
            with new_file(Path(folder) / "pgpass") as made:
                made.write_text(f"*:*:*:*:{escaped}\n", "utf-8")
        yield make_conninfo(**{name: str(word) for name, word in words.items() if word is not None})


def _run(program: str, *arguments: str) -> str:
    """Run one of the programs and return what it prints. Raises `BackupError`."""
    path = shutil.which(program)
    if path is None:
        raise BackupError("program_missing", program)
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BackupError("failed", lines[0][:300])
    return done.stdout
