"""The files of a journal, as its readers see them: numbered segments of frames.

Owns their names, their order, and places in them. Whoever folds records into a database reads them here, remembers how
far it has come, and goes on from there; readers need no lock. What is torn or damaged is passed over: reading goes on
at the next whole frame, or in the next segment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from chatgate.accounting.frames import HEADER_BYTES, frame_end, next_frame
from chatgate.accounting.records import Record, decode

_SEGMENT = re.compile(r"([0-9]{10})\.journal")


class Position(Struct, frozen=True, order=True, gc=False):
    """A place between two records; `offset` is in bytes. Places compare in the order of writing."""

    segment: int
    offset: int


START: Final = Position(0, 0)


class Entry(Struct, frozen=True, gc=False):
    """What was read: a record, or bytes that are none.

    `position` is where reading goes on after it. `record` is None for `damaged` bytes: a torn end, a part that the disk
    has changed, or a record of a newer program.
    """

    position: Position
    record: Record | None
    damaged: bytes = b""


def replay(directory: Path, after: Position = START) -> Iterator[Entry]:
    """Yield what was written after a place, in the order of writing; nothing when the directory is missing.

    Stops before an end that is not whole: it may be on its way, and is told as damaged once there is a newer segment.
    Raises OSError when a file cannot be read.
    """
    numbers = [number for number in segments(directory) if number >= after.segment]
    for index, number in enumerate(numbers):
        at = after.offset if number == after.segment else 0
        yield from _entries(path_of(directory, number), number, at, is_last=index == len(numbers) - 1)


def _entries(path: Path, number: int, offset: int, *, is_last: bool) -> Iterator[Entry]:
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    at = 0
    while at < len(content):
        end = frame_end(content, at)
        if end:
            line = content[at + HEADER_BYTES : end]
            yield _entry(line, Position(number, offset + end))
            at = end
            continue
        follower = next_frame(content, at)
        if follower < 0 and is_last:
            return
        follower = len(content) if follower < 0 else follower
        yield Entry(Position(number, offset + follower), None, content[at:follower])
        at = follower


def _entry(line: bytes, position: Position) -> Entry:
    try:
        return Entry(position, decode(line))
    except msgspec.DecodeError:  # Whole, but not of this version.
        return Entry(position, None, line)


def segments(directory: Path) -> list[int]:
    """Return the numbers of the segments, ascending."""
    try:
        names = [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for found in map(_SEGMENT.fullmatch, names) if found)


def drop(directory: Path, before: Position) -> None:
    """Remove the segments that end before a place, but never the newest one, whose number counts on."""
    for number in segments(directory)[:-1]:
        if number < before.segment:
            path_of(directory, number).unlink(missing_ok=True)


def path_of(directory: Path, number: int) -> Path:
    """Return where a segment is."""
    return directory / f"{number:010d}.journal"


def size_of(directory: Path, number: int) -> int:
    """Return how many bytes a segment has; 0 when it is gone."""
    try:
        return path_of(directory, number).stat().st_size
    except FileNotFoundError:  # Dropped in the meantime.
        return 0
