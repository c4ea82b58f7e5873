"""A process that is killed at any moment loses no record that it acknowledged, and none is there twice."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from chatgate.accounting.records import Dispatch, Settlement
from chatgate.accounting.segments import START, replay

WRITER = Path(__file__).with_name("journal_writer.py")
ROUNDS = 20


def acknowledged(directory: Path, name: str, lines: int, segment_bytes: int, calls_per_turn: int) -> list[str]:
    """Run a writer, kill it right after so many lines, and return all that it said."""
    with subprocess.Popen(
        [sys.executable, WRITER, directory, name, str(segment_bytes), str(calls_per_turn)],
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as writer:
        assert writer.stdout is not None
        said = b""
        while said.count(b"\n") < lines:
            piece = writer.stdout.read(4096)
            assert piece, "the writer ended by itself"
            said += piece
        writer.kill()
        while piece := writer.stdout.read():
            said += piece
    return said.decode().splitlines()


@pytest.mark.parametrize("calls_per_turn", [0, 6], ids=["at once", "gathering"])
def test_kill_dash_nine_at_any_moment(tmp_path: Path, calls_per_turn: int) -> None:
    """Twenty processes, one after the other on the same journal, each killed without warning at a random record.

    What each acknowledged is there exactly once and in order, and at most what it was at is there as well: one record,
    or those of one turn of its loop.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    dice = random.Random(seed)
    position, total = START, 0
    for number in range(ROUNDS):
        name = f"round{number}"
        said = acknowledged(
            tmp_path, name, dice.randrange(1, 800), dice.choice([3000, 50_000, 1 << 20]), calls_per_turn
        )
        found = []
        for entry in replay(tmp_path, position):
            position = entry.position
            if isinstance(entry.record, Dispatch):
                found.append(f"{entry.record.call_id} dispatch")
            elif isinstance(entry.record, Settlement):
                found.append(f"{entry.record.call_id} settlement")
        assert said
        assert found[: len(said)] == said
        assert len(found) - len(said) in range(max(2 * calls_per_turn, 1) + 1)
        assert len(set(found)) == len(found)
        total += len(found)
    assert sum(entry.record is not None for entry in replay(tmp_path)) == total
