"""Records as bytes, and back: the frames that a journal's files are made of.

    length of the line (4 bytes, little-endian) │ CRC-32 of the line (4 bytes) │ the line: JSON, ending in a newline

Owns the format and what a record's texts may hold; knows no files. A frame that is torn or damaged is recognised by its
length or its sum, and the next one is found behind a newline.
"""

from __future__ import annotations

import re
import struct
from operator import is_
from typing import Any, Final
from zlib import crc32

import msgspec
from msgspec import Struct

from chatgate.accounting.records import Record, encode_line

MAX_TEXT_CHARACTERS: Final = 512
"""A longer text in a record is cut."""

HEADER_BYTES: Final = 8

_BACKSLASH: Final = ord("\\")
"""What begins an escape in JSON: a text that has to be changed is written with one, or is long."""

_MAX_LINE_BYTES: Final = 64 << 10
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")
_pack = struct.Struct("<II").pack
_unpack_from = struct.Struct("<II").unpack_from


def encode_frame(record: Record) -> tuple[bytes, Record]:
    """Write a record as a frame, whatever its texts hold; return the record as well that will be read from it."""
    try:
        line = encode_line([record])
    except UnicodeEncodeError:
        line = b"\\"
    if len(line) > MAX_TEXT_CHARACTERS or _BACKSLASH in line:
        record = _normalised(record)
        line = encode_line([record])
    # Otherwise, as nearly always, nothing in it has to be changed.
    return _pack(len(line), crc32(line)) + line, record


def _normalised(record: Any) -> Any:  # noqa: ANN401 - a record, or a struct or value inside one
    """Return a record that every database can hold, or the same one if it already is."""
    changes = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        normal = _normal(value)
        if normal is not value:
            changes[name] = normal
    return msgspec.structs.replace(record, **changes) if changes else record


def _normal(value: Any) -> Any:  # noqa: ANN401 - a field's value
    if isinstance(value, str):
        if len(value) <= MAX_TEXT_CHARACTERS and not _UNSPEAKABLE.search(value):
            return value
        return speakable(value)
    if isinstance(value, tuple):
        normal = tuple(_normal(part) for part in value)
        return value if all(map(is_, normal, value)) else normal
    return _normalised(value) if isinstance(value, Struct) else value


def speakable(text: str) -> str:
    """Return a text that can be stored: NUL shown as its symbol, lone surrogates replaced, the too long cut.

    A cut text ends in `…truncated(n)`, where n is how many characters it had.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        mark = f"…truncated({len(text)})"
        text = text[: MAX_TEXT_CHARACTERS - len(mark)] + mark
    return _UNSPEAKABLE.sub(lambda found: "\u2400" if found[0] == "\0" else "\ufffd", text)


def frame_end(content: bytes, at: int) -> int:
    """Return where the frame ends that begins at `at`; 0 when there is no whole one."""
    start = at + HEADER_BYTES
    if start > len(content):
        return 0
    length, checksum = _unpack_from(content, at)
    end: int = start + length
    # A file that lost its power may end in zeros: an empty line has the sum 0, and is none of ours.
    if not 0 < length <= _MAX_LINE_BYTES or end > len(content) or crc32(content[start:end]) != checksum:
        return 0
    return end


def next_frame(content: bytes, at: int) -> int:
    """Return where the next whole frame begins after a damaged one; -1 when there is none.

    It begins behind a newline, or, should that be what was damaged, where the damaged frame says that it ends.
    """
    newline = content.find(b"\n", at)
    while newline >= 0 and not frame_end(content, newline + 1):
        newline = content.find(b"\n", newline + 1)
    found = newline + 1 if newline >= 0 else -1
    if at + HEADER_BYTES <= len(content):
        stated = at + HEADER_BYTES + int(_unpack_from(content, at)[0])
        if (found < 0 or stated < found) and frame_end(content, stated):
            return stated
    return found
