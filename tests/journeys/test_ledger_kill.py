"""A gateway that is killed under load, again and again: the ledger knows every call of the upstream, each once."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from fakes.ledger_load import Load, configuration, judge
from fakes.site import site
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS = int(os.environ.get("CHATGATE_TEST_KILL_ROUNDS", "10"))
CALLS_PER_ROUND = 10_000
"""More than are made before the gateway is killed, however fast the machine is."""
PATIENCE = 0.999
"""How likely a round goes on waiting for its first answer, each hundredth of a second."""


async def test_kill_dash_nine_under_load(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Lost 0, duplicates 0, upstream calls without a row 0; what never ended is unknown, and counts at its most."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    async with site(tmp_path, configuration(upstream)) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        load = Load(chance, upstream, key)
        for _ in range(ROUNDS):
            gateway = await place.start()
            before = len(load.completed)
            loading = asyncio.create_task(load.on(gateway, CALLS_PER_ROUND))
            # The first call waits for prices, on a busy machine for as long as most rounds take.
            while chance.random() < PATIENCE and len(load.completed) == before and not loading.done():  # noqa: ASYNC110 - a load has no events
                await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            place.kill(gateway)
            await loading
        gateway = await place.start()
        rows = await place.folded(gateway)
        interrupted = judge(rows, load)
        assert len(load.completed) > ROUNDS
        assert interrupted >= ROUNDS / 2
        assert max(place.start_seconds) < 3
        audit = await place.audited()
        assert (audit.open_calls, audit.quarantined, audit.unknown_calls) == (0, 0, interrupted)
        await place.stop(gateway)
        assert await place.rows() == rows
