"""Forms with files are handed on while they arrive: slowly read, slowly sent, or not wanted."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from server.running import Clock, RunningServer, answer, eventually, read_to_end

Start = Callable[..., RunningServer]
HEAD = b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=a\r\n%b\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def sized(size: int) -> bytes:
    """Return the line that states a length."""
    return b"Content-Length: %d\r\n" % size


@pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_larger_than_others_may_be_arrives_whole(start: Start, more: bytes) -> None:
    """It has a limit of its own, and what follows it is the next request."""
    server = start(body_bytes=1000, upload_bytes=1 << 20)
    with server.connect() as connection:
        for framing in (sized(1 << 20), CHUNKED):
            connection.sendall(HEAD % (b"size", framing + more))
            body = b"x" * (1 << 20)
            if more:
                assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(body if framing is not CHUNKED else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            assert answer(connection).read() == b"%d" % (1 << 20)
        connection.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection).status == 200


@pytest.mark.parametrize("framing", [sized(2001), CHUNKED])
def test_a_body_over_the_limit_is_refused(start: Start, framing: bytes) -> None:
    """By its stated length at once, else when it comes there."""
    server = start(body_bytes=1000, upload_bytes=2000)
    with server.connect() as connection:
        connection.sendall(HEAD % (b"size", framing))
        if framing is CHUNKED:
            connection.sendall(b"7d1\r\n" + b"x" * 2001)
        assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")
    assert [reason for reason, _ in server.gate.errors] == ["body_too_large"]


def test_broken_chunks(start: Start) -> None:
    """What is no chunk ends the body, and the connection after the answer."""
    server = start()
    with server.connect() as connection:
        connection.sendall(HEAD % (b"size", CHUNKED) + b"5\r\nabcde\r\n" + b"zz\r\n")
        said = read_to_end(connection)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"Connection: close" in said


def test_an_answer_before_the_end_of_the_body(start: Start) -> None:
    """The caller gets it, although much of the body is unread, and the connection ends."""
    server = start()
    with server.connect() as connection:
        connection.sendall(HEAD % (b"unread", sized(4 << 20)))
        connection.sendall(b"x" * (3 << 20))
        said = read_to_end(connection)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in said


def test_a_trickling_upload_is_refused(start: Start, clock: Clock) -> None:
    """It has thirty seconds, and one more for every 64 KiB, like any body."""
    server = start(clock=clock)
    with server.connect() as connection:
        connection.sendall(HEAD % (b"size", sized(1 << 20)) + b"x" * (128 << 10))
        assert eventually(lambda: len(server.gate.envelopes) == 1)
        time.sleep(0.2)
        server.sweep()
        clock.now += 31
        server.sweep()
        assert server.gate.errors == []
        clock.now += 2
        server.sweep()
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")
    assert server.gate.served == []


def test_a_caller_who_leaves_in_the_middle(start: Start) -> None:
    """Whoever waits for the rest is told."""
    server = start()
    with server.connect() as connection:
        connection.sendall(HEAD % (b"size", sized(1 << 20)) + b"x")
        assert eventually(lambda: len(server.gate.envelopes) == 1)
    assert eventually(lambda: server.server.connections == 0 and server.server.in_flight == 0)
    assert server.gate.served == []
