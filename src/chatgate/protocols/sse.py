"""Server-sent events, cut at any byte.

Lines end in LF, CRLF or CR, an empty line ends an event; nothing else separates lines (not U+0085, not U+2028), so
the work is done on bytes. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (read 2026-11-23).
"""

from __future__ import annotations

import re

from msgspec import Struct

from chatgate.vocabulary.errors import UpstreamError

MAX_EVENT_BYTES = 2 << 20
"""The longest event that is taken from an upstream; real ones stay far below 1 MiB."""

STREAM_HEAD = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
"""The header lines of a stream of events."""

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventDialect:
    """What the protocols have in common whose streams are events.

    `stream_head` are the header lines of a stream, and `keep_alive` is what keeps a silent one open.
    """

    stream_head = STREAM_HEAD
    keep_alive = b": keep-alive\n\n"


class EventSplitter(Struct, eq=False):
    """Cuts a byte stream into events, each with the blank line that ends it: joined again they are the stream.

    `tail` is the beginning of an event whose end has not come yet.
    """

    _max_event_bytes: int = MAX_EVENT_BYTES
    tail: bytes = b""
    _searched: int = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are complete now.

        Raises `UpstreamError` when an event grows too long.
        """
        if self.tail:
            data = self.tail + data
        if data.find(b"\r") < 0:  # As nearly always: one way to end a line is left.
            *ended, tail = data.split(b"\n\n")
            self._hold_back(tail)
            return [event + b"\n\n" for event in ended]
        events: list[bytes] = []
        begin = 0
        search = _BLANK_LINE.search
        match = search(data, self._searched)
        while match is not None:
            end = match.end()
            if end == len(data) and data.endswith(b"\r"):
                break  # An LF may still follow and belong to this line's end.
            events.append(data[begin:end])
            begin = end
            match = search(data, end)
        self._hold_back(data[begin:] if begin else data)
        return events

    def _hold_back(self, tail: bytes) -> None:
        """Keep the beginning of an event, as long as it is not too long."""
        self.tail = tail
        if len(tail) > self._max_event_bytes:
            raise UpstreamError("upstream_too_large")
        self._searched = max(0, len(tail) - 3)

    def finish(self) -> bytes:
        """Return what is left at the end of the stream, an event without its blank line or b""."""
        tail, self.tail, self._searched = self.tail, b"", 0
        return tail


def data_of(event: bytes) -> bytes | None:
    """Return an event's data: its data lines joined by LF; None when it has none (a comment, a keep-alive)."""
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2 and event.find(b"\r") < 0:  # noqa: PLR2004 - one data line and the blank line after it
        return event[6:-2]
    lines = []
    for line in _LINE_END.split(event.removeprefix(b"\xef\xbb\xbf")):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None


def event(data: bytes) -> bytes:
    """Write one event with one line of data."""
    return b"data: %b\n\n" % data
