"""How many calls a second a database takes into the ledger, by the size of the batches: SQLite, or the one of a URL.

Folds records of made-up calls, each with one of `KEYS` keys, by the code that does it in the gateway, and prints calls
per second and this process's processor time per call. Run as `python -m bench.folding [postgresql://…]`; what the
database held before is not touched, but some 40 000 calls are left in it.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.report import table
from chatgate.accounting.records import Dispatch, Settlement
from chatgate.accounting.segments import Position
from chatgate.accounting.usage import Source, Usage
from chatgate.storage import ledger, migration
from chatgate.storage.database import Database, open_database

BATCHES: Final = (10, 100, 1000)
"""Calls in a transaction; each has two records."""

CALLS: Final = 20_000
KEYS: Final = 100
UNDER_WAY: Final = 64
"""So many calls begin before the first ends."""


Entry = tuple[Position, Dispatch | Settlement]


def _entries(calls: int, prefix: str) -> Iterator[Entry]:
    """Yield the records of calls."""
    usage = Usage(input_tokens=200, output_tokens=180, source=Source.FINAL)
    for number in range(calls + UNDER_WAY):
        at = datetime.now(UTC)
        if number < calls:
            key = f"key-{number % KEYS}"
            dispatch = Dispatch(
                f"{prefix}{number:08x}",
                1,
                at,
                "chat",
                "openai",
                key,
                "",
                "127.0.0.1",
                "mock",
                "mock",
                "bench",
                stream=False,
            )
            yield Position(1, 2 * number + 1), dispatch
        if number >= UNDER_WAY:
            settlement = Settlement(
                f"{prefix}{number - UNDER_WAY:08x}", 1, at, "completed", 200, usage=usage, charged_nano_usd=9
            )
            yield Position(1, 2 * number + 2), settlement


def _fold(database: Database, batch: int, calls: int) -> tuple[float, float]:
    """Return the seconds, of the clock and of this process's processor time, that folding so many calls takes."""
    name = secrets.token_hex(6)
    entries = list(_entries(calls, f"req_{name}"))
    began_at, began_cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(entries), 2 * batch):
        some = entries[first : first + 2 * batch]
        database.write(ledger.fold, f"bench-{name}", some, some[-1][0])
    return time.perf_counter() - began_at, time.process_time() - began_cpu


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(sys.argv[1] if len(sys.argv) > 1 else None, Path(folder))
        try:
            migration.migrate(database, Path(folder) / "backups", datetime.now(UTC))
            rows = [["calls in a batch", "calls/s", "CPU µs per call"]]
            for batch in BATCHES:
                calls = min(CALLS, 200 * batch)
                seconds, cpu_seconds = _fold(database, batch, calls)
                rows.append([str(batch), f"{calls / seconds:,.0f}", f"{cpu_seconds / calls * 1e6:.0f}"])
        finally:
            database.close()
    sys.stdout.write(f"{database.dialect}\n\n{table(iter(rows))}\n")


if __name__ == "__main__":
    main()
