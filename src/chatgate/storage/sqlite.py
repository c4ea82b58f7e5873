"""SQLite: how its connections are opened, and how its writers take turns.

Owns what is special about this database; `database` is the only user.

Why turns. In write-ahead mode SQLite 3.7.0 to 3.51.2 can lose committed rows when one connection writes while another
checkpoints (sqlite.org/wal.html#walresetbug), and Python is linked with such versions nearly everywhere. So a
connection only writes, and only checkpoints, while it holds the turn: a lock among the threads of the process and a
lock on a file among processes. With that it does not matter which version is there, and a command may write while the
gateway runs. Readers are opened so that they cannot write, and never checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING

from sqlalchemy import URL, Engine, QueuePool, create_engine, event

from chatgate.storage.errors import Reason, StorageInUse, StorageUnavailable
from chatgate.storage.new_file import new_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from sqlite3 import Connection as SQLiteConnection

    from sqlalchemy import Connection

_READERS = 4
_LOOK_SECONDS = 0.001
_CHECKPOINT_PAGES = 1000


def writer_engine(file: Path, wait_seconds: float) -> Engine:
    """Return the engine with the one connection that writes. Connect it first, and only during a turn."""
    engine = _engine(file, wait_seconds, connections=1)

    @event.listens_for(engine, "connect")
    def prepare(connection: SQLiteConnection, _record: object) -> None:
        _settle(connection, "journal_mode", "wal")
        # Each commit is on the disk before it is reported: a revoked key stays revoked when the power fails.
        _settle(connection, "synchronous", 2)
        _settle(connection, "wal_autocheckpoint", _CHECKPOINT_PAGES)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that begins as a reader and then wants to write can find that it may not.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reader_engine(file: Path, wait_seconds: float) -> Engine:
    """Return the engine for reads, each of which sees one moment of the database."""
    engine = _engine(file, wait_seconds, connections=_READERS)

    @event.listens_for(engine, "connect")
    def prepare(connection: SQLiteConnection, _record: object) -> None:
        _settle(connection, "query_only", 1)
        _settle(connection, "wal_autocheckpoint", 0)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def is_set_up(reader: Engine) -> bool:
    """Tell whether a file is one that readers can use, as every writer leaves it."""
    with reader.connect() as connection:
        return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()) == "wal"


def is_connected(engine: Engine) -> bool:
    """Tell whether an engine that nobody uses at the moment was ever used."""
    return isinstance(engine.pool, QueuePool) and engine.pool.checkedin() > 0


def _engine(file: Path, wait_seconds: float, *, connections: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(file)),
        # Connections move between threads, and are used by one at a time.
        connect_args={"timeout": wait_seconds, "check_same_thread": False},
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=wait_seconds,
        # An error is logged, and what it was about may be a digest.
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: SQLiteConnection, _record: object) -> None:
        # Python's own guessing where a transaction begins is switched off: what begins one here says so.
        connection.isolation_level = None
        _settle(connection, "busy_timeout", round(wait_seconds * 1000))
        _settle(connection, "foreign_keys", 1)

    return engine


def _settle(connection: SQLiteConnection, pragma: str, value: str | int) -> None:
    """Set a pragma and read it back: one that SQLite does not take is ignored in silence."""
    try:
        connection.execute(f"PRAGMA {pragma} = {value}").close()
        (now,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    except BaseException:
        # It never becomes a connection of the pool, so nobody else would close it.
        connection.close()
        raise
    if now != value:
        connection.close()
        raise StorageUnavailable(Reason.FAILED, f"SQLite keeps {pragma} at {now}")


class Turn:
    """The right to write: at most one holder among all threads and processes that use the file."""

    def __init__(self, file: Path, wait_seconds: float) -> None:
        """Take turns for the database `file`, through a file of its own next to it."""
        self._wait_seconds = wait_seconds
        self._threads = threading.Lock()
        self._lock = _open_lock(file, "writer")

    @contextlib.contextmanager
    def __call__(self, patience_seconds: float | None = None) -> Iterator[None]:
        """Hold the turn; the system gives it back when the process dies.

        Raises `StorageUnavailable` (`LOCKED`) when others hold it for longer than `patience_seconds`, by default
        `wait_seconds`.
        """
        wait_seconds = self._wait_seconds if patience_seconds is None else patience_seconds
        deadline = time.monotonic() + wait_seconds
        if not self._threads.acquire(timeout=wait_seconds):
            raise StorageUnavailable(Reason.LOCKED, "another thread is writing")
        try:
            while not _try_lock(self._lock, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise StorageUnavailable(Reason.LOCKED, "another process is writing")
                time.sleep(_LOOK_SECONDS)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Give up taking turns."""
        os.close(self._lock)


class Use:
    """Tells others that the database is open, or that nobody else may open it."""

    def __init__(self, file: Path, *, alone: bool = False) -> None:
        """Announce the use. Raises `StorageInUse` when it is open elsewhere and is wanted `alone`, or the reverse."""
        self._lock = _open_lock(file, "open")
        if not _try_lock(self._lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            self.close()
            raise StorageInUse(str(file))

    def close(self) -> None:
        """End the use."""
        os.close(self._lock)


def create_file(file: Path) -> None:
    """Make sure that the file exists, and that one made now is its owner's alone; SQLite's own files follow it.

    One that exists is not even opened: closing it again would take away the locks that SQLite has on it in this process
    (sqlite.org/howtocorrupt.html, on closing a file that SQLite has open).
    """
    if not file.exists():
        with contextlib.suppress(FileExistsError), new_file(file):
            pass


def _open_lock(file: Path, purpose: str) -> int:
    return os.open(file.with_name(f"{file.name}-{purpose}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
