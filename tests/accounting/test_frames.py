"""A record becomes a frame, and nothing else of it stays."""

from __future__ import annotations

import gc
import sys
from datetime import UTC, datetime

from chatgate.accounting.frames import encode_frame
from chatgate.accounting.records import Settlement

FRAMES = 2000


def test_writing_leaves_nothing_in_memory() -> None:
    """However many frames are written, the memory in use stays what it was, but for a few blocks."""
    record = Settlement("req_1", 1, datetime(2026, 11, 23, tzinfo=UTC), "completed", 200)
    encode_frame(record)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(FRAMES):
        encode_frame(record)
    gc.collect()
    assert sys.getallocatedblocks() - before < FRAMES / 10
