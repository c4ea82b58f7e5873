"""What the transport's tests share: both event loops, a clock that is moved by hand, and a transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from chatgate.transport import Transport
from fakes.outbound import HandClock


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test of this folder on both loops that the gateway may run on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def clock() -> HandClock:
    """Return a clock that the test moves."""
    return HandClock()


@pytest.fixture
async def transport(clock: HandClock) -> AsyncIterator[Transport]:
    """Return a transport whose clock stands still, and check that nothing of it stays."""
    transport = Transport(clock=clock)
    yield transport
    await transport.close()
    assert transport.open_connections == 0
    assert transport.calls_in_flight == 0
