"""Connecting: of several addresses the first that answers, whatever the others do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from chatgate.transport.sockets import SocketAddress, connect_first
from fakes.raw_server import RawServer, answer, answering

Address = tuple[socket.AddressFamily, SocketAddress]


@pytest.fixture
def deaf() -> Iterator[Address]:
    """Return an address whose connection attempts get no reply: its queue is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003 - the parameter has no name
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield socket.AF_INET, listener.getsockname()


@pytest.fixture
def refusing() -> Address:
    """Return an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.AF_INET, listener.getsockname()


async def test_addresses_that_fail_are_passed_over(deaf: Address, refusing: Address) -> None:
    """One that swallows packets costs its share of the time only, one that refuses costs none."""
    loop = asyncio.get_running_loop()
    async with RawServer(answering(answer(b""))) as server:
        good: Address = (socket.AF_INET, ("127.0.0.1", server.port))
        began = loop.time()
        sock = await connect_first([refusing, deaf, good], 0.4)
        assert sock.getpeername() == good[1]
        assert loop.time() - began >= 0.19
        sock.close()


async def test_no_address_answers(deaf: Address, refusing: Address) -> None:
    """The last failure is raised, and the caller's own deadline ends the last attempt."""
    with pytest.raises(ConnectionRefusedError):
        await connect_first([deaf, refusing], 0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await connect_first([refusing, deaf], 0.05)
    with pytest.raises(OSError, match="no address"):
        await connect_first([], 1)
