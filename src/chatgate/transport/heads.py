"""Remember the head of an upstream's last answer: a server that tells nothing but another length is not parsed anew.

Owns what counts as the same head: every byte but the digits of its Content-Length. A head is only remembered after the
parser has taken it, so whatever is wrong with one is found there. Called by connections, each for its own answers.
"""

from __future__ import annotations

import re

from msgspec import Struct

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,18})(?=\r\n)")
_LONGEST_LENGTH = 18
_END_OF_LINE = b"\r\n"


class KnownHead(Struct, frozen=True, gc=False):
    """A head, cut before and after the digits of its length. `headers` are those of every answer that has it."""

    before: bytes
    after: bytes
    headers: dict[bytes, bytes]

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body of an answer that has this head and is whole; None for anything else."""
        before = self.before
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(_END_OF_LINE, start, start + _LONGEST_LENGTH + 2)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self.after, end):
            return None
        body = data[end + len(self.after) :]
        return body if len(body) == int(digits) else None


def known_head(data: bytes, headers: dict[bytes, bytes], body_bytes: int) -> KnownHead | None:
    """Return the head of a whole answer that was parsed; None when its length is not told in the usual way."""
    head = data[: len(data) - body_bytes]
    length = _LENGTH.search(head)
    if length is None or int(length[1]) != body_bytes or not head.endswith(b"\r\n\r\n"):
        return None
    kept = {name: value for name, value in headers.items() if name != b"content-length"}
    return KnownHead(head[: length.start(1)], head[length.end(1) :], kept)
