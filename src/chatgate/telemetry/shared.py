"""What the worker processes of one gateway have in common: their counts, and who may write a log batch.

The parent makes the memory before it starts a worker, so that every worker sees all of it. Each writes only into a
share of its own and reads the shares of all: no worker waits for another, and what one has counted outlives it, however
it ends. Its successor goes on in the same share. Knows nothing of what is counted. Made by `app`, used by `metrics`.

A share is a row of cells of eight bytes, which every 64-bit machine reads and writes whole:

    how many cells all series take | the gauges | a series | a series | …

and a series is: how many bytes its labels take, how many cells it counts in, the labels, these cells.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

SHARE_BYTES: Final = 16 << 20
"""Room for some forty thousand series in each share; memory is only taken as they come to be."""

GAUGES: Final = 15
"""How many gauges a share can hold."""

Labels: TypeAlias = tuple[str, ...]
Cells: TypeAlias = "list[float] | memoryview[float]"

_CELL_BYTES: Final = 8
_FIRST_SERIES: Final = 1 + GAUGES
_DESCRIPTION_CELLS: Final = 2
_decode = msgspec.json.Decoder(Labels).decode


class Shared:
    """The memory of all workers, and their lock; Linux only."""

    def __init__(self, workers: int, *, share_bytes: int = SHARE_BYTES) -> None:
        """Make it for workers 1 to `workers`, all at zero. `share_bytes` is a multiple of 8."""
        self._file = os.memfd_create("chatgate-workers")
        os.ftruncate(self._file, workers * share_bytes)
        memory = memoryview(mmap.mmap(self._file, workers * share_bytes))
        self.shares = tuple(
            Share(self, number, memory[(number - 1) * share_bytes : number * share_bytes])
            for number in range(1, workers + 1)
        )

    def share(self, worker: int) -> Share:
        """Return the share of a worker, with all that its predecessors counted in it."""
        return self.shares[worker - 1]

    def lock(self) -> None:
        """Wait until no other process has the lock, and take it.

        It belongs to the process and not to one of its threads, and goes back when the process dies.
        """
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Give the lock back."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)


class Share:
    """What one worker has counted."""

    def __init__(self, shared: Shared, number: int, memory: memoryview) -> None:
        """See `Shared.share`."""
        self.number = number
        self._shared = shared
        self._bytes = memory
        self._cells = memory.cast("d")

    def open(self, labels: Labels, width: int) -> Cells:
        """Return new cells for a series; others see it from now on.

        Without room it is the worker's own, and missing in what others tell.
        """
        encoded = msgspec.json.encode(labels)
        start = _FIRST_SERIES + int(self._cells[0])
        counts = start + _DESCRIPTION_CELLS + -(-len(encoded) // _CELL_BYTES)
        end = counts + width
        if end > len(self._cells):
            return [0.0] * width
        self._cells[start], self._cells[start + 1] = len(encoded), width
        text = (start + _DESCRIPTION_CELLS) * _CELL_BYTES
        self._bytes[text : text + len(encoded)] = encoded
        # A worker that was killed while it opened a series left cells that were never counted as taken.
        self._bytes[counts * _CELL_BYTES : end * _CELL_BYTES] = bytes(width * _CELL_BYTES)
        self._cells[0] = end - _FIRST_SERIES
        return self._cells[counts:end]

    def series(self) -> Iterator[tuple[Labels, Cells]]:
        """Yield the series of this share in the order in which they were opened."""
        start, end = _FIRST_SERIES, _FIRST_SERIES + int(self._cells[0])
        while start < end:
            length, width = int(self._cells[start]), int(self._cells[start + 1])
            text = (start + _DESCRIPTION_CELLS) * _CELL_BYTES
            counts = start + _DESCRIPTION_CELLS + -(-length // _CELL_BYTES)
            yield _decode(self._bytes[text : text + length]), self._cells[counts : counts + width]
            start = counts + width

    def everyones_series(self) -> Iterator[tuple[Labels, Cells]]:
        """Yield the series of every share; the same labels come once for each share that has them."""
        for share in self._shared.shares:
            yield from share.series()

    def publish(self, readings: Sequence[float]) -> None:
        """Say what the gauges of this worker read, at most `GAUGES` of them, always in the same order."""
        for index, reading in enumerate(readings, 1):
            self._cells[index] = reading

    def everyones_gauges(self, count: int) -> list[float]:
        """Return the first `count` gauges, each added up over all workers."""
        return [sum(share._cells[1 + index] for share in self._shared.shares) for index in range(count)]  # noqa: SLF001 - of this class

    def clear_gauges(self) -> None:
        """Set the gauges to zero, for a worker that is no more."""
        self.publish([0.0] * GAUGES)

    def alone(self, write: Callable[[bytes], object]) -> Callable[[bytes], None]:
        """Return `write` such that the batches of different workers do not run into each other.

        A pipe takes only 4096 bytes at once for sure (PIPE_BUF); of a longer batch it may take a part, and then one of
        another process.
        """

        def write_alone(batch: bytes) -> None:
            self._shared.lock()
            try:
                write(batch)
            finally:
                self._shared.unlock()

        return write_alone
