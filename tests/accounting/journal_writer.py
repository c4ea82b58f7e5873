"""A program that journals and acknowledges, run and killed by `test_kill.py`.

Its arguments are the journal's directory, a name that is in every id, the size of a segment, and how many calls make a
turn of the loop. It writes a dispatch and a settlement per call, as fast as it can, and says so on standard output
after each, one unbuffered line: by then the record must survive. With 0 calls there is no loop; otherwise it gathers
what is settled in a turn, and says all that belongs to a turn in one burst.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from chatgate.accounting.journal import Journal
from chatgate.accounting.records import Dispatch, Settlement
from chatgate.accounting.usage import Usage
from chatgate.bursts import Burst

AT = datetime(2026, 11, 23, tzinfo=UTC)


def main(directory: str, name: str, segment_bytes: str, calls_per_turn: str) -> None:
    """Journal until killed."""
    journal = Journal(Path(directory), time.monotonic, segment_bytes=int(segment_bytes))
    if int(calls_per_turn):
        asyncio.run(in_turns(journal, name, int(calls_per_turn)))
    number = 0
    while True:
        number += 1
        carry(journal, f"{name}-{number}", number, lambda line: os.write(1, line))


async def in_turns(journal: Journal, name: str, calls_per_turn: int) -> None:
    """Journal until killed, as a gateway does under load."""
    burst, number = Burst(), 0
    journal.gather(burst)
    said, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.Protocol, sys.stdout)
    while True:
        for _ in range(calls_per_turn):
            number += 1
            carry(journal, f"{name}-{number}", number, lambda line: burst.write(said, line))
        await asyncio.sleep(0)
        while said.get_write_buffer_size():  # noqa: ASYNC110 - until the other side has taken it, which no event tells
            await asyncio.sleep(0)


def carry(journal: Journal, call_id: str, number: int, say: Callable[[bytes], object]) -> None:
    """Write down one call, and say so."""
    model = "m" * (number % 300)
    journal.write(
        Dispatch(call_id, 1, AT, "chat", "openai", "k1", "alice", "192.0.2.1", model, model, "u", stream=True)
    )
    say(f"{call_id} dispatch\n".encode())
    journal.keep(Settlement(call_id, 1, AT, "completed", 200, "", model, Usage(number, 2), number))
    say(f"{call_id} settlement\n".encode())


main(*sys.argv[1:])
