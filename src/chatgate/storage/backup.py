"""Copies of a database, made while it is used, and the way back.

Owns the forms of both: a copy of SQLite's database is one file of SQLite; a copy of PostgreSQL's is what `pg_dump`
calls the custom format, made and read by the server's own programs, which have to be installed. The commands `backup`
and `restore` call this, and `migration` before it changes anything. A copy holds digests of keys and no key; the
pepper is not in it, and has to be kept with it.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from typing import TYPE_CHECKING

from chatgate.storage import sqlite
from chatgate.storage.database import FILE_NAME, read_url, told_apart
from chatgate.storage.errors import BackupError
from chatgate.storage.new_file import new_file, sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import URL

    from chatgate.storage.database import Database

_WAIT_SECONDS = 5.0


def back_up(database: Database, target: Path) -> None:
    """Copy a database as it is at one moment, while others use it; `target` appears when it is whole and on the disk.

    Raises `BackupError`, also when something is at `target` already, and `StorageUnavailable`.
    """
    if database.file is not None:
        copy_sqlite(database.file, target)
        return
    from chatgate.storage import postgresql_programs as programs  # noqa: PLC0415 - its driver is not for SQLite

    with _new_copy(target) as made:
        programs.dump(database.url, made)


def restore(url: str | None, data: Path, source: Path, now: datetime) -> Path | None:
    """Put a copy in the place of a database, which nobody may have open; arguments as for `open_database`.

    The copy is examined first. What is replaced is kept in the directory `backups` of `data`; returns its path, None
    when there was nothing. `migration.migrate` is to be called afterwards, as the copy may be older than the program.
    Raises `StorageInUse`, `BackupError`, and `StorageUnavailable`. When it fails on PostgreSQL after the former tables
    were removed, the error says where they are kept.
    """
    parsed = None if url is None else read_url(url)
    aside = data / "backups" / f"before-restore-{now:%Y%m%dT%H%M%S%fZ}"
    if parsed is None or parsed.drivername == "sqlite":
        file = data / (FILE_NAME if parsed is None else str(parsed.database))
        return _restore_sqlite(file, source, aside.with_suffix(".db"))
    return _restore_postgresql(parsed, source, aside.with_suffix(".dump"))


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database of SQLite as it is at one moment, while others write to it; see `back_up`."""
    with _new_copy(target) as made, told_apart():
        reading = contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True))
        with reading as original, contextlib.closing(sqlite3.connect(made, isolation_level=None)) as copy:
            original.execute("PRAGMA wal_autocheckpoint = 0")
            # All pages in one step: then the copy is of one moment, and needs no second try while others write.
            original.backup(copy)
            # One file, which can be carried anywhere.
            copy.execute("PRAGMA journal_mode = DELETE")
            if copy.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
                raise BackupError("damaged", str(source))


def _restore_sqlite(file: Path, source: Path, aside: Path) -> Path | None:
    """Examine a copy of the copy, then let it take the file's place in one step."""
    sqlite.create_file(file)
    with told_apart(), contextlib.closing(sqlite.Use(file, alone=True)):
        # Made under a name of its own, and moved from there: what is at the end of `new_file` is never replaced.
        ready = file.with_name(f".{file.name}.restored")
        ready.unlink(missing_ok=True)
        with _new_copy(ready) as made:
            shutil.copyfile(source, made)
            _examine(made)
        kept = _put_aside(file, aside)
        ready.replace(file)
        sync(file.parent)
        return kept


def _examine(file: Path) -> None:
    """Raise `BackupError` for what is not a whole database of this program."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        try:
            found = connection.execute("PRAGMA integrity_check").fetchall()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.DatabaseError as error:
            raise BackupError("damaged", str(error)) from error
    if found != [("ok",)]:
        raise BackupError("damaged", str(found[0][0]).partition("\n")[0])
    if file.stat().st_size % page_bytes:
        # SQLite does not miss what holds nothing.
        raise BackupError("damaged", "its last page is not whole")
    if not {"alembic_version", "keys"} <= tables:
        raise BackupError("not_a_backup", "it has none of the tables")


def _put_aside(file: Path, aside: Path) -> Path | None:
    """Give a database that nobody has open a second name, its log with it; None when it holds nothing."""
    log, index = (file.with_name(file.name + suffix) for suffix in ("-wal", "-shm"))
    if not file.stat().st_size and not log.exists():
        return None
    # What is still in the log moves into the file, so that it is whole by itself.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=_WAIT_SECONDS)) as whole:
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside.hardlink_to(file)
    # A log that is left belongs to a file that is damaged; next to another file it would damage that one too.
    if log.exists():
        log.rename(aside.with_name(aside.name + "-wal"))
    index.unlink(missing_ok=True)
    sync(aside.parent)
    return aside


def _restore_postgresql(url: URL, source: Path, aside: Path) -> Path | None:
    """Replace the tables by those of a copy, after making one of what is there."""
    from chatgate.storage import postgresql_programs as programs  # noqa: PLC0415 - its driver is not for SQLite

    programs.examine(source)
    there = programs.tables(url)
    if there:
        with _new_copy(aside) as made:
            programs.dump(url, made)
    try:
        programs.replace(url, there, source)
    except BackupError as error:
        kept = f" (what was there is in {aside})" if there else ""
        raise BackupError(error.code, error.detail + kept) from error
    return aside if there else None


@contextlib.contextmanager
def _new_copy(target: Path) -> Iterator[Path]:
    """Yield where to make a copy; see `new_file`. Raises `BackupError` when it cannot be made there."""
    try:
        with new_file(target) as made:
            yield made
    except FileExistsError as error:
        raise BackupError("exists", str(target)) from error
    except OSError as error:
        raise BackupError("failed", f"{target}: {error.strerror}") from error
