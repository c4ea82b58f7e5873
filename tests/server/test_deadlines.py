"""Who is slow is not waited for forever. The clock is moved, never waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

from server.running import Clock, RunningServer, answer, ends_in_reset, eventually, read_to_end, read_until, request

Start = Callable[..., RunningServer]


def pass_time(server: RunningServer, clock: Clock, seconds: float) -> None:
    """Let the server finish what it is at, move the clock, and let it look at that."""
    server.sweep()
    clock.now += seconds
    server.sweep()


def test_a_connection_that_never_speaks_is_closed(start: Start, clock: Clock) -> None:
    """Ten seconds without a byte after connecting are enough; there is nothing to answer."""
    server = start(clock=clock)
    with server.connect() as connection:
        assert eventually(lambda: server.server.connections == 1)
        pass_time(server, clock, 9.9)
        assert server.server.connections == 1
        pass_time(server, clock, 0.2)
        assert read_to_end(connection) == b""
    assert eventually(lambda: server.server.connections == 0)


def test_a_trickling_head_is_refused(start: Start, clock: Clock) -> None:
    """A head has ten seconds from its first byte, however busy the caller looks."""
    server = start(clock=clock)
    with server.connect() as connection:
        connection.sendall(b"GET /echo HTTP/1.1\r\n")
        assert eventually(lambda: server.server.connections == 1)
        time.sleep(0.05)
        for _ in range(10):
            connection.sendall(b"X-A: b\r\n")
            pass_time(server, clock, 0.99)
        pass_time(server, clock, 0.2)
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert server.gate.errors == [("request_timeout", {})]


def test_a_trickling_body_is_refused(start: Start, clock: Clock) -> None:
    """A body that brings next to nothing in thirty seconds is refused."""
    server = start(clock=clock)
    with server.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert eventually(lambda: len(server.gate.envelopes) == 1)
        pass_time(server, clock, 29)
        assert server.gate.errors == []
        pass_time(server, clock, 2)
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")
    assert server.gate.served == []


def test_a_large_body_earns_time(start: Start, clock: Clock) -> None:
    """Every 64 KiB of a body are good for another second."""
    server = start(clock=clock)
    with server.connect() as connection:
        connection.sendall(b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 20))
        connection.sendall(b"x" * (640 << 10))
        time.sleep(0.2)
        pass_time(server, clock, 39)
        assert server.gate.errors == []
        connection.sendall(b"x" * (384 << 10))
        assert answer(connection).read() == b"1048576"


def test_an_unwanted_body_has_a_deadline_too(start: Start, clock: Clock) -> None:
    """A caller who was refused and does not send the rest of the body is dropped."""
    server = start(clock=clock)
    with server.connect() as connection:
        connection.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert answer(connection).read() == b"refused"
        pass_time(server, clock, 31)
        assert read_to_end(connection) == b""


def test_an_idle_connection_is_closed(start: Start, clock: Clock) -> None:
    """Between two requests a connection may be silent for 75 seconds; an empty line does not count."""
    server = start(clock=clock)
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(request("/echo", b"abc"))
            assert answer(connection).read() == b"abc"
            pass_time(server, clock, 74)
        connection.sendall(b"\r\n")
        pass_time(server, clock, 2)
        assert read_to_end(connection) == b""
    assert server.gate.errors == []


def test_a_call_may_be_silent(start: Start, clock: Clock) -> None:
    """How long an answer may take is not the wire's business."""
    server = start(clock=clock)
    with server.connect() as connection:
        connection.sendall(request("/hold"))
        read_until(connection, b"here\n")
        pass_time(server, clock, 100_000)
        assert server.server.in_flight == 1


def test_a_reader_who_stands_still_is_dropped(start: Start, clock: Clock) -> None:
    """Sixty seconds in which nothing moved end the call of a caller who does not read."""
    server = start(clock=clock)
    with server.connect(receive_buffer_bytes=4096) as connection:
        connection.sendall(request("/flood"))
        _wait_for_standstill(server)
        pass_time(server, clock, 59)
        assert server.gate.left == []
        pass_time(server, clock, 2)
        assert eventually(lambda: server.gate.left == ["client left"])
        assert ends_in_reset(connection)
    assert server.server.connections == 0


def test_a_reader_who_only_crawls_is_kept(start: Start, clock: Clock) -> None:
    """A caller who reads little by little is slow, not gone."""
    server = start(clock=clock, write_buffer_bytes=4 << 20)
    with server.connect(receive_buffer_bytes=4096) as connection:
        connection.sendall(request("/flood"))
        _wait_for_standstill(server)
        for _ in range(3):
            got = 0
            while got < 512 << 10:
                got += len(connection.recv(65_536))
            time.sleep(0.05)
            pass_time(server, clock, 61)
            assert server.gate.left == []
        pass_time(server, clock, 61)
        pass_time(server, clock, 61)
        assert eventually(lambda: server.gate.left == ["client left"])


def _wait_for_standstill(server: RunningServer) -> None:
    seen = [-1]

    def stands_still() -> bool:
        time.sleep(0.1)
        seen.append(server.gate.flooded_bytes)
        return seen[-1] == seen[-2] > 0

    assert eventually(stands_still)


def test_a_caller_who_never_reads_a_whole_answer_is_dropped(start: Start, clock: Clock) -> None:
    """The same holds when the call is long over and only its answer waits."""
    server = start(clock=clock, body_bytes=32 << 20)
    with server.connect(receive_buffer_bytes=4096) as connection:
        connection.sendall(request("/echo", b"x" * (16 << 20)))
        assert eventually(lambda: server.server.in_flight == 0 and len(server.gate.served) == 1)
        time.sleep(0.1)
        pass_time(server, clock, 61)
        pass_time(server, clock, 61)
        assert eventually(lambda: server.server.connections == 0)
