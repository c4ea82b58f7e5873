"""What an operator settles about the ledger: how durable it is, how long rows stay, and when a copy may go back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from chatgate.storage import schema
from chatgate.storage.database import open_database
from fakes import http_client as http
from fakes.ledger_load import Load, configuration, judge
from fakes.site import Site, site
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PROGRAM = """
from chatgate.app import keeping
from chatgate.cli import main
keeping.FORGET_SECONDS, keeping.FORGET_CALLS = 0.1, 40
main()
"""
HASTY = ("-c", _PROGRAM)
"""The program as it is, but for that it looks for old calls soon, and takes a few at a time."""


async def test_records_that_outlive_the_power(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Each call waits for the disk, and kill -9 and SIGTERM lose as little as without."""
    config = '[ledger]\ndurability = "power"\n' + configuration(upstream)
    async with site(tmp_path, config) as place:
        load = Load(random.Random(), upstream, await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever"))
        gateway = await place.start()
        loading = asyncio.create_task(load.on(gateway, 300))
        await load.has_completed(60)
        place.kill(gateway)
        await loading
        gateway = await place.start()
        loading = asyncio.create_task(load.on(gateway, 300))
        await load.has_completed(120)
        gateway.stop()
        assert await gateway.ended() == 0
        await loading
        interrupted = judge(await place.rows(), load)
        assert interrupted > 0
        audit = await place.audited()
        assert (audit.open_calls, audit.quarantined, audit.unknown_calls) == (0, 0, interrupted)


async def test_old_rows_are_deleted_and_what_they_cost_stays(tmp_path: Path, upstream: FakeUpstream) -> None:
    """While others call, rows older than the operator wants go, and neither a budget nor the audit notices."""
    config = "[ledger]\nretention_days = 30\n" + configuration(upstream)
    async with site(tmp_path, config) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        load = Load(random.Random(), upstream, key)
        gateway = await place.start()
        await place.folded(gateway)
        await load.on(gateway, 60)
        await place.stop(gateway)
        assert len(load.completed) > 50
        old = {row.asked_model for row in await place.rows()}
        spent = await asyncio.to_thread(age, place, 31)
        assert spent > 0
        young = Load(random.Random(), upstream, key)
        young.asked = load.asked
        gateway = await place.start(HASTY)
        await place.folded(gateway)
        deadline = time.monotonic() + 20
        async with young.going_on(gateway):
            while old & {row.asked_model for row in await place.rows()}:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
        upstream.calls = [call for call in upstream.calls if call.json()["messages"][0]["content"] not in old]
        assert judge(await place.folded(gateway), young) == 0
        audit = await place.audited()
        assert (audit.calls, audit.open_calls) == (young.asked - load.asked, 0)
        assert await asyncio.to_thread(age, place, 0) > spent
        await place.stop(gateway)


def age(place: Site, days: int) -> int:
    """Make every row so many days older, and return what all accounts have spent."""
    rows, earlier = schema.attempts, timedelta(days=days)

    def work(connection: Connection) -> int:
        columns = (rows.c.request_id, rows.c.attempt, rows.c.dispatched_at, rows.c.settled_at)
        for request_id, attempt, dispatched_at, settled_at in connection.execute(select(*columns)).all():
            this = rows.update().where(rows.c.request_id == request_id, rows.c.attempt == attempt)
            connection.execute(this.values(dispatched_at=dispatched_at - earlier, settled_at=settled_at - earlier))
        spent: int = connection.execute(select(func.sum(schema.budgets.c.spent_nano_usd))).scalar_one()
        return spent

    database = open_database(None, place.data)
    try:
        return database.write(work)
    finally:
        database.close()


async def test_responses_are_deleted_when_their_time_is_over(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The next look takes those that have expired and leaves the others."""
    config = "[responses]\nstore_seconds = 3600\n" + configuration(upstream)
    key = http.bearer("sk-test-caller-7000")
    async with site(tmp_path, config) as place:
        gateway = await place.start()
        ids = []
        for text in ("Old", "New"):
            asked = {"model": "demo/echo", "input": text}
            ids.append((await http.post_json(gateway.port, "/v1/responses", asked, [key])).json()["id"])
        await place.stop(gateway)
        await asyncio.to_thread(expire, place, ids[0])
        gateway = await place.start(HASTY)
        deadline = time.monotonic() + 20
        while len(left := await asyncio.to_thread(responses_in, place)) > 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert [f"resp_{identity}" for identity in left] == ids[1:]
        shown = [(await http.request(gateway.port, "GET", f"/v1/responses/{each}", [key])).status for each in ids]
        assert shown == [404, 200]
        await place.stop(gateway)


def expire(place: Site, response_id: str) -> None:
    """Let a response's time be over."""
    rows = schema.responses
    this = rows.update().where(rows.c.id == response_id.removeprefix("resp_"))
    with contextlib.closing(open_database(None, place.data)) as database:
        database.write(lambda connection: connection.execute(this.values(expires_at=datetime(2000, 1, 1, tzinfo=UTC))))


def responses_in(place: Site) -> list[str]:
    """Return what is kept."""
    with contextlib.closing(open_database(None, place.data)) as database:
        return database.read(lambda connection: list(connection.execute(select(schema.responses.c.id)).scalars()))


async def test_a_copy_goes_back_only_when_no_gateway_runs(tmp_path: Path, upstream: FakeUpstream) -> None:
    """It is taken under load, refused while the gateway runs, and afterwards the ledger is as it was, and goes on."""
    async with site(tmp_path, configuration(upstream)) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        load = Load(random.Random(), upstream, key)
        gateway = await place.start()
        await load.on(gateway, 40)
        async with load.going_on(gateway):
            copy = (await place.command("backup", str(tmp_path / "copy.db"))).split()[-1]
            told = await place.command("restore", copy, exit_code=1)
            assert "the database is in use: stop the gateway first" in told
            await load.has_completed(len(load.completed) + 20)
        assert judge(await place.folded(gateway), load) == 0
        await place.stop(gateway)
        rows = await place.rows()

        await place.command("restore", copy)
        restored = await place.rows()
        assert {row.request_id for row in restored} < {row.request_id for row in rows}
        await place.audited()
        gateway = await place.start()
        await place.folded(gateway)
        again = Load(random.Random(), upstream, key)
        again.asked = load.asked
        await again.on(gateway, 40)
        assert len(again.completed) == 40
        folded = await place.folded(gateway)
        assert len({row.asked_model for row in folded} - {row.asked_model for row in rows}) == 40
        audit = await place.audited()
        assert audit.quarantined == 0
        usage = json.loads(await place.command("usage", "--json"))
        assert sum(group["calls"] for group in usage) == audit.calls
        await place.stop(gateway)
