"""SIGTERM under load: what the gateway took on ends, and the ledger has all of it when the process is gone."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from fakes.ledger_load import Load, configuration, judge
from fakes.site import site
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = 600


@pytest.mark.parametrize("patient", [True, False], ids=["drained", "told_twice"])
async def test_sigterm_under_load_loses_nothing(tmp_path: Path, upstream: FakeUpstream, *, patient: bool) -> None:
    """Every call is settled, none unknown, whether those under way are waited for or not."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    async with site(tmp_path, configuration(upstream)) as place:
        load = Load(chance, upstream, await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever"))
        gateway = await place.start()
        loading = asyncio.create_task(load.on(gateway, CALLS))
        await load.has_completed(chance.randint(1, CALLS // 4))
        if patient:
            gateway.stop()
        else:
            await gateway.stop_now()
        assert await gateway.ended() == 0
        await loading
        rows = await place.rows()
        assert judge(rows, load) == 0
        assert {row.outcome for row in rows if row.ends_call} <= {"completed", "refused", "client_left"}
        audit = await place.audited()
        assert (audit.open_calls, audit.quarantined, audit.unknown_calls) == (0, 0, 0)
