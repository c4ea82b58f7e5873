"""Two upstreams for each test of the attempts, and what calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from attempts.rig import Rig
from fakes.upstream import FakeUpstream


@pytest.fixture
async def first() -> AsyncIterator[FakeUpstream]:
    """Return an upstream."""
    async with FakeUpstream() as fake:
        yield fake


@pytest.fixture
async def second() -> AsyncIterator[FakeUpstream]:
    """Return another upstream."""
    async with FakeUpstream() as fake:
        yield fake


@pytest.fixture
async def make_rig() -> AsyncIterator[Callable[..., Rig]]:
    """Return what makes rigs; they are closed after the test, and nothing may be under way then."""
    rigs: list[Rig] = []

    def make_rig(*fakes: FakeUpstream, **settings: Any) -> Rig:
        rigs.append(Rig(*fakes, **settings))
        return rigs[-1]

    yield make_rig
    in_flight = [sum(rig.in_flight) for rig in rigs]
    for rig in rigs:
        await rig.close()
    assert in_flight == [0] * len(rigs)
