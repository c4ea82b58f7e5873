"""Collect the body of a request, by its stated length or by its chunks, under a cap.

No I/O and no clock; `connection` calls. Source: RFC 9112, sections 6 and 7 (read 2026-11-23).
"""

from __future__ import annotations

from typing import Final, Protocol

import httptools

from chatgate.vocabulary.errors import CallerError, Kind

PRELUDE: Final = b"POST / HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
"""A head that makes llhttp expect chunks, and nothing after them."""

FRAMING_BYTES: Final = 16 << 10
FRAMING_BYTES_PER_BYTE: Final = 8
"""What chunk sizes, extensions and trailers may cost: one-byte chunks take five bytes a byte, honest ones far less."""


class Body(Protocol):
    """A body that arrives piece by piece. `received_bytes` counts what the wire carried for it."""

    received_bytes: int

    def read(self, data: bytes) -> bytes | None:
        """Take bytes; return those after the end of the body, or None until the end is there.

        Raises `CallerError` with reason `body_too_large` or `bad_request`.
        """

    @property
    def content(self) -> bytes:
        """Return what was collected."""

    def take(self) -> bytes:
        """Return what was collected, and forget it."""

    @property
    def can_go_on(self) -> bool:
        """Tell whether another request may follow on this connection."""


class SizedBody:
    """A body of a stated length, already judged by the cap."""

    __slots__ = ("_content", "_length", "received_bytes")

    def __init__(self, length: int) -> None:
        """Expect `length` bytes."""
        self._length = length
        self._content = bytearray()
        self.received_bytes = 0

    def read(self, data: bytes) -> bytes | None:
        """Take what is missing, return the rest."""
        missing = self._length - self.received_bytes
        piece = data[:missing]
        self._content += piece
        self.received_bytes += len(piece)
        return data[missing:] if len(data) >= missing else None

    @property
    def content(self) -> bytes:
        """Return what was collected."""
        return bytes(self._content)

    def take(self) -> bytes:
        """Return what was collected, and forget it."""
        taken, self._content = bytes(self._content), bytearray()
        return taken

    @property
    def can_go_on(self) -> bool:
        """Say yes: where this body ends is beyond doubt."""
        return True


class ChunkedBody:
    """A body in chunks. Extensions and trailers are checked, bounded, and otherwise ignored.

    llhttp does not say where in its input a message ended, so bytes that come together with the last chunk are
    dropped, and the connection cannot go on: a caller who pipelines must be ready for that (RFC 9112, 9.3.2).
    """

    __slots__ = (
        "_content",
        "_is_complete",
        "_limit_bytes",
        "_parser",
        "_taken_bytes",
        "can_go_on",
        "on_body",
        "received_bytes",
    )

    def __init__(self, limit_bytes: int) -> None:
        """Expect at most `limit_bytes` of content."""
        self._limit_bytes = limit_bytes
        self._content = bytearray()
        self._is_complete = False
        self._taken_bytes = 0
        self.can_go_on = True
        self.received_bytes = 0
        self.on_body = self._content.extend
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._parser.feed_data(PRELUDE)

    def on_message_complete(self) -> None:
        """Note the end of the last chunk (called by httptools)."""
        self._is_complete = True

    def read(self, data: bytes) -> bytes | None:
        """Take chunks; return b"" once the last one and its trailers are there."""
        assert self._parser is not None  # noqa: S101 - narrows for the type checker; nothing is read after the end
        self.received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._is_complete:
                raise CallerError(Kind.INVALID_VALUE, "bad_request") from None
            self.can_go_on = False
        content_bytes = self._taken_bytes + len(self._content)
        if content_bytes > self._limit_bytes:
            raise body_too_large(self._limit_bytes)
        if self.received_bytes - content_bytes > FRAMING_BYTES + FRAMING_BYTES_PER_BYTE * content_bytes:
            raise CallerError(Kind.INVALID_VALUE, "bad_request")
        if not self._is_complete:
            return None
        # The parser holds this object; letting go of it leaves nothing for the garbage collector.
        self._parser = None
        return b""

    @property
    def content(self) -> bytes:
        """Return what was collected."""
        return bytes(self._content)

    def take(self) -> bytes:
        """Return what was collected, and forget it."""
        taken = bytes(self._content)
        self._taken_bytes += len(taken)
        self._content.clear()  # The parser adds to this very object.
        return taken


def body_too_large(limit_bytes: int) -> CallerError:
    """Return the refusal of a body over the cap."""
    return CallerError(Kind.REQUEST_TOO_LARGE, "body_too_large", parameters={"limit_bytes": limit_bytes})
