"""Read the head of a request, and refuse what two readers could understand in two ways.

The grammar is llhttp's in its strict mode (through httptools); what that lets through and RFC 9112 or prudence does
not, is refused here: other versions and protocols, doubled spaces, targets that are no path, a missing, doubled or
malformed Host, lines that must be single, and every transfer coding but one `chunked`. No I/O; `connection` calls.

Source: RFC 9112, sections 2.2, 3, 5 and 6; RFC 9110, sections 5.5, 7.2 and 10.1.1 (read 2026-11-23).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Final

import httptools
from msgspec import Struct

from chatgate.server.limits import WireLimits
from chatgate.vocabulary.errors import CallerError, Kind

CHUNKED: Final = -1
"""The `body_bytes` of a request whose length is not known before its end."""

SINGLE_LINES: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
    }
)
"""Headers that frame, route or authenticate: two lines of one would let two readers disagree."""

METHODS: Final = {name.encode(): name for name in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")}
HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?")
HIGHEST_PORT: Final = 65_535
LONGEST_LENGTH: Final = 20
END_OF_LINE: Final = b"\r\n"
END_OF_HEAD: Final = b"\r\n\r\n"
LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]+)(?=\r\n)")
"""Finds the line with the body's length, in the two ways that nearly everybody writes it."""


class Head(Struct, frozen=True, gc=False):
    """A head that may be acted on.

    `path` and `query` are the halves of the target. `headers` are read only, and without Content-Length: `body_bytes`
    is the stated length of the body, 0 without one, or `CHUNKED`. `is_http_10` says that the caller knows neither
    chunks nor interim answers.
    """

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body_bytes: int
    is_http_10: bool
    keep_alive: bool
    expects_continue: bool


class _Accepted(Struct, frozen=True, gc=False):
    """A head that was read, cut before and after the digits of its Content-Length.

    `form` is the whole of it as a format, to which the length is still to be given.
    """

    before: bytes
    after: bytes
    form: bytes
    head: Head


class HeadReader:
    """Reads one head after another from the bytes of a connection.

    A caller's next head is mostly its last one with another Content-Length; then it is the last one, and is not parsed
    again.
    """

    __slots__ = (
        "_headers",
        "_is_complete",
        "_keep_alive",
        "_last",
        "_limits",
        "_parser",
        "_raw",
        "_repeated_lines",
        "_target",
    )

    def __init__(self, limits: WireLimits) -> None:
        """Start before the first byte of a head."""
        self._limits = limits
        self._parser: httptools.HttpRequestParser | None = None
        self._last: _Accepted | None = None
        self._raw = b""

    @property
    def has_begun(self) -> bool:
        """Tell whether a head has begun and not ended."""
        return self._parser is not None

    @property
    def form(self) -> bytes | None:
        """Return the last head as a format for the length of its body; None when no length was stated in it."""
        return None if self._last is None else self._last.form

    @property
    def lengthless(self) -> bytes:
        """Return the last head without the digits of that length, where one was stated."""
        return b"" if self._last is None else self._last.before + self._last.after

    def read(self, data: bytes) -> tuple[Head, bytes] | None:
        """Take the next bytes; return the head and the bytes after it, or None until the head is complete.

        Raises `CallerError` with reason `headers_too_large` or `bad_request`; nothing may be read after that.
        """
        if self._parser is None:
            if self._last is not None and (again := _read_again(self._last, data)) is not None:
                return again
            # Some old clients send an empty line after a body; RFC 9112, 2.2 asks to overlook it.
            data = data.removeprefix(END_OF_LINE)
            if not data:
                return None
            self._begin()
        seen = len(self._raw)
        raw = self._raw + data if seen else data
        end = raw.find(END_OF_HEAD, max(0, seen - 3))
        size = len(raw) if end < 0 else end + 4
        if size > self._limits.header_bytes:
            raise _too_large()
        if end < 0:
            self._parse(data)
            self._raw = raw
            return None
        self._parse(raw[seen:size])
        head = self._judge(raw[:size])
        self._last = _accepted(raw[:size], head)
        self.reset()
        return head, raw[size:]

    def reset(self) -> None:
        """Forget an unfinished head, and with it the parser, which holds this object."""
        self._parser = None
        self._raw = b""

    def on_url(self, part: bytes) -> None:
        """Collect the target (called by httptools)."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header line (called by httptools)."""
        name = name.lower()
        # llhttp strips the whitespace before a value, not the one after it; no other control can be there.
        value = value.rstrip()
        headers = self._headers
        if name in headers:
            if name in SINGLE_LINES:
                raise ValueError
            self._repeated_lines += 1
            value = b"%b, %b" % (headers[name], value)
        headers[name] = value

    def on_headers_complete(self) -> None:
        """Note the end of the head (called by httptools)."""
        assert self._parser is not None  # noqa: S101 - narrows for the type checker; it is the caller
        self._is_complete = True
        # At the end of a message without a body llhttp forgets what Connection said, so it is asked here.
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        """Refuse: llhttp must not see the end of the head before we do (called by httptools)."""
        raise ValueError(part)

    def on_chunk_header(self) -> None:
        """Refuse, as above (called by httptools)."""
        raise ValueError

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeated_lines = 0
        self._is_complete = self._keep_alive = False

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None  # noqa: S101 - narrows for the type checker; `read` has just begun
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An upgrade is never accepted: the request is served as it stands, and the connection closed.
            return
        except httptools.HttpParserError:
            raise _bad_request() from None

    def _judge(self, raw: bytes) -> Head:
        assert self._parser is not None  # noqa: S101 - narrows for the type checker; `read` has just begun
        headers, target = self._headers, self._target
        if not self._is_complete:
            raise _bad_request()
        if len(headers) + self._repeated_lines > self._limits.headers or len(target) > self._limits.target_bytes:
            raise _too_large()
        method = self._parser.get_method()
        is_http_10 = _is_http_10(raw, method, target)
        if target[:1] != b"/" or target.find(b"#") >= 0 or method == b"CONNECT":
            raise _bad_request()
        host = headers.get(b"host")
        # RFC 9112, 3.2: a request without Host is malformed, except in HTTP/1.0.
        if not is_http_10 if host is None else not is_valid_host(host):
            raise _bad_request()
        path, _, query = target.decode("ascii").partition("?")
        return Head(
            METHODS.get(method) or method.decode("ascii"),
            path,
            query,
            headers,
            _body_bytes(headers, is_http_10=is_http_10),
            is_http_10,
            self._keep_alive and b"upgrade" not in headers,
            not is_http_10 and headers.get(b"expect", b"").lower() == b"100-continue",
        )


def _accepted(raw: bytes, head: Head) -> _Accepted | None:
    """Remember a head that has a body of a stated length."""
    length = LENGTH.search(raw)
    if length is None or head.body_bytes == CHUNKED:
        return None
    before, after = raw[: length.start(1)], raw[length.end(1) :]
    return _Accepted(before, after, b"%b%%d%b" % (before.replace(b"%", b"%%"), after.replace(b"%", b"%%")), head)


def _read_again(last: _Accepted, data: bytes) -> tuple[Head, bytes] | None:
    """Read a head that differs from an accepted one in nothing but the digits of its length; None when it does not."""
    if not data.startswith(last.before):
        return None
    start = len(last.before)
    end = data.find(END_OF_LINE, start, start + LONGEST_LENGTH + 2)
    digits = data[start:end]
    if end < 0 or not digits.isdigit() or not data.startswith(last.after, end):
        return None
    head, body_bytes = last.head, int(digits)
    if body_bytes != head.body_bytes:
        head = Head(
            head.method,
            head.path,
            head.query,
            head.headers,
            body_bytes,
            head.is_http_10,
            head.keep_alive,
            head.expects_continue,
        )
    return head, data[end + len(last.after) :]


@functools.lru_cache(maxsize=256)
def is_valid_host(host: bytes) -> bool:
    """Tell whether a Host is a name, an IPv4 address or an IPv6 address in brackets, with or without a port."""
    match = HOST.fullmatch(host)
    if match is None:
        return False
    address, port = match.groups()
    if port is not None and not 1 <= int(port) <= HIGHEST_PORT:
        return False
    if address is None:
        return True
    try:
        ipaddress.IPv6Address(address.decode("ascii"))
    except ValueError:
        return False
    return True


def _is_http_10(raw: bytes, method: bytes, target: bytes) -> bool:
    """Tell 1.0 from 1.1, by comparing the whole line: llhttp overlooks doubled spaces, RTSP and other versions."""
    if raw.startswith(b"%b %b HTTP/1.1\r\n" % (method, target)):
        return False
    if raw.startswith(b"%b %b HTTP/1.0\r\n" % (method, target)):
        return True
    raise _bad_request()


def _body_bytes(headers: dict[bytes, bytes], *, is_http_10: bool) -> int:
    # It is told as a number; the other lines are then the same for any body.
    coding, length = headers.get(b"transfer-encoding"), headers.pop(b"content-length", None)
    if coding is not None:
        if length is not None or is_http_10 or coding.lower() != b"chunked":
            raise _bad_request()
        return CHUNKED
    if length is None:
        return 0
    if not length.isdigit() or len(length) > LONGEST_LENGTH:
        raise _bad_request()
    return int(length)


def _bad_request() -> CallerError:
    return CallerError(Kind.INVALID_VALUE, "bad_request")


def _too_large() -> CallerError:
    return CallerError(Kind.REQUEST_TOO_LARGE, "headers_too_large")
