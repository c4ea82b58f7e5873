r"""Forms with files, piece by piece: where their parts are, and what the short ones say.

The bytes are passed on as they came, so this only watches them, and refuses what two readers could understand in two
ways: anything before the first part, a part without exactly one name, a doubled field that decides where the call goes,
anything after the last part, and a form without an end. What is kept of a form is bounded, whatever its size: the
values of the fields that were asked for, and as much of the last piece as may begin a delimiter.
Source: RFC 7578; RFC 2046, section 5.1.1; RFC 6266, section 4.1 (read 2026-11-23).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_BOUNDARY_BYTES: Final = 70
"""RFC 2046 allows no more."""

MAX_PART_HEAD_BYTES: Final = 8 << 10
MAX_PARTS: Final = 256
MAX_VALUE_BYTES: Final = 64 << 10
"""The longest value that is read; no field that is read has a longer one."""

_BOUNDARY = re.compile(r"""[^;]*;(?:.*;)?\s*boundary=(?:"([^"\\;]*)"|([^\s;",]+))\s*(?:;.*)?""", re.IGNORECASE)
_ALLOWED = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(rb';\s*([A-Za-z0-9*_-]+)\s*=\s*(?:"((?:[^"\\\r\n\0]|\\.)*)"|([^\s;"\0]+))\s*')
_FORM_DATA = re.compile(rb"form-data\s*(?=;|\Z)", re.IGNORECASE)
_DASHES: Final = b"--"
_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_PLAIN_CODINGS: Final = frozenset({b"7bit", b"8bit", b"binary"})


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type states. Raises `CallerError` when it states none that is allowed."""
    found = _BOUNDARY.fullmatch(content_type) if content_type.lower().count("boundary=") == 1 else None
    boundary = (found[1] or found[2] or "") if found is not None else ""
    if len(boundary) > MAX_BOUNDARY_BYTES or not _ALLOWED.fullmatch(boundary):
        raise malformed()
    return boundary.encode()


def malformed() -> CallerError:
    """Return the refusal of what is no well-formed form."""
    return CallerError(Kind.INVALID_VALUE, "form_malformed")


class Watch:
    """Watches a form go by.

    `values` are those of the fields that were asked for, so far; `spans` says from which byte of the form to which they
    are, and `text_bytes` how long all parts together are that are no files. `is_complete` says that the end was there.
    """

    __slots__ = (
        "_at",
        "_delimiter",
        "_in_head",
        "_parts",
        "_single",
        "_started_at",
        "_tail",
        "_value",
        "_wanted",
        "is_complete",
        "name",
        "spans",
        "text_bytes",
        "values",
    )

    def __init__(self, boundary: bytes, wanted: Collection[str], single: Collection[str]) -> None:
        """Start before the first byte.

        `wanted` are the fields whose values are read, the first of each name. Of those in `single` a second one is
        refused, and so is one that is a file.
        """
        self._delimiter = _LINE_END + _DASHES + boundary
        self._wanted = frozenset(wanted)
        self._single = frozenset(single)
        self._tail = _LINE_END  # So that the first delimiter is like the others.
        self._at = -len(_LINE_END)  # Where the tail begins.
        self._in_head = False
        self._parts = 0
        self._started_at = 0
        self._value: bytearray | None = None
        self.name = ""
        self.values: dict[str, bytes] = {}
        self.spans: dict[str, tuple[int, int]] = {}
        self.text_bytes = 0
        self.is_complete = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises `CallerError` for what is not well-formed."""
        data = self._tail + data
        begin = 0
        while True:
            if self.is_complete:
                # RFC 2046 allows a text after the end, which nobody sends; a line end some do.
                if data[begin:].strip(_LINE_END) or len(data) - begin > len(_HEAD_END):
                    raise malformed()
                break
            used = self._read_head(data, begin) if self._in_head else self._read_value(data, begin)
            if used == begin:
                break
            begin = used
        self._tail = data[begin:]
        self._at += begin

    def end(self) -> None:
        """Note that no more will come. Raises `CallerError` when the form has not ended."""
        if not self.is_complete:
            raise malformed()

    def _read_value(self, data: bytes, begin: int) -> int:
        """Read on in a value, or before the first part; return where to go on, `begin` when more is needed."""
        delimiter = self._delimiter
        found = data.find(delimiter, begin)
        if found < 0:
            keep_from = max(begin, len(data) - len(delimiter) + 1)
            self._take(data, begin, keep_from)
            return keep_from
        after = data[found + len(delimiter) : found + len(delimiter) + 2]
        self._take(data, begin, found)
        if len(after) < len(_LINE_END):
            return found
        if self._parts:
            self._end_value(self._at + found)
        if after == _DASHES:
            if not self._parts:
                raise malformed()
            self.is_complete = True
        elif after != _LINE_END:
            # Spaces may follow a boundary, or a boundary may be the beginning of a text: readers differ.
            raise malformed()
        else:
            self._in_head = True
        return found + len(delimiter) + 2

    def _take(self, data: bytes, begin: int, end: int) -> None:
        """Take a piece of the value at hand."""
        if not self._parts:
            if end > begin:  # A text before the first part.
                raise malformed()
        elif self._value is not None:
            self._value += data[begin:end]
            if len(self._value) > MAX_VALUE_BYTES:
                raise CallerError(Kind.INVALID_VALUE, "invalid_field", param=self.name, parameters={"field": self.name})

    def _end_value(self, at: int) -> None:
        if self._value is not None:
            self.values[self.name] = bytes(self._value)
            self.spans[self.name] = self._started_at, at
            self._value = None
        if self.name:
            self.text_bytes += at - self._started_at

    def _read_head(self, data: bytes, begin: int) -> int:
        """Read the head of a part; return where its value begins, `begin` when more is needed."""
        # A part without any header has no name either, so an empty line at once is refused below.
        end = data.find(_HEAD_END, begin)
        if (len(data) if end < 0 else end) - begin > MAX_PART_HEAD_BYTES:
            raise malformed()
        if end < 0:
            return begin
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise malformed()
        name, is_file = _read_part(data[begin:end])
        start = end + len(_HEAD_END)
        # A value may be empty: then the line end before the delimiter is the one after the head.
        self._in_head = False
        self._started_at = self._at + start
        self.name = "" if is_file else name
        if name in self._single and (is_file or name in self.values):
            reason = "invalid_field" if is_file else "duplicate_field"
            raise CallerError(Kind.INVALID_VALUE, reason, param=name, parameters={"field": name})
        self._value = bytearray() if not is_file and name in self._wanted and name not in self.values else None
        return start


def _read_part(head: bytes) -> tuple[str, bool]:
    """Return the name of a part, and whether it is a file. Raises `CallerError` when that is not beyond doubt."""
    found: dict[bytes, bytes] = {}
    for line in head.split(_LINE_END):
        field, colon, value = line.partition(b":")
        field = field.lower()
        if not colon or not field or field in found or field.strip() != field or b"\r" in line or b"\n" in line:
            raise malformed()
        found[field] = value.strip()
    if found.get(b"content-transfer-encoding", b"8bit").lower() not in _PLAIN_CODINGS:
        raise malformed()
    disposition = found.get(b"content-disposition", b"")
    kind = _FORM_DATA.match(disposition)
    if kind is None:
        raise malformed()
    at = kind.end()
    parameters: dict[bytes, bytes] = {}
    while at < len(disposition):
        parameter = _PARAMETER.match(disposition, at)
        if parameter is None or parameter[1].lower() in parameters:
            raise malformed()
        parameters[parameter[1].lower()] = parameter[3] if parameter[2] is None else parameter[2]
        at = parameter.end()
    try:
        name = parameters[b"name"].decode()
    except (KeyError, UnicodeDecodeError):
        raise malformed() from None
    if not name or b"name*" in parameters or "\\" in name or not name.isprintable():
        raise malformed()
    return name, b"filename" in parameters or b"filename*" in parameters
