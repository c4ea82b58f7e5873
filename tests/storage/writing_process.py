"""A process that stores keys and says so: `python writing_process.py DIRECTORY FIRST COUNT`.

Started by the tests of this folder, and killed by some. A line with the key's id is written after the key is stored.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from chatgate.storage import keys
from chatgate.storage.database import open_database
from chatgate.vocabulary.keys import NewKey

_NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def main(directory: str, first: int, count: int) -> None:
    """Store keys in a database with tables."""
    database = open_database(None, Path(directory), wait_seconds=20)
    print("open", flush=True)  # noqa: T201 - the parent reads it
    for number in range(first, first + count):
        key_id = f"id{number:06}"
        database.write(keys.create, NewKey("a key", notes="x" * 1500), key_id, f"digest of {key_id}", "", _NOW)
        print(key_id, flush=True)  # noqa: T201 - the same
    database.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
