"""Server-sent events come out the same however the stream was cut, and nothing but line ends separates lines."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.protocols import sse
from chatgate.vocabulary.errors import UpstreamError

# Every byte that means something to the format, and characters that look like line ends to Python but are none.
_STREAM_PIECES = st.sampled_from(
    [
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b":", b" ", b"data", b"data: ", b"data:x", b"event: e"),
        *(b"\xc2\x85", b"\xe2\x80\xa8", b"\x0b", b"\x0c", b"\x1c", b"\x00", b"\xef\xbb\xbf", b"\xf0\x9f\x9a\xaa", b"x"),
    ]
)
_STREAMS = st.lists(_STREAM_PIECES, max_size=30).map(b"".join)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at some places; places behind its end do nothing."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


def events_of(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """Return the events of a stream that comes in pieces, and what is left at its end."""
    splitter = sse.EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events, splitter.finish()


def data_by_the_standard(stream: bytes) -> list[bytes]:
    """Return the data of each event as the standard's own algorithm finds it: line by line, on the whole stream."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    found: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
    return found


@given(_STREAMS, st.lists(st.integers(0, 400), max_size=10))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [1, 8, 9, 10, 11, 12])
@example(b"data: a\r\rdata: b\r\r", [8, 9, 10])
@example(b"data: a\n\r\ndata: b\n\n", [9])
@example(b"\n\ndata: a\n\n\n\n\ndata: b\n\n", [])
def test_any_cutting_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    """Where a stream is cut makes no difference, and its events joined again are the stream."""
    events, tail = events_of(cut(stream, places))
    assert (events, tail) == events_of([stream])
    assert (events, tail) == events_of([bytes([byte]) for byte in stream])
    assert b"".join(events) + tail == stream


@given(_STREAMS)
@example(b"\xef\xbb\xbfdata: a\n\n")
@example(b"data\n\ndata:\n\ndata: \n\n")
@example(b"data: a\ndata: b\r\ndata:c\rid: 1\n\n")
@example(b"\n\n\ndata: a\n\n")
def test_events_carry_what_the_standard_says(stream: bytes) -> None:
    """Each event's data is what the standard's algorithm reads."""
    if stream.count(b"\xef\xbb\xbf") > stream.startswith(b"\xef\xbb\xbf"):
        return  # A byte order mark inside of a stream is nobody's business.
    events, tail = events_of([stream])
    if tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n"):
        events.append(tail)  # Its blank line is whole only now that no LF followed.
    data = [sse.data_of(event) for event in events]
    assert [each for each in data if each is not None] == data_by_the_standard(stream)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20)), st.lists(st.integers(0, 2000), max_size=10))
def test_what_is_written_is_read(texts: list[str], places: list[int]) -> None:
    """Data without line ends comes back as it was written, even when a character is cut in two."""
    written = [text.replace("\n", "").replace("\r", "").encode() for text in texts]
    events, tail = events_of(cut(b"".join(map(sse.event, written)), places))
    assert [sse.data_of(event) for event in events] == written
    assert tail == b""


@pytest.mark.parametrize(
    "event", [b": keep-alive\n\n", b"\n\n", b"event: ping\nid: 3\nretry: 10\n\n", b"dat: x\n\n", b""]
)
def test_events_without_data_have_none(event: bytes) -> None:
    """Comments and events of other fields only have no data."""
    assert sse.data_of(event) is None


def test_a_stream_without_line_ends_is_given_up() -> None:
    """An event that never ends is refused once it is longer than any real one."""
    splitter = sse.EventSplitter()
    piece = b"x" * (1 << 18)
    for _ in range(sse.MAX_EVENT_BYTES // len(piece)):
        assert splitter.feed(piece) == []
    with pytest.raises(UpstreamError) as caught:
        splitter.feed(b"x")
    assert caught.value.reason == "upstream_too_large"


def test_a_long_stream_of_short_events_is_not_given_up() -> None:
    """The bound is on one event, not on the stream."""
    splitter = sse.EventSplitter()
    piece = sse.event(b"x" * 1000) * 1000
    assert sum(len(splitter.feed(piece)) for _ in range(5)) == 5000
