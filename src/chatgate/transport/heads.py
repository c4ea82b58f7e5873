"""Remember the head of an upstream's last answer: a server that tells nothing but another length is not parsed anew.

Owns what counts as the same head: every byte but the digits of its Content-Length. A head is only remembered after the
parser has taken it, so whatever is wrong with one is found there. Called by connections, each for its own answers.
"""

from __future__ import annotations

import re

from msgspec import Struct

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,18})(?=\r\n)")
_END_OF_HEAD = b"\r\n\r\n"


class KnownHead(Struct, frozen=True, gc=False):
    """A head without its last empty line, and with `%d` for its length. `headers` are those of every answer with it."""

    form: bytes
    headers: dict[bytes, bytes]

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body of an answer that has this head and is whole; None for anything else."""
        head, end, body = data.partition(_END_OF_HEAD)
        return body if end and head == self.form % len(body) else None


def known_head(data: bytes, headers: dict[bytes, bytes], body_bytes: int) -> KnownHead | None:
    """Return the head of a whole answer that was parsed; None when its length is not told in the usual way."""
    head = data[: len(data) - body_bytes]
    length = _LENGTH.search(head)
    if length is None or int(length[1]) != body_bytes or not head.endswith(_END_OF_HEAD):
        return None
    head = head[: -len(_END_OF_HEAD)]
    kept = {name: value for name, value in headers.items() if name != b"content-length"}
    before, after = head[: length.start(1)].replace(b"%", b"%%"), head[length.end(1) :].replace(b"%", b"%%")
    return KnownHead(before + b"%d" + after, kept)
