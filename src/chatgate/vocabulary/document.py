"""A JSON object in the bytes it came in, to be read partly and passed on with few changes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

_MEMBER = re.compile(rb'\s*([{,])\s*"([^"\\]*)"\s*:\s*')


class Document(Struct, frozen=True, gc=False):
    """A checked JSON object without duplicate keys: its bytes, and the raw value of each top-level field.

    Where a key is written with escapes, the body is what writing the fields gives.
    """

    body: bytes
    fields: dict[str, Raw]

    def value(self, field: str) -> Any:  # noqa: ANN401 - JSON may be anything
        """Return a field's decoded value; None when it is absent or null."""
        raw = self.fields.get(field)
        return None if raw is None else msgspec.json.decode(raw)

    def extended(self, members: bytes) -> bytes:
        """Return the body with members behind its last one; there must be one, and none of these before."""
        body = self.body
        end = body.rindex(b"}")
        return b"%b,%b%b" % (body[:end], members, body[end:])

    def splice(self, changes: dict[str, bytes]) -> bytes:
        """Return the body with some fields' values replaced or added; every other byte stays as it came."""
        spans = locate(self.body, self.fields)
        if spans is None:  # A key has escapes; such a body has no byte that it does not need.
            return msgspec.json.encode(self.fields | {field: Raw(value) for field, value in changes.items()})
        pieces: list[bytes] = []
        at = 0
        for start, end, field in sorted((*spans[field], field) for field in changes if field in spans):
            pieces += (self.body[at:start], changes[field])
            at = end
        added = [msgspec.json.encode(field) + b":" + changes[field] for field in changes if field not in spans]
        if added:
            close = self.body.rindex(b"}")
            pieces += (self.body[at:close], b"," if spans else b"", b",".join(added))
            at = close
        pieces.append(self.body[at:])
        return b"".join(pieces)


def locate(body: bytes, fields: dict[str, Raw]) -> dict[str, tuple[int, int]] | None:
    """Find each value's offsets by reading the object along its decoded fields.

    None when the text is not exactly these fields in this order: a key is there twice, or is written with escapes.
    """
    spans: dict[str, tuple[int, int]] = {}
    at = 0
    before = b"{"
    for field, raw in fields.items():
        member = _MEMBER.match(body, at)
        value = bytes(raw)
        if member is None or member[1] != before or member[2] != field.encode():
            return None
        start = member.end()
        if not body.startswith(value, start):
            return None
        at = start + len(value)
        spans[field] = (start, at)
        before = b","
    return spans if not spans or body[at:].strip() == b"}" else None
