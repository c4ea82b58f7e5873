"""Fixtures: servers to call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from chatgate.server import WireLimits
from server.running import Clock, RunningServer


@pytest.fixture
def clock() -> Clock:
    """Return a clock that only the test moves."""
    return Clock()


@pytest.fixture
def start() -> Iterator[Callable[..., RunningServer]]:
    """Return what starts a server with given limits; it is stopped after the test."""
    running: list[RunningServer] = []

    def start(*, clock: Callable[[], float] = time.monotonic, **limits: Any) -> RunningServer:
        running.append(RunningServer(WireLimits(**limits), clock))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningServer]:
    """Return a server with default limits for all tests of a module."""
    server = RunningServer(WireLimits(), time.monotonic)
    yield server
    server.stop()


@pytest.fixture
def server(shared: RunningServer) -> RunningServer:
    """Return the module's server, with a gateway that has forgotten the last test."""
    gate = shared.gate
    for memory in (gate.envelopes, gate.served, gate.errors, gate.left, gate.conversations):
        memory.clear()
    gate.repeated = gate.asked_again = 0
    return shared


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is tested without a server on both loops that the gateway may run on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
