"""A book whose process is killed at any moment: what it acknowledged is in the ledger, once, and the sums are right."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

from accounting.books import COST, migrated, office

KEEPER = Path(__file__).with_name("book_keeper.py")
ROUNDS = 8


def acknowledged(data: Path, number: int, name: str, lines: int) -> list[list[str]]:
    """Run a keeper, kill it right after so many lines, and return the words of all that it said."""
    environment = {**os.environ, "PYTHONPATH": str(KEEPER.parent.parent)}
    with subprocess.Popen(
        [sys.executable, KEEPER, data, str(number), name], stdout=subprocess.PIPE, bufsize=0, env=environment
    ) as keeper:
        assert keeper.stdout is not None
        said = b""
        while said.count(b"\n") < lines:
            piece = keeper.stdout.read(4096)
            assert piece, "the keeper ended by itself"
            said += piece
        keeper.kill()
        while piece := keeper.stdout.read():
            said += piece
    return [line.split() for line in said.decode().splitlines()]


async def test_kill_dash_nine_at_any_moment(tmp_path: Path) -> None:
    """Eight keepers, one after the other in any place of the same data directory, each killed without warning.

    Whatever was settled has one settled row with its charge; every dispatch has its row; there is no row more than the
    one call that each was at; what never ended is unknown and spent at its upper bound; and nothing is under way.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    dice = random.Random(seed)
    migrated(tmp_path)
    dispatched: set[tuple[str, int]] = set()
    settled: dict[str, int] = {}
    for number in range(ROUNDS):
        lines = dice.randrange(1, 100 if number % 2 else 600)
        said = await asyncio.to_thread(acknowledged, tmp_path, dice.randrange(1, 4), f"round{number}", lines)
        dispatched |= {(call_id, int(attempt)) for word, call_id, attempt in said if word == "dispatched"}
        settled |= {call_id: int(charged) for word, call_id, charged in said if word == "settled"}
    assert settled
    async with office(tmp_path) as place:
        book = place.book()
        assert await book.tick()
        rows = place.rows()
        assert dispatched <= set(rows)
        assert len(set(rows) - dispatched) <= ROUNDS
        ends = {call_id: row for (call_id, _), row in rows.items() if row.ends_call}
        assert {call_id for call_id, _ in rows} == set(ends)
        assert (
            {call_id: ends[call_id].charged_nano_usd for call_id in settled} == settled == dict.fromkeys(settled, COST)
        )
        assert all(ends[call_id].state == "settled" for call_id in settled)
        others = [row for call_id, row in ends.items() if call_id not in settled]
        assert sum(row.state == "settled" for row in others) <= ROUNDS
        assert all(row.charged_nano_usd == row.reserved_nano_usd for row in others if row.state == "unknown")
        spent = sum(row.charged_nano_usd for row in ends.values() if row.key_id)
        assert place.balances() == {"key/k1/day/2026-11-23": (spent, 0)} == place.holds.totals()
        audit = place.audit()
        assert (audit.differences, audit.open_calls, audit.quarantined) == ((), 0, 0)
        await book.close()
