"""Answers on the wire: framing, the lines every answer has, and slow readers."""

from __future__ import annotations

import email.utils
import re
import time

import pytest

from server.running import RunningServer, answer, ends_in_reset, eventually, read_until, request

PIECES = b"".join(b"piece %d\n" % number for number in range(5))


def test_an_answer_has_a_length_and_a_date(server: RunningServer) -> None:
    """A whole answer states its length and its time, and no connection line when nothing is to be said."""
    with server.connect() as connection:
        connection.sendall(request("/echo", b"abc"))
        data = read_until(connection, b"abc")
    found = re.fullmatch(
        rb"HTTP/1\.1 200 OK\r\nDate: ([^\r]+ GMT)\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc", data
    )
    assert found is not None
    sent_at = email.utils.parsedate_to_datetime(found[1].decode()).timestamp()
    assert abs(sent_at - time.time()) < 5


def test_a_stream_is_chunked(server: RunningServer) -> None:
    """Each piece is a chunk of its own, the end is a chunk of nothing, and the connection goes on."""
    with server.connect() as connection:
        connection.sendall(request("/stream/2"))
        data = read_until(connection, b"0\r\n\r\n")
        head, _, body = data.partition(b"\r\n\r\n")
        assert b"\r\nTransfer-Encoding: chunked" in head
        assert b"Content-Length" not in head
        assert body == b"8\r\npiece 0\n\r\n8\r\npiece 1\n\r\n0\r\n\r\n"
        connection.sendall(request("/stream/5"))
        assert answer(connection).read() == PIECES


@pytest.mark.parametrize(
    ("ask", "body"),
    [
        (b"POST /ends HTTP/1.1\r\nHost: a\r\n\r\n", b"6\r\nfirst\n\r\n5\r\nlast\n\r\n0\r\n\r\n"),
        (b"POST /ends HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"6\r\nfirst\n\r\n5\r\nlast\n\r\n0\r\n\r\n"),
        (b"POST /ends HTTP/1.0\r\n\r\n", b"first\nlast\n"),
        (b"HEAD /ends HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    ],
)
def test_a_stream_may_begin_with_its_first_piece_and_end_with_its_last(
    server: RunningServer, ask: bytes, body: bytes
) -> None:
    """They are framed as any other, and what follows on the connection is another answer."""
    with server.connect() as connection:
        connection.sendall(ask)
        assert read_until(connection, b"\r\n\r\n" + body).partition(b"\r\n\r\n")[2] == body
        if b"1.1\r\nHost: a\r\n\r\n" in ask:
            connection.sendall(request("/size", b"abc"))
            assert answer(connection).read() == b"3"


def test_a_stream_to_http_10_ends_with_the_connection(server: RunningServer) -> None:
    """HTTP/1.0 knows no chunks: the end of the connection is the end of the body."""
    got = server.exchange(b"POST /stream/5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert head.endswith(b"\r\nConnection: close")
    assert body == PIECES


def test_an_unfinished_stream_to_http_10_ends_in_a_reset(server: RunningServer) -> None:
    """Where the end of the connection is the end of the body, a broken stream must not end cleanly."""
    with server.connect() as connection:
        connection.sendall(b"POST /half HTTP/1.0\r\n\r\n")
        assert ends_in_reset(connection)


def test_http_10_goes_on_when_it_asks_to(server: RunningServer) -> None:
    """Keep-alive of HTTP/1.0 is said in both directions."""
    ask = b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(ask)
            data = read_until(connection, b"abc")
            assert b"\r\nConnection: keep-alive\r\n" in data
    assert b"\r\nConnection: close\r\n" in server.exchange(b"GET /echo HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize("path", ["/echo", "/stream/3"])
def test_head_gets_the_head_only(server: RunningServer, path: str) -> None:
    """HEAD is answered like the others, without the body."""
    with server.connect() as connection:
        connection.sendall(request(path, b"abc", method=b"HEAD"))
        response = answer(connection, "HEAD")
        assert response.status == 200
        if path == "/echo":
            assert response.getheader("Content-Length") == "3"
        connection.sendall(request("/size", b"abc"))
        assert answer(connection).read() == b"3"


def test_no_content_has_no_length(server: RunningServer) -> None:
    """204 carries neither a body nor a length."""
    with server.connect() as connection:
        connection.sendall(request("/nothing"))
        data = read_until(connection, b"\r\n\r\n")
        assert data.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"Content-Length" not in data
        connection.sendall(request("/size", b"abc"))
        assert answer(connection).read() == b"3"


def test_a_slow_reader_is_waited_for(server: RunningServer) -> None:
    """Who does not read stops the stream soon, holds no more than the buffers, and gets it all when reading again."""
    server.gate.flooded_bytes = 0
    with server.connect(receive_buffer_bytes=4096) as connection:
        connection.sendall(request("/flood"))
        read_until(connection, b"\r\n\r\n")
        before = -1

        def stands_still() -> bool:
            nonlocal before
            time.sleep(0.1)
            last, before = before, server.gate.flooded_bytes
            return before == last > 0

        assert eventually(stands_still)
        assert server.gate.flooded_bytes < 2 << 20
        got = 0
        while got < server.gate.flooded_bytes + (1 << 20) and got < 32 << 20:
            got += len(connection.recv(1 << 20))
        assert server.gate.flooded_bytes > before
    assert eventually(lambda: "client left" in server.gate.left)
