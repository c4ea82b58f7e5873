"""A program that journals and acknowledges, run and killed by `test_kill.py`.

Its arguments are the journal's directory, a name that is in every id, and the size of a segment. It writes a dispatch
and a settlement per call, as fast as it can, and says so on standard output after each, one unbuffered line: by then
the record must survive.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from chatgate.accounting.journal import Journal
from chatgate.accounting.records import Dispatch, Settlement
from chatgate.accounting.usage import Usage

AT = datetime(2026, 11, 23, tzinfo=UTC)


def main(directory: str, name: str, segment_bytes: str) -> None:
    """Journal until killed."""
    journal = Journal(Path(directory), time.monotonic, segment_bytes=int(segment_bytes))
    number = 0
    while True:
        number += 1
        call_id = f"{name}-{number}"
        model = "m" * (number % 300)
        journal.write(
            Dispatch(call_id, 1, AT, "chat", "openai", "k1", "alice", "192.0.2.1", model, model, "u", stream=True)
        )
        os.write(1, f"{call_id} dispatch\n".encode())
        journal.write(Settlement(call_id, 1, AT, "completed", 200, "", model, Usage(number, 2), number))
        os.write(1, f"{call_id} settlement\n".encode())


main(*sys.argv[1:])
