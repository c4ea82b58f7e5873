"""Two gateways on one data directory: what either of them wrote is in the ledger, whoever is started next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes import fleet, scripts
from fakes import http_client as http
from fakes.site import site
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
PRICE = """
[[prices]]
model = "m"
input_usd_per_million = 1000
output_usd_per_million = 1000
"""
COST_NANO_USD = 8 * 1_000_000
"""Of an answer of one word to a question of seven tokens."""


async def test_what_a_killed_one_wrote_is_folded_by_the_next_that_starts(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    """Its whole answer is settled, its broken one is unknown, and the budget knows of both."""
    config = fleet.upstream("a", upstream.base_url) + fleet.model("m", [{"upstream": "a"}]) + PRICE
    async with site(tmp_path, config) as place:
        key = [http.bearer(await place.make_key("k", "--budget-usd", "0.3", "--per", "ever"))]
        first, second = await place.start(), await place.start()
        # What budgets have spent is known a moment after the first call can be taken.
        await place.folded(second)
        question = {**http.chat("word", "m"), "max_tokens": 1}
        assert (await http.post_json(second.port, CHAT, question, key)).status == 200
        upstream.on_model("m", scripts.silent())
        broken = asyncio.create_task(http.post_json(second.port, CHAT, question, key))
        await upstream.called(2)
        place.kill(second)
        await asyncio.gather(broken, return_exceptions=True)
        await place.stop(first)

        only = await place.start()
        await only.logged("started")
        rows = await place.folded(only)
        assert [(row.state, row.ends_call) for row in rows] == [("settled", True), ("unknown", True)]
        settled, unknown = rows
        assert settled.charged_nano_usd == COST_NANO_USD
        assert unknown.charged_nano_usd == unknown.reserved_nano_usd > 0
        audit = await place.audited()
        assert (audit.calls, audit.open_calls, audit.unknown_calls) == (2, 0, 1)
        await place.stop(only)
