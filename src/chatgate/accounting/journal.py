"""The journal of a worker: append-only files in which a record survives the process from the moment it is written.

Owns the writing, with nothing to wait for, the succession of segments, and what happens when the disk is full or fails.
What has happened already may be gathered, and is written together with what comes next, or before what tells of it
leaves. Knows no SQL and no balances. A directory has one writer at a time. Every start and every failure begins a new
segment: nothing is ever appended to a torn record, and no file ever shrinks under its readers. Called by whoever
dispatches and settles calls; `frames` is the format, `segments` the reader's side.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Literal

from chatgate.accounting.frames import encode_frame
from chatgate.accounting.recent import Recent
from chatgate.accounting.records import Record
from chatgate.accounting.segments import Position, drop, path_of, segments, size_of
from chatgate.accounting.syncing import Syncer
from chatgate.bursts import Burst

RETRY_SECONDS: Final = 1.0
"""How long after a failure the disk is tried again."""

LOOK_BYTES: Final = 100 << 10
"""How often what is recent is looked at, by what is written: some 500 records."""

_PROBE_BYTES: Final = 4096


class JournalUnavailable(Exception):  # noqa: N818 - the situation's name is the field's term
    """A record could not be written: nothing of it will ever be read, and no call may be made that relies on it."""


class Journal:
    """Writes the records of one worker.

    `trouble` says why it cannot, "" while it can. `lost` counts the records that memory had no room to keep. `recent`
    has what was written lately.
    """

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float],
        *,
        durability: Literal["process", "power"] = "process",
        segment_bytes: int = 16 << 20,
        max_bytes: int = 1 << 30,
        max_kept: int = 10_000,
        first_segment: int = 1,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        """Become the writer of a directory, which is made when it is missing.

        `clock` is monotonic, in seconds. With `durability` "power", `synced` tells when records are on the disk
        itself. A segment ends after about `segment_bytes`; when all that are there take `max_bytes`, the journal is
        full until some are dropped. At most `max_kept` records wait in memory for a disk that works again. An empty
        directory begins with `first_segment`; a number that no journal of this worker ever came to, such as the time,
        keeps a new journal apart from one that was removed. Raises `JournalUnavailable` when the directory cannot be
        used, or has a writer.
        """
        self._directory = directory
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._max_kept = max_kept
        self._kept: deque[Record] = deque()
        self._burst: Burst | None = None
        self._gathered: list[tuple[bytes, Record]] = []
        """Frames that leave before the burst's pieces, with their records."""
        self._file = -1
        self._segment = 0
        self._first_segment = first_segment
        self._end = 0
        self._due = 0
        """Where in the segment something is to be done before more is written."""
        self._retry_at = 0.0
        self.trouble = ""
        self.lost = 0
        self.recent = Recent()
        self._note = self.recent.written.append
        self._is_torn = True
        self._lock = become_writer(directory)
        self._syncer = Syncer(sync) if durability == "power" else None

    @property
    def position(self) -> Position:
        """Return the place after the last record; what is gathered is written first."""
        self.write_gathered()
        return Position(self._segment, self._end)

    def gather(self, burst: Burst) -> None:
        """From now on have what is kept wait for the end of the turn, as long as the burst's pieces do.

        Whoever is told of it must be told by that burst, or after a `flush` of it. Where records shall outlive the
        power, somebody waits for each anyway, and nothing is gathered.
        """
        if self._syncer is None:
            self._burst = burst
            burst.before = self.write_gathered

    def write(self, record: Record) -> None:
        """Write a record, and what is gathered before it; once this returns, they outlive the process.

        Raises `JournalUnavailable`, at once and without touching the disk when that has failed a moment ago.
        """
        framed = frame, record = encode_frame(record)
        gathered = self._gathered
        if not gathered:
            self._append(frame)
            self._note((Position(self._segment, self._end), record))
            return
        self._gathered = []
        try:
            self._append_all([*gathered, framed])
        except JournalUnavailable:
            self._postpone(gathered)
            raise

    def keep(self, record: Record) -> None:
        """Write a record of something that has happened already: as soon as it is possible, if not now.

        Until the end of this turn it may be gathered.
        """
        burst = self._burst
        if burst is not None and burst.is_gathering():
            self._gathered.append(encode_frame(record))
            return
        try:
            self.write(record)
        except JournalUnavailable:
            self._postpone([(b"", record)])

    def write_gathered(self) -> None:
        """Write what is gathered, or have it kept until that is possible."""
        gathered = self._gathered
        if gathered:
            self._gathered = []
            try:
                self._append_all(gathered)
            except JournalUnavailable:
                self._postpone(gathered)

    def _append_all(self, framed: Sequence[tuple[bytes, Record]]) -> None:
        """Write several records by one write. Raises `JournalUnavailable`; then all of them count as unwritten.

        Some may be on the disk all the same: who reads a record twice takes it for one.
        """
        data = b"".join([frame for frame, _ in framed])
        self._append(data)
        segment, end = self._segment, self._end - len(data)
        for frame, record in framed:
            end += len(frame)
            self._note((Position(segment, end), record))

    def _append(self, data: bytes) -> None:
        """Write whole frames. Raises `JournalUnavailable`."""
        if self._end >= self._due:
            self._do_what_is_due()
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise self._fail(error.strerror or "cannot write") from error
        if written != len(data):
            raise self._fail("the disk is full")
        self._end += written

    def _postpone(self, framed: Sequence[tuple[bytes, Record]]) -> None:
        """Keep records that could not be written until they can be."""
        for _, record in framed:
            if len(self._kept) < self._max_kept:
                self._kept.append(record)
            else:
                self.lost += 1

    def synced(self) -> Future[None] | None:
        """Return what is done once every record written so far is on the disk itself; None when nobody asked for that.

        It raises OSError when they may not be. They are to be kept with `keep_again` then: who reads a record twice
        takes it for one.
        """
        if self._syncer is None:
            return None
        self._leave_failed()
        if self.trouble:
            failed: Future[None] = Future()
            failed.set_exception(OSError(0, self.trouble))
            return failed
        return self._syncer.ask(self._file)

    def keep_again(self, record: Record) -> None:
        """Keep a record that may not be on the disk, in another segment than the one that failed."""
        self._leave_failed()
        self.keep(record)

    def tick(self) -> None:
        """While there is trouble, see whether it is over, and write what is kept; called about once a second."""
        self.write_gathered()
        if not self.trouble:
            return
        try:
            if self._kept:
                self._make_room()
            else:
                self._probe()
        except JournalUnavailable:
            return

    def drop(self, before: Position) -> None:
        """Remove the segments that end before a place, but never the newest one, whose number counts on."""
        drop(self._directory, before)

    def close(self) -> None:
        """Write what is kept if that is possible, and let go of the directory."""
        self._retry_at = 0.0
        self.tick()
        self._burst = None
        self._leave_segment()
        if self._syncer is not None:
            self._syncer.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _leave_failed(self) -> None:
        """Write what is next to another segment when the disk did not take what is in this one."""
        if self._syncer is not None and self._file >= 0 and self._syncer.has_failed(self._file):
            self._fail("the disk did not take what was written")
            self._retry_at = 0.0

    def _fail(self, trouble: str) -> JournalUnavailable:
        """Write nothing for a while, and to another segment then."""
        self.trouble = trouble
        self._is_torn = True
        self._retry_at = self._clock() + RETRY_SECONDS
        self._leave_segment()
        return JournalUnavailable(trouble)

    def _do_what_is_due(self) -> None:
        """Get to another segment when this one has ended, or have a look at what is recent."""
        if self._file < 0 or self._end >= self._segment_bytes:
            self._make_room()
        else:
            self.recent.look(self.position)
            self._look_later()

    def _look_later(self) -> None:
        self._due = min(self._end + LOOK_BYTES, self._segment_bytes)

    def _make_room(self) -> None:
        """Get to a segment that can be written to, and write what is kept first. Raises `JournalUnavailable`."""
        if self.trouble and self._clock() < self._retry_at:
            raise JournalUnavailable(self.trouble)
        try:
            self._open_next()
        except OSError as error:
            raise self._fail(error.strerror or "cannot open a segment") from error
        self.trouble = ""
        while self._kept:
            self.write(self._kept[0])
            self._kept.popleft()
        self._look_later()

    def _probe(self) -> None:
        """Find out whether there is room again, by filling a file that is not read. Raises `JournalUnavailable`."""
        self._make_room()
        path = self._directory / "probe"
        try:
            with path.open("wb", buffering=0) as probe:
                written = probe.write(bytes(_PROBE_BYTES))
        except OSError as error:
            raise self._fail(error.strerror or "cannot write") from error
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
        if written != _PROBE_BYTES:
            raise self._fail("the disk is full")

    def _open_next(self) -> None:
        numbers = segments(self._directory)
        if sum(size_of(self._directory, number) for number in numbers) >= self._max_bytes:
            raise OSError(0, "the journal is full")
        number = max(self._segment, numbers[-1] if numbers else self._first_segment - 1) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        file = os.open(path_of(self._directory, number), flags, 0o600)
        self._leave_segment()
        # Nothing is due until what is kept is in it.
        self._file, self._segment, self._end, self._due = file, number, 0, sys.maxsize
        if self._is_torn:
            # What lies before, and may not be whole, is for the readers of the files.
            self.recent.begin_at(Position(number, 0))
            self._is_torn = False
        if self._syncer is not None:
            # The segment's name must be on the disk as well.
            self._syncer.retire(os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC))

    def _leave_segment(self) -> None:
        """Close the segment, and remove it if it has no record, so that a full disk is not filled with empty ones."""
        file, self._file, self._due = self._file, -1, 0
        if file < 0:
            return
        if not self._end:
            with contextlib.suppress(OSError):
                path_of(self._directory, self._segment).unlink()
        if self._syncer is None:
            os.close(file)
        else:
            self._syncer.retire(file)


def become_writer(directory: Path) -> int:
    """Become the only writer of a directory, until the file that is returned is closed or this process ends.

    Raises `JournalUnavailable`, caused by BlockingIOError when the directory has a writer.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalUnavailable(error.strerror or "cannot open the journal") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise JournalUnavailable("another process writes to it") from error
    return lock
