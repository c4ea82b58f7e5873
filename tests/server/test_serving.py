"""The server as a whole: how many it takes, how it goes down, and what happens when descriptors run out."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatgate.server import Server
from chatgate.server.limits import FEWEST_CONNECTIONS, connection_cap
from server.running import RunningServer, answer, ends_in_reset, eventually, read_to_end, read_until, request

Start = Callable[..., RunningServer]


def test_too_many_connections_are_told_so(start: Start) -> None:
    """Above the cap a caller gets 503 and the end, and room is there again as soon as somebody leaves."""
    server = start(max_connections=3)
    assert server.server.max_connections == 3
    with contextlib.ExitStack() as stack:
        inside = [stack.enter_context(server.connect()) for _ in range(3)]
        assert eventually(lambda: server.server.connections == 3)
        assert server.exchange(b"").startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert server.gate.errors == [("overloaded", {})]
        inside[0].sendall(request("/echo", b"abc"))
        assert answer(inside[0]).read() == b"abc"
    assert eventually(lambda: server.server.connections == 0)
    assert server.ask("/echo", b"abc") == (200, b"abc")


def test_far_too_many_connections_are_just_closed(start: Start) -> None:
    """Even telling so is bounded."""
    server = start(max_connections=2)
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            with contextlib.suppress(ConnectionError):
                stack.enter_context(server.connect())
        assert eventually(lambda: len(server.gate.errors) == 64)
        assert eventually(lambda: server.server.connections <= 2 + 64)


def test_the_cap_leaves_descriptors_for_upstreams() -> None:
    """Never more than a bit under half of what the process may open, and never none."""
    affordable = connection_cap(None)
    assert affordable >= FEWEST_CONNECTIONS
    assert connection_cap(1 << 30) == affordable
    assert connection_cap(5) == 5


def test_a_taken_port_is_an_error(server: RunningServer) -> None:
    """Whoever starts the server learns that the address is taken."""
    with pytest.raises(OSError, match="in use"):
        server.run(server.server.start(*server.address))


def test_workers_can_share_a_port(server: RunningServer) -> None:
    """Servers that all agree to it listen on one port."""

    async def share() -> list[tuple[str, int]]:
        workers = [Server(server.gate) for _ in range(2)]
        first = await workers[0].start("127.0.0.1", 0, reuse_port=True)
        second = await workers[1].start(*first, reuse_port=True)
        for worker in workers:
            await worker.drain(0, listener_grace_seconds=0)
        return [first, second]

    first, second = server.run(share())
    assert first == second


def test_a_drain_closes_idle_connections_and_ends_others_after_their_answer(start: Start) -> None:
    """While it drains, the listener stays open for a moment, and every answer closes its connection."""
    server = start()
    with server.connect() as idle, server.connect() as busy:
        for connection in (idle, busy):
            connection.sendall(request("/echo", b"abc"))
            assert answer(connection).read() == b"abc"
        busy.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        assert eventually(lambda: len(server.gate.envelopes) == 3)
        drained = server.begin(server.server.drain(5, listener_grace_seconds=0.5))
        assert read_to_end(idle) == b""
        assert server.server.draining
        assert b"\r\nConnection: close\r\n" in server.exchange(request("/echo"))
        busy.sendall(b"def")
        got = read_to_end(busy)
        assert b"\r\nConnection: close\r\n" in got
        assert got.endswith(b"def")
        drained()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert server.server.connections == 0


def test_a_drain_lets_calls_end_their_answers(start: Start) -> None:
    """A call that outlives the grace is cancelled as draining, and may say so before the end."""
    server = start()
    with server.connect() as connection:
        connection.sendall(request("/hold"))
        read_until(connection, b"here\n")
        drained = server.begin(server.server.drain(0.1, listener_grace_seconds=0))
        data = read_to_end(connection)
        assert data.endswith(b"9\r\ndraining\n\r\n0\r\n\r\n")
        drained()
    assert server.gate.left == ["draining"]
    assert server.server.in_flight == 0


def test_a_drain_ends_calls_that_do_not_end(start: Start) -> None:
    """A call that does not finish its answer is cut off so that nobody takes it for finished."""
    server = start()
    with server.connect() as connection:
        connection.sendall(request("/stubborn"))
        read_until(connection, b"here\n")
        drained = server.begin(server.server.drain(0, listener_grace_seconds=0))
        assert ends_in_reset(connection)
        drained()
    assert server.gate.left == ["draining"]
    assert server.server.connections == 0


def test_a_second_drain_hurries_the_first(start: Start) -> None:
    """An operator who asks twice does not wait for the grace of the first time."""
    server = start()
    with server.connect() as connection:
        connection.sendall(request("/hold"))
        read_until(connection, b"here\n")
        drained = server.begin(server.server.drain(3600, listener_grace_seconds=3600))
        assert eventually(lambda: server.server.draining)
        server.run(server.server.drain(0, listener_grace_seconds=0))
        drained()
        assert server.server.connections == 0


STARVED = """
import asyncio, resource, sys
sys.path.insert(0, sys.argv[1])
import uvloop
from fakes.gate import FakeGate
from chatgate.server import Server, WireLimits

async def main():
    server = Server(FakeGate(), WireLimits())
    server._state.max_connections = 10_000
    address = await server.start("127.0.0.1", 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
    print(address[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(usage.ru_utime + usage.ru_stime, flush=True)

uvloop.run(main())
"""


def test_running_out_of_descriptors_neither_spins_nor_floods_the_log() -> None:
    """With no descriptor left new callers wait or are dropped, quietly, and all is well once there are some again."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", STARVED, str(Path(__file__).parents[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        contextlib.ExitStack() as stack,
    ):
        assert process.stdout is not None
        port = int(process.stdout.readline())
        flood = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(100)]
        for connection in flood:
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                connection.connect(("127.0.0.1", port))
        flood[0].sendall(request("/echo", b"inside"))
        assert answer(flood[0]).read() == b"inside"
        # A server that spins at accept would burn the whole of this second.
        with contextlib.suppress(TimeoutError):
            flood[1].settimeout(1.0)
            flood[1].recv(1)
        for connection in flood:
            connection.close()

        def is_well() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(request("/echo", b"again"))
                return answer(connection).read() == b"again"
            return False

        assert eventually(is_well)
        out, err = process.communicate("\n", timeout=10)
    assert len(err) < 10_000
    assert float(out.splitlines()[-1]) < 1.0
