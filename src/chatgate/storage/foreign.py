"""Another program's SQLite file, read and never changed.

Owns how such a file is opened: for reading only, in one transaction, so that all rows are of one moment, and never a
column that was not asked for. What the rows mean is the business of whoever asks; the command `import` does.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from chatgate.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_ROWS = 100_000
"""More rows than this in one table are no configuration."""

_WAIT_SECONDS = 5.0

Row = dict[str, Any]


class ForeignFileError(StorageError):
    """The file cannot be read; `str()` says why."""


def read_tables(file: Path, wanted: Mapping[str, Sequence[str]]) -> dict[str, list[Row]]:
    """Return the rows of those tables that are there, in the order of their ids, with those columns that are there.

    `wanted` maps tables to columns. Values are as SQLite has them: None, int, float, str or bytes, whatever the column
    was declared as. Raises `ForeignFileError`.
    """
    try:
        # Without this, SQLite would tell of a missing file only that it cannot open it.
        with file.open("rb"):
            pass
        uri = f"file:{quote(str(file.absolute()))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)
    except OSError as error:
        raise ForeignFileError(error.strerror or str(error)) from error
    except sqlite3.Error as error:
        raise ForeignFileError(str(error)) from error
    with contextlib.closing(connection):
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            connection.execute("BEGIN")
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return {table: _rows(connection, table, wanted[table]) for table in wanted if table in there}
        except sqlite3.Error as error:
            raise ForeignFileError(str(error)) from error


def _rows(connection: sqlite3.Connection, table: str, wanted: Sequence[str]) -> list[Row]:
    there = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({_quoted(table)})")}
    columns = [name for name in wanted if name in there]
    if not columns:
        return []
    chosen = ", ".join(map(_quoted, columns))
    # The names are the caller's constants, and quoted.
    found = connection.execute(f"SELECT {chosen} FROM {_quoted(table)} ORDER BY rowid LIMIT {MAX_ROWS + 1}")  # noqa: S608
    rows = [dict(zip(columns, values, strict=True)) for values in found]
    if len(rows) > MAX_ROWS:
        raise ForeignFileError(f"the table {table} has more than {MAX_ROWS} rows")
    return rows


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
