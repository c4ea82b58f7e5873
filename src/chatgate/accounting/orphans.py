"""Journals beside one's own: whose writers live, and what is to be kept from a new one while an orphan is folded.

Owns finding them, and the way in which one that nobody writes to is closed and emptied, so that a process that is
killed at any moment of it leaves it to the next. Reads no record and knows no database. Called by `folding`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from chatgate.accounting.journal import JournalUnavailable, become_writer
from chatgate.accounting.segments import Position, drop, path_of, segments, size_of


def neighbours(directory: Path) -> list[Path]:
    """Return the journals beside a worker's own that have records. Raises OSError when one cannot be looked at."""
    others = (other for other in sorted(directory.parent.iterdir()) if other.name != directory.name)
    return [other for other in others if other.is_dir() and any(size_of(other, number) for number in segments(other))]


@contextlib.contextmanager
def seized(directory: Path) -> Iterator[bool]:
    """Keep everyone from writing to a journal meanwhile; False, and nothing is kept, when somebody writes to it.

    Raises `JournalUnavailable` when that cannot be known.
    """
    lock = -1
    try:
        lock = become_writer(directory)
    except JournalUnavailable as error:
        if not isinstance(error.__cause__, BlockingIOError):
            raise JournalUnavailable(f"{directory}: {error}") from error
    try:
        yield lock >= 0
    finally:
        if lock >= 0:
            os.close(lock)


def end(directory: Path) -> Position:
    """Begin another segment of a seized journal, as every start does, and return its beginning.

    What is torn before it is damaged now, and no longer on its way.
    """
    newest = max(segments(directory))
    if size_of(directory, newest):
        newest += 1
        path_of(directory, newest).touch(mode=0o600)
    return Position(newest, 0)


def empty(directory: Path) -> None:
    """Remove the records of a seized journal that has ended; the empty segment that is left counts on."""
    drop(directory, end(directory))
