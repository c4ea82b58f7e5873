"""Remember the head of an upstream's last answer: a server that tells nothing but another length is not parsed anew.

Owns which heads are taken (RFC 9112, read 2026-11-23), and what counts as the same head: every byte but the digits of
its Content-Length. A head is only remembered after the parser has taken it, so whatever is wrong with one is found
there; of one that had to be parsed again, as a stream's, the judgement is remembered. Called by connections, each for
its own answers.
"""

from __future__ import annotations

import re

from msgspec import Struct, structs

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,18})(?=\r\n)")
_END_OF_HEAD = b"\r\n\r\n"

MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_FIELDS = 200

_LAST_STATUS = 599
_BODILESS = frozenset({204, 304})

Fields = list[tuple[bytes, bytes]]


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


class JudgedHead(Struct, frozen=True, gc=False):
    """A head that leaves no doubt about its body, which goes on `until_close` when nothing tells its length.

    `fields` are as they came; of `headers` the names are in lower case, and several lines of one name are joined.
    `text` is the whole head of chunks that was found to come again, b"" before that.
    """

    status: int
    version: str
    fields: Fields
    headers: dict[bytes, bytes]
    until_close: bool
    text: bytes = b""


def judge(status: int, version: str, fields: Fields, *, is_long: bool) -> JudgedHead:
    """Judge a head: its status, its size, and whether it leaves no doubt about the body's length and coding.

    `is_long` says that it may be too long. Raises ValueError for a head that is not taken.
    """
    if status > _LAST_STATUS or version not in {"1.1", "1.0"}:
        raise ValueError("unusable status line")
    if len(fields) > MAX_HEAD_FIELDS:
        raise ValueError("too many header fields")
    headers: dict[bytes, bytes] = {}
    for written, value in fields:
        name = written.lower()
        headers[name] = value if name not in headers else headers[name] + b", " + value
    if is_long and sum(map(len, headers)) + sum(map(len, headers.values())) > MAX_HEAD_BYTES:
        raise ValueError("head too large")
    transfer_coding = headers.get(b"transfer-encoding")
    # RFC 9112 section 6.1: with HTTP/1.0 this field means faulty framing.
    if transfer_coding is not None and (version == "1.0" or transfer_coding.strip().lower() != b"chunked"):
        raise ValueError("unusable transfer coding")
    if headers.get(b"content-encoding", b"identity").strip().lower() not in {b"identity", b""}:
        raise ValueError("content coding that was not asked for")
    until_close = transfer_coding is None and b"content-length" not in headers and status not in _BODILESS
    return JudgedHead(status, version, fields, headers, until_close)


def seen_again(judged: JudgedHead, data: bytes) -> JudgedHead:
    """Return a head that came again with how it is written, if it is that of chunks and `data` begin with all of it."""
    text, end, _ = data.partition(_END_OF_HEAD)
    text += end
    # Where a line ends otherwise, the head may have ended before.
    if not end or b"transfer-encoding" not in judged.headers or text.count(b"\n") != text.count(b"\r\n"):
        return judged
    return structs.replace(judged, text=text)
