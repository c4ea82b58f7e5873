"""The judgement of heads, byte by byte."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.server.head import CHUNKED, Head, HeadReader
from chatgate.server.limits import WireLimits
from chatgate.vocabulary.errors import CallerError
from server.test_hostile import BAD_HEADERS, BAD_HOSTS, BAD_LENGTHS, BAD_REQUEST_LINES

GOOD = (
    b"POST /v1/chat/completions?key=a%20b HTTP/1.1\r\n"
    b"Host: gate.test:5000\r\nAccept: text/plain\r\nX-Empty:\r\naccept: */* \t\r\n"
    b"Authorization: Bearer sk-test-1\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n"
)


def read_whole(data: bytes) -> Head:
    """Read one head that is all there."""
    found = HeadReader(WireLimits()).read(data)
    assert found is not None
    return found[0]


def test_reads_a_head() -> None:
    """A head is taken apart as the vocabulary promises; what follows it is handed back."""
    found = HeadReader(WireLimits()).read(GOOD + b"abc")
    assert found == (
        Head(
            "POST",
            "/v1/chat/completions",
            "key=a%20b",
            {
                b"host": b"gate.test:5000",
                b"accept": b"text/plain, */*",
                b"x-empty": b"",
                b"authorization": b"Bearer sk-test-1",
                b"connection": b"keep-alive",
            },
            3,
            is_http_10=False,
            keep_alive=True,
            expects_continue=False,
        ),
        b"abc",
    )


@given(
    st.sampled_from(
        [b"3", b"0", b"12", b"00012", b"18446744073709551615", b"", b" 3", b"3 ", b"+3", b"3,3", b"0x3", b"\xb2"]
    ),
    st.sampled_from(
        [b"", b"\r", b"X-More: 1\r\n", b"Content-Length: 4\r\n", b"Host: other\r\n", b"Authorization: Bearer b\r\n"]
    ),
    st.binary(max_size=8),
)
def test_the_second_head_is_read_like_a_first_one(digits: bytes, more: bytes, rest: bytes) -> None:
    """What was remembered of the last head changes nothing: neither what is read, nor what is refused."""
    second = GOOD.replace(b"Length: 3\r\n", b"Length: %b\r\n%b" % (digits, more)) + rest
    reader = HeadReader(WireLimits())
    reader.read(GOOD)

    def outcome(reader: HeadReader) -> object:
        try:
            return reader.read(second)
        except CallerError as error:
            return error.reason

    assert outcome(reader) == outcome(HeadReader(WireLimits()))


@given(st.lists(st.integers(0, len(GOOD) - 1), max_size=6))
def test_cuts_do_not_matter(cuts: list[int]) -> None:
    """A head cut into pieces at any places is the same head."""
    reader = HeadReader(WireLimits())
    edges = [0, *sorted(cuts), len(GOOD)]
    pieces = [GOOD[start:end] for start, end in itertools.pairwise(edges)]
    found = [reader.read(piece) for piece in pieces if piece]
    assert found[:-1] == [None] * (len(found) - 1)
    assert found[-1] == (read_whole(GOOD), b"")
    assert not reader.has_begun


@pytest.mark.parametrize("table", [BAD_REQUEST_LINES, BAD_HOSTS, BAD_HEADERS, BAD_LENGTHS])
def test_cuts_hide_nothing(table: dict[str, bytes]) -> None:
    """What is refused in one piece is refused byte by byte."""
    for data in table.values():
        reader = HeadReader(WireLimits(header_bytes=4096))
        with pytest.raises(CallerError):
            _drip(reader, data)


def _drip(reader: HeadReader, data: bytes) -> None:
    for number in range(len(data)):
        reader.read(data[number : number + 1])
    pytest.fail(f"accepted {data!r}")


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: foo, Close\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"1.1", b"Upgrade: h2c\r\n", False),
        (b"1.1", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_knows_when_a_connection_goes_on(version: bytes, lines: bytes, *, keep_alive: bool) -> None:
    """HTTP/1.1 goes on unless told otherwise, HTTP/1.0 only when told, and nothing after an upgrade."""
    head = read_whole(b"GET / HTTP/%b\r\nHost: x\r\n%b\r\n" % (version, lines))
    assert head.keep_alive is keep_alive
    assert head.is_http_10 is (version == b"1.0")


@pytest.mark.parametrize(
    ("lines", "body_bytes"),
    [
        (b"", 0),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 12\r\n", 12),
        (b"Transfer-Encoding: Chunked\r\n", CHUNKED),
    ],
)
def test_knows_the_length(lines: bytes, body_bytes: int) -> None:
    """A body has a length, or chunks, or is not there."""
    assert read_whole(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n" % lines).body_bytes == body_bytes


def test_sees_an_expectation() -> None:
    """Only HTTP/1.1 callers can wait for 100."""
    lines = b"Host: x\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n"
    assert read_whole(b"POST / HTTP/1.1\r\n" + lines).expects_continue
    assert not read_whole(b"POST / HTTP/1.0\r\n" + lines).expects_continue


def test_reads_one_after_another() -> None:
    """A reader is ready for the next head as soon as one is read, and nothing of the first stays in it."""
    reader = HeadReader(WireLimits())
    assert reader.read(GOOD) is not None
    second = reader.read(b"GET /2 HTTP/1.1\r\nHost: y\r\n\r\n")
    assert second is not None
    assert second[0].headers == {b"host": b"y"}
    assert second[0].path == "/2"
