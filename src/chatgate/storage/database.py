"""One database: reads that see one moment of it, and writes that are whole or not at all.

Owns connections, transactions and what their failures mean; knows no table. What is read and written is a function that
takes a connection: those of `keys`, `migration` and whoever else speaks SQL. Blocking, and safe to use from several
threads; `threads` is the same for an event loop. To be opened after a fork, never before: what is open cannot be shared
with a child.
"""

from __future__ import annotations

import contextlib
import os
from sqlite3 import Error as SQLiteError
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy import exc as sql_errors

from chatgate.storage import sqlite
from chatgate.storage.errors import Reason, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import URL

Asked = ParamSpec("Asked")
Result = TypeVar("Result")

FILE_NAME = "chatgate.db"
"""The default database, in the data directory."""

WAIT_SECONDS = 5.0
"""How long a statement waits for another's lock, and a connection for the server."""


class Database:
    """An open database. `location` says where without a password; `file` is SQLite's, None for PostgreSQL."""

    def __init__(
        self,
        reader: Engine,
        writer: Engine,
        turn: Callable[[], AbstractContextManager[None]],
        at_close: contextlib.ExitStack,
        file: Path | None = None,
    ) -> None:
        """Use `open_database`. `turn` is held around what the writer does, `at_close` is what to undo at the end."""
        self._reader = reader
        self._writer = writer
        self._turn = turn
        self._at_close = at_close
        self._process = os.getpid()
        self.file = file
        self.dialect = writer.dialect.name
        self.url = writer.url
        self.location = writer.url.render_as_string(hide_password=True) if file is None else str(file)

    def read(
        self, work: Callable[Concatenate[Connection, Asked], Result], *args: Asked.args, **kwargs: Asked.kwargs
    ) -> Result:
        """Do work that only reads, on one moment of the database.

        Raises `StorageUnavailable`, and what `work` raises.
        """
        with self._usable(), self._reader.begin() as connection:
            return work(connection, *args, **kwargs)

    def write(
        self, work: Callable[Concatenate[Connection, Asked], Result], *args: Asked.args, **kwargs: Asked.kwargs
    ) -> Result:
        """Do work in a transaction, which is on the disk when this returns, and undone when `work` raises.

        On SQLite one at a time, whatever the process. Raises `StorageUnavailable`, and what `work` raises.
        """
        with self._usable(), self._turn(), self._writer.begin() as connection:
            return work(connection, *args, **kwargs)

    def close(self) -> None:
        """Close every connection."""
        self._at_close.close()

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Tell failures of the database from mistakes in a statement, and a child from its parent."""
        if os.getpid() != self._process:
            raise RuntimeError("a database is to be opened after the fork")
        with told_apart():
            yield


def open_database(url: str | None, data: Path, *, wait_seconds: float = WAIT_SECONDS) -> Database:
    """Open a database, and make an empty one when it is SQLite's and none is there.

    `url` is `postgresql://user:password@host:5432/name`, `sqlite:////absolute/path`, or None for a file in the
    directory `data`. A server is only connected to when it is first used, so one that is down is no error yet. Raises
    ValueError for another URL, with nothing of it in the message, `StorageInUse` while it is being restored, and
    `StorageUnavailable`.
    """
    if url is None:
        return _open_sqlite(data / FILE_NAME, wait_seconds)
    parsed = read_url(url)
    if parsed.drivername == "sqlite":
        return _open_sqlite(data / str(parsed.database), wait_seconds)
    from chatgate.storage import postgresql  # noqa: PLC0415 - its driver takes memory that SQLite has no use for

    engine = postgresql.engine(parsed, wait_seconds)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        # A read sees one moment throughout, as it does on SQLite.
        reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return Database(reader, engine, contextlib.nullcontext, stack.pop_all())


def read_url(url: str) -> URL:
    """Read a database's URL: `sqlite` with a path, or `postgresql`. Raises ValueError, see `open_database`."""
    wrong = ValueError("a database's URL looks like postgresql://user:password@host:5432/name or sqlite:////a/path")
    try:
        parsed = make_url(url)
    except (sql_errors.ArgumentError, ValueError):
        # The text at fault may hold a password.
        raise wrong from None
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"} and parsed.database:
        return parsed.set(drivername="postgresql")
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:" and not parsed.query:
        return parsed
    raise wrong


def _open_sqlite(file: Path, wait_seconds: float) -> Database:
    """Open a file, made and set up where there is none; one that is there can be read while somebody else writes."""
    with told_apart(), contextlib.ExitStack() as stack:
        sqlite.create_file(file)
        stack.callback(sqlite.Use(file).close)
        turn = sqlite.Turn(file, wait_seconds)
        stack.callback(turn.close)
        writer = sqlite.writer_engine(file, wait_seconds)

        reader = sqlite.reader_engine(file, wait_seconds)

        def dispose() -> None:
            # The last connection that closes moves what is in the log into the file, so that takes a turn too. Whoever
            # has only read waits for nobody: while others have the turn, ours is not the last connection.
            patience_seconds = wait_seconds if sqlite.is_connected(writer) else 0.0
            with contextlib.suppress(StorageUnavailable), turn(patience_seconds):
                reader.dispose()
                writer.dispose()
            reader.dispose()

        stack.callback(dispose)
        if not sqlite.is_set_up(reader):
            with turn(), writer.connect():
                pass
        return Database(reader, writer, turn, stack.pop_all(), file)


@contextlib.contextmanager
def told_apart() -> Iterator[None]:
    """Raise `StorageUnavailable` for what another try may mend; let mistakes, ours or a caller's, through."""
    try:
        yield
    except sql_errors.TimeoutError as error:
        raise StorageUnavailable(Reason.SLOW, "every connection is in use") from error
    except sql_errors.DBAPIError as error:
        lost = isinstance(error, sql_errors.OperationalError | sql_errors.InterfaceError)
        reason = reason_of(error.orig, lost=lost)
        if reason is None:
            raise
        raise StorageUnavailable(reason, first_line(error.orig)) from error
    except SQLiteError as error:
        reason = reason_of(error)
        if reason is None:
            raise
        raise StorageUnavailable(reason, first_line(error)) from error
    except OSError as error:
        raise StorageUnavailable(Reason.FAILED, error.strerror or type(error).__name__) from error


_SQLITE_REASONS = {
    5: Reason.LOCKED,  # SQLITE_BUSY
    6: Reason.LOCKED,  # SQLITE_LOCKED
    8: Reason.FAILED,  # SQLITE_READONLY
    10: Reason.FAILED,  # SQLITE_IOERR
    11: Reason.FAILED,  # SQLITE_CORRUPT
    13: Reason.FULL,  # SQLITE_FULL
    14: Reason.FAILED,  # SQLITE_CANTOPEN
    15: Reason.LOCKED,  # SQLITE_PROTOCOL
    26: Reason.FAILED,  # SQLITE_NOTADB
}
"""By primary result code (sqlite.org/rescode.html)."""

_POSTGRESQL_REASONS = {
    "08": Reason.OUT_OF_REACH,  # connection exception
    "25006": Reason.FAILED,  # read-only transaction: a standby
    "28": Reason.OUT_OF_REACH,  # the server does not let us in
    "3D": Reason.OUT_OF_REACH,  # there is no such database
    "40": Reason.LOCKED,  # serialization failure, deadlock
    "53100": Reason.FULL,  # disk full
    "53": Reason.SLOW,  # out of memory, too many connections
    "55P03": Reason.LOCKED,  # lock not available
    "57014": Reason.SLOW,  # statement timeout
    "57P": Reason.OUT_OF_REACH,  # shutting down, crashed, starting up
    "58": Reason.FAILED,  # I/O error
    "XX": Reason.FAILED,  # internal error, damaged data
}
"""By the first characters of SQLSTATE (postgresql.org/docs/current/errcodes-appendix.html)."""


def reason_of(error: BaseException | None, *, lost: bool = False) -> Reason | None:
    """Return why a database cannot be used; None when the statement or its values are at fault.

    `error` is a driver's. `lost` says that it is of a kind that has no code when the connection is lost.
    """
    if isinstance(error, SQLiteError):
        # Errors of the module itself have no code.
        return _SQLITE_REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    state = getattr(error, "sqlstate", None)
    if state is None:
        return Reason.OUT_OF_REACH if lost else None
    return next((_POSTGRESQL_REASONS[state[:n]] for n in (5, 3, 2) if state[:n] in _POSTGRESQL_REASONS), None)


def first_line(error: BaseException | None) -> str:
    """Return what a database says in one line; the rest may quote values."""
    return str(error).partition("\n")[0][:200]
