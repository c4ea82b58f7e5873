"""Remember the head of an upstream's last answer: a server that tells nothing but another length is not parsed anew.

Owns what counts as the same head: every byte but the digits of its Content-Length. A head is only remembered after the
parser has taken it, so whatever is wrong with one is found there. Called by connections, each for its own answers.
"""

from __future__ import annotations

import re

from msgspec import Struct

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,18})(?=\r\n)")


class KnownHead(Struct, frozen=True, gc=False):
    """A head that only lacks the digits of its length, for which it has a `%d`.

    `bare_bytes` is how long it is without them. `headers` are those of every answer that has it.
    """

    form: bytes
    bare_bytes: int
    headers: dict[bytes, bytes]

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body of an answer that has this head and is whole; None for anything else.

        The size of a whole answer says what its head has to be. Nothing is found of lengths just below a power of ten,
        where that is not clear; the parser takes those.
        """
        rest_bytes = len(data) - self.bare_bytes
        length = rest_bytes - len(str(rest_bytes))
        head = self.form % length
        return data[len(head) :] if data.startswith(head) and len(data) == len(head) + length else None


def known_head(data: bytes, headers: dict[bytes, bytes], body_bytes: int) -> KnownHead | None:
    """Return the head of a whole answer that was parsed; None when its length is not told in the usual way."""
    head = data[: len(data) - body_bytes]
    length = _LENGTH.search(head)
    if length is None or int(length[1]) != body_bytes or not head.endswith(b"\r\n\r\n"):
        return None
    kept = {name: value for name, value in headers.items() if name != b"content-length"}
    before, after = head[: length.start(1)].replace(b"%", b"%%"), head[length.end(1) :].replace(b"%", b"%%")
    return KnownHead(before + b"%d" + after, len(head) - len(length[1]), kept)
