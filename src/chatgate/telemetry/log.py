"""The log: one JSON object per line, on standard output, gathered in batches and written by a thread.

Lines hold facts about calls, never bodies, keys or query strings. A reader of the log that stalls costs lines, counted
in the next one that gets through; it never holds up a call.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import repeat
from operator import add, mul
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatgate.telemetry.redaction import Redaction
    from chatgate.vocabulary.exchange import Settled

MAX_TEXT_CHARACTERS = 2000
"""A longer text in a line is cut."""

MAX_WAITING_BATCHES = 100
"""Batches that may wait for a stalled reader; at ten a second that is ten seconds of log."""

_encoder = msgspec.json.Encoder(enc_hook=str)
_encode, _encode_lines = _encoder.encode, _encoder.encode_lines
_CONTROL = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


class Log:
    """Gathers lines; `flush` hands them to the writing thread. `redaction` may be replaced by one that knows more."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        redaction: Redaction,
        wall_clock: Callable[[], float] = time.time,
        worker: int | None = None,
    ) -> None:
        """`write` gets whole lines as one piece, in a thread of the log's own. `worker` stands in every line."""
        self._write = write
        self.redaction = redaction
        self._wall_clock = wall_clock
        self._whose = {} if worker is None else {"worker": worker}
        kind = b'"level":"info","event":"call",' + (b"" if worker is None else b'"worker":%d,' % worker)
        # A busy gateway ends several calls in a millisecond.
        self._opening = lru_cache(maxsize=256)(partial(_opening, kind))
        self._lines: list[bytes] = []
        self._batches: queue.Queue[bytes | None] = queue.Queue(MAX_WAITING_BATCHES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="chatgate-log", daemon=True)
        self._thread.start()

    def calls(self, ended: Sequence[tuple[float, Settled]]) -> None:
        """Note the end of calls, each with its time in seconds since the epoch."""
        # What is done here for every call is done in C. A line break in a line is escaped.
        times, calls = zip(*ended, strict=True)
        facts = _encode_lines(list(calls))[1:-1].split(b"\n{")
        # In milliseconds; a float is off by less than half a microsecond.
        moments = map(int, map(add, map(mul, times, repeat(1000)), repeat(0.0005)))
        self._lines += map(add, map(self._opening, moments), facts)

    def event(self, event: str, level: str = "info", **facts: Any) -> None:  # noqa: ANN401 - JSON facts
        """Note something that happened to the gateway itself."""
        cut = {name: _cut(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        self._lines.append(
            _encode({"time": _stamp(self._wall_clock()), "level": level, "event": event, **self._whose, **cut})
        )

    def flush(self) -> None:
        """Render what was gathered and hand it over."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        news = len(lines)
        if self._dropped:
            facts = {"level": "warning", "event": "log_dropped", **self._whose, "lines": self._dropped}
            lines.append(_encode({"time": _stamp(self._wall_clock()), **facts}))
        try:
            self._batches.put_nowait(_escaped(self.redaction.known(b"\n".join(lines) + b"\n")))
            self._dropped = 0
        except queue.Full:
            self._dropped += news

    def close(self) -> None:
        """Write what is left, waiting at most two seconds for it."""
        self.flush()
        try:
            self._batches.put(None, timeout=2)
        except queue.Full:
            return
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._write(batch)
            except OSError:
                continue  # Nobody reads any more, or the disk is full; the gateway goes on.


class LogHandler(logging.Handler):
    """Brings the standard library's log records, such as asyncio's, into the same log."""

    def __init__(self, log: Log) -> None:
        """Write to this log."""
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Note a record with its traceback."""
        trace = self.formatter or logging.Formatter()
        error = trace.formatException(record.exc_info) if record.exc_info else ""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, LookupError):  # The placeholders do not fit: still a line, not an exception.
            message = str(record.msg)
        facts = {"logger": record.name, "message": message, **({"traceback": error} if error else {})}
        self._log.event("log", record.levelname.lower(), **facts)


def _cut(text: str) -> str:
    """Shorten a text, and replace the lone surrogates that undecodable file names bring into it."""
    return text[:MAX_TEXT_CHARACTERS].encode(errors="replace").decode()


def _escaped(lines: bytes) -> bytes:
    """Escape what JSON allows but terminals obey: C1 controls, separators of lines, changes of direction."""
    if lines.isascii() and b"\x7f" not in lines:
        return lines
    return _CONTROL.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), lines)


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _opening(kind: bytes, at_ms: int) -> bytes:
    """Return the beginning of the lines of what happened in a millisecond; the fields of `Settled` follow."""
    return b'{"time":"%b.%03d+00:00",%b' % (_second(at_ms // 1000), at_ms % 1000, kind)


@lru_cache(2)
def _second(at: int) -> bytes:
    return datetime.fromtimestamp(at, UTC).isoformat()[:19].encode()
