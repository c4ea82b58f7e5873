"""Requests on a connection: one after another, with and without bodies, until somebody ends it."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable

import pytest

from fakes.gate import FakeGate
from server.running import (
    RunningServer,
    answer,
    ends_in_reset,
    eventually,
    read_to_end,
    read_until,
    request,
    send_until_stuck,
)

INCOMPLETE = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
EXPECT = b"Expect: 100-continue\r\n"


def test_a_connection_carries_many_requests(server: RunningServer) -> None:
    """One connection serves one request after another; each has an id of its own."""
    with server.connect() as connection:
        for number in range(20):
            connection.sendall(request("/echo", b"%d" % number))
            response = answer(connection)
            assert (response.status, response.read()) == (200, b"%d" % number)
    ids = {envelope.request_id for envelope in server.gate.envelopes}
    assert len(ids) == 20
    assert all(each.startswith("req_") for each in ids)
    assert {envelope.peer for envelope in server.gate.envelopes} == {"127.0.0.1"}


def percents(body: bytes) -> bytes:
    """Return a request whose head has the sign of formats in it."""
    return request("/echo?100%25", body, lines=b"X-Share: 5%d%\r\n")


@pytest.mark.parametrize("cut", range(0, len(percents(b"first")), 7))
def test_a_head_that_is_repeated_is_read_the_same(server: RunningServer, cut: int) -> None:
    """Wherever the network cuts the request, whatever its length, and with others right behind it."""
    bodies = (b"first", b"the second one", b"", b"fourth", b"and the last")
    requests = [percents(body) for body in bodies]
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for data, last in ((requests[0], bodies[0]), (requests[1], bodies[1]), (b"".join(requests[2:]), bodies[-1])):
            connection.sendall(data[:cut])
            if cut:
                time.sleep(0.002)  # Mostly the other side reads meanwhile; what is told holds either way.
            connection.sendall(data[cut:])
            read_until(connection, b"\r\n\r\n" + last)
    assert tuple(body for _, body in server.gate.served) == bodies
    assert len({each.request_id for each in server.gate.envelopes}) == len(bodies)
    assert {(each.path, each.query, each.headers[b"x-share"]) for each in server.gate.envelopes} == {
        ("/echo", "100%25", b"5%d%")
    }


def test_what_was_judged_counts_for_the_same_head_only(start: Callable[..., RunningServer]) -> None:
    """Another path, another line, or a length written in another way is looked at as if it were the first."""
    server = start()
    same, counted = request("/size", b"1234"), []
    others = (
        request("/echo", b"1234"),
        request("/size", b"1234", lines=b"X-More: 1\r\n"),
        same.replace(b": 4\r", b": 04\r"),
        request("/never-again", b"1234"),
        b"GET /echo HTTP/1.1\r\nHost: gate.test\r\n\r\n",
    )
    with server.connect() as connection:
        for data in (same, same, *(each for other in others for each in (other, same, same))):
            connection.sendall(data)
            assert answer(connection).read() in (b"4", b"1234", b"")
            counted.append(server.gate.repeated)
    assert counted == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 11]


def test_what_was_judged_counts_for_other_connections_of_the_same_peer(start: Callable[..., RunningServer]) -> None:
    """Heads that take turns on many connections are each judged once, with whatever length behind them."""
    server = start()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(3)]
        for turn in range(4):
            for number, connection in enumerate(connections):
                body = b"x" * (turn + 1)
                connection.sendall(request("/echo", body, lines=b"X-Key: %d\r\n" % ((turn + number) % 3)))
                response = answer(connection)
                assert (response.status, response.read()) == (200, body)
    served = [each.headers[b"x-key"] for each in server.gate.envelopes]
    assert served == [b"%d" % ((turn + number) % 3) for turn in range(4) for number in range(3)]
    assert server.gate.repeated == 9


@pytest.mark.parametrize("lines", [b"Connection: close\r\n", b"X-Long: " + b"x" * 1100 + b"\r\n"])
def test_no_other_connection_knows_a_head_that_is_long_or_the_last(
    start: Callable[..., RunningServer], lines: bytes
) -> None:
    """What ends its connection goes on doing so, and memory is for heads of a usual length."""
    server = start()
    for _ in range(2):
        with server.connect() as connection:
            connection.sendall(request("/echo", b"abc", lines=lines))
            assert answer(connection).read() == b"abc"
            if b"close" in lines:
                assert connection.recv(1) == b""
    assert server.gate.repeated == 0


def test_a_known_head_inside_another_request_is_a_part_of_it(start: Callable[..., RunningServer]) -> None:
    """In the middle of a head or of a body its bytes begin no request of their own."""
    server, known = start(), request("/echo", b"abc")
    in_head = b"POST /size HTTP/1.1\r\nX-Odd: ", b"3"
    in_body = request("/size", known * 2).removesuffix(known), b"%d" % (2 * len(known))
    with server.connect() as connection:
        connection.sendall(known)
        assert answer(connection).read() == b"abc"
        for beginning, size in (in_head, in_body):
            connection.sendall(beginning)
            time.sleep(0.01)  # Mostly the other side reads meanwhile; what is told holds either way.
            connection.sendall(known)
            assert answer(connection).read() == size


@pytest.mark.parametrize(("path", "asked_again"), [("/echo", 3), ("/lasting", 0)])
def test_a_judgement_that_lasts_is_not_asked_about(server: RunningServer, path: str, asked_again: int) -> None:
    """Any other is, before each request that repeats the head, in one piece or in two."""
    with server.connect() as connection:
        for pieces in ((b"one",), (b"two",), (b"th", b"ree"), (b"four",)):
            for piece in request(path, b"".join(pieces)).partition(pieces[-1]):
                connection.sendall(piece)
                time.sleep(0.002)  # Mostly the other side reads meanwhile; what is told holds either way.
            assert answer(connection).read() == b"".join(pieces)
    assert (server.gate.repeated, server.gate.asked_again) == (3, asked_again)


def test_no_judgement_of_one_gateway_counts_for_another(start: Callable[..., RunningServer]) -> None:
    """After the configuration was read anew, a caller who stays connected is judged by it."""
    server, gate = start(), FakeGate()
    with server.connect() as connection:
        for replaced in (False, False, True, True):
            if replaced:
                server.server.gate = gate
            connection.sendall(request("/echo", b"abc"))
            assert answer(connection).read() == b"abc"
    assert (len(server.gate.envelopes), server.gate.repeated) == (2, 1)
    assert (len(gate.envelopes), gate.repeated) == (2, 1)


def test_a_repeated_head_with_too_much_behind_it_is_refused(start: Callable[..., RunningServer]) -> None:
    """The cap holds for the second request as for the first."""
    server = start(body_bytes=100)
    with server.connect() as connection:
        for body in (b"x" * 100, b"y" * 100, b"z" * 101):
            connection.sendall(request("/size", body))
            response = answer(connection)
        assert (response.status, response.read()) == (413, b"body_too_large")
    assert [body[:1] for _, body in server.gate.served] == [b"x", b"y"]


@pytest.mark.parametrize("path", ["/echo", "/refused"])
def test_pipelined_requests_are_answered_in_order(server: RunningServer, path: str) -> None:
    """Requests sent ahead wait for their turn, however many and however small."""
    count = 3000
    with server.connect() as connection:
        connection.sendall(request(path, b"abc") * count + request("/size", b"12"))
        data = read_until(connection, b"\r\n\r\n2")
    assert data.count(b"HTTP/1.1 ") == count + 1
    assert server.gate.served[-1] == ("/size", b"12")


def test_many_bytes_ahead_stop_the_reading(start: Callable[..., RunningServer]) -> None:
    """While a call is served, only so much is read ahead."""
    server = start()
    with server.connect() as connection:
        connection.sendall(request("/hold"))
        read_until(connection, b"here\n")
        connection.settimeout(0.3)
        assert send_until_stuck(connection, b"x" * 65_536, 1024) < 1024


def test_a_large_body_arrives_whole(server: RunningServer) -> None:
    """A body up to the cap is served, by length and by chunks."""
    size = 10 << 20
    assert server.ask("/size", b"x" * size) == (200, b"%d" % size)
    chunk = b"100000\r\n" + b"y" * (1 << 20) + b"\r\n"
    head = b"POST /size HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert server.exchange(head + chunk * 10 + b"0\r\n\r\n").endswith(b"\r\n\r\n%d" % size)


def test_one_byte_over_the_cap_is_refused_at_once(server: RunningServer) -> None:
    """A stated length over the cap is refused before a byte of it is read, and the answer reaches the caller."""
    size = (10 << 20) + 1
    with server.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")
    assert server.gate.errors == [("body_too_large", {"limit_bytes": 10 << 20})]
    assert server.gate.served == []


def test_a_length_without_end_is_refused(server: RunningServer) -> None:
    """The largest length that the parser takes is only a number."""
    got = server.exchange(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\nabc")
    assert got.startswith(b"HTTP/1.1 413 ")


def test_chunks_over_the_cap_are_refused(start: Callable[..., RunningServer]) -> None:
    """Chunks over the cap are refused while they arrive; the caller can read so before the connection ends."""
    server = start(body_bytes=1000)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = server.exchange(head + (b"64\r\n" + b"x" * 100 + b"\r\n") * 500)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert got.endswith(b"body_too_large")
    assert server.gate.served == []


def test_a_caller_who_asks_first_is_told_to_go_on(server: RunningServer) -> None:
    """The body is asked for once the caller is let in, and only when it is not there yet."""
    with server.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n%b\r\n" % EXPECT)
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert answer(connection).read() == b"abc"
        connection.sendall(request("/echo", b"def", lines=EXPECT))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("path", "status"), [("/refused", 401), ("/echo", 413)])
def test_a_caller_who_asks_first_is_not_told_to_go_on_in_vain(
    start: Callable[..., RunningServer], path: str, status: int
) -> None:
    """A refusal comes instead of 100, and ends the connection."""
    server = start(body_bytes=100)
    got = server.exchange(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n%b\r\n" % (path.encode(), EXPECT))
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in got


def test_a_small_unwanted_body_is_thrown_away(server: RunningServer) -> None:
    """A refusal comes before the body; a small one is skipped and the connection goes on."""
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")
            response = answer(connection)
            assert (response.status, response.read()) == (401, b"refused")
            connection.sendall(b"x" * 2000)
            connection.sendall(b"x" * 3000 + request("/echo", b"next"))
            assert answer(connection).read() == b"next"
    assert [path for path, _ in server.gate.served] == ["/echo", "/echo"]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nf4240\r\n"]
)
def test_a_large_unwanted_body_does_not_hide_the_answer(server: RunningServer, framing: bytes) -> None:
    """A caller who is still sending sees the refusal and a clean end, not a reset."""
    with server.connect() as connection:
        connection.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\n" + framing)
        connection.sendall(b"x" * 1_000_000)
        data = b""
        while piece := connection.recv(65_536):
            data += piece
    assert data.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in data
    assert data.endswith(b"refused")


@pytest.mark.parametrize("leave", ["FIN", "RST", "half"])
def test_the_call_of_a_caller_who_left_is_cancelled(server: RunningServer, leave: str) -> None:
    """Closing, resetting and half closing all count as leaving, and are noticed at once."""
    with server.connect() as connection:
        connection.sendall(request("/hold"))
        read_until(connection, b"here\n")
        assert server.server.in_flight == 1
        if leave == "RST":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if leave == "half":
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.close()
        assert eventually(lambda: server.gate.left == ["client left"], within_seconds=1)
    assert eventually(lambda: server.server.in_flight == 0)
    assert eventually(lambda: server.server.connections == 0)


@pytest.mark.parametrize("data", [b"", b"GE", b"GET / HTTP/1.1\r\nHost:", INCOMPLETE])
def test_an_end_in_the_middle_is_no_request(server: RunningServer, data: bytes) -> None:
    """A caller who leaves before the end of a request is neither served nor answered."""
    with server.connect() as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection) == b""
    assert server.gate.served == []
    assert eventually(lambda: server.server.connections == 0)


def test_an_upgrade_is_served_as_it_stands(server: RunningServer) -> None:
    """A client that offers h2c with its body, by length or in chunks, is answered in HTTP/1.1; then it is over."""
    offer = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    for framing in (b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"):
        got = server.exchange(offer + framing)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in got
        assert got.endswith(b"\r\n\r\nabc")


def test_nothing_after_an_upgrade_is_served(server: RunningServer) -> None:
    """What follows an offered upgrade may be of another protocol, and is dropped."""
    offer = b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n"
    got = server.exchange(offer + request("/size", b"abc"))
    assert got.count(b"HTTP/1.1 ") == 1
    assert [path for path, _ in server.gate.served] == ["/echo"]


@pytest.mark.parametrize("size", [3, 8 << 20])
def test_close_is_honoured(server: RunningServer, size: int) -> None:
    """A caller who says that this was the last request gets the whole answer and then an end."""
    got = server.exchange(request("/echo", b"x" * size, lines=b"Connection: close\r\n"))
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.endswith(b"\r\nConnection: close")
    assert body == b"x" * size


def test_close_is_honoured_without_a_body(server: RunningServer) -> None:
    """The same holds for a request that ends with its head."""
    got = server.exchange(b"GET /size HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in got
    assert got.endswith(b"\r\n\r\n0")


@pytest.mark.parametrize("path", ["/half", "/mute", "/bug", "/bad-head"])
def test_a_bug_ends_in_a_reset(server: RunningServer, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that was never finished does not look finished, and the next caller notices nothing."""
    with caplog.at_level(logging.CRITICAL, "chatgate.server"), server.connect() as connection:
        connection.sendall(request(path))
        assert ends_in_reset(connection)
    assert server.ask("/echo", b"fine") == (200, b"fine")


def test_bugs_are_logged_sparingly(start: Callable[..., RunningServer], caplog: pytest.LogCaptureFixture) -> None:
    """A flood of bugs leaves one line a second, with the traceback and the count of what was left out."""
    times = iter([*[1000.0] * 400, *[2000.0] * 4000])
    server = start(clock=lambda: next(times, 3000.0), header_seconds=1e9, idle_seconds=1e9)
    with caplog.at_level(logging.ERROR, "chatgate.server"):
        for _ in range(20):
            server.exchange(request("/bug"))
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].name == "chatgate.server"


def test_answering_twice_is_a_bug(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    """The first answer stands, the second is reported, and the connection ends."""
    with caplog.at_level(logging.CRITICAL, "chatgate.server"):
        got = server.exchange(request("/twice"))
    assert got.count(b"HTTP/1.1 ") == 1
    assert got.endswith(b"once")
