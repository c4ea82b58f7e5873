"""The ledger in PostgreSQL, whose server stops, freezes and comes back: calls go on, and no row is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fakes import http_client as http
from fakes.gateway import Gateway
from fakes.ledger_load import CHAT, NO_KEYS, Load, configuration, judge
from fakes.site import Site, site
from fakes.upstream import FakeUpstream
from storage.postgres_server import PostgresServer, programs

pytestmark = pytest.mark.asyncio(loop_scope="module")

KILLS = int(os.environ.get("CHATGATE_TEST_KILL_ROUNDS", "3"))
RECOVERY_SECONDS = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Run a server of this file's own, since it does not stay well."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(found)
    yield server
    server.remove()


@contextlib.asynccontextmanager
async def placed(directory: Path, server: PostgresServer, upstream: FakeUpstream) -> AsyncIterator[Site]:
    """Yield a site whose ledger is in a new database of the server."""
    url = server.url(await asyncio.to_thread(server.create))
    async with site(directory, configuration(upstream), {"CHATGATE_DATABASE_URL": url}) as place:
        yield place


async def test_kill_dash_nine_under_load(tmp_path: Path, server: PostgresServer, upstream: FakeUpstream) -> None:
    """As with SQLite: lost 0, duplicates 0, upstream calls without a row 0."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    async with placed(tmp_path, server, upstream) as place:
        load = Load(chance, upstream, await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever"))
        for _ in range(KILLS):
            gateway = await place.start()
            loading = asyncio.create_task(load.on(gateway, 60))
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            place.kill(gateway)
            await loading
        gateway = await place.start()
        rows = await place.folded(gateway)
        interrupted = judge(rows, load)
        audit = await place.audited()
        assert (audit.open_calls, audit.quarantined, audit.unknown_calls) == (0, 0, interrupted)
        await place.stop(gateway)
        assert await place.rows() == rows


async def stop_and_start(server: PostgresServer, away: Callable[[], Awaitable[None]]) -> None:
    """Stop the server as `pg_ctl stop -m immediate` does, and start it again."""
    await asyncio.to_thread(server.stop, signal.SIGQUIT)
    try:
        await away()
    finally:
        await asyncio.to_thread(server.start)


async def freeze(server: PostgresServer, away: Callable[[], Awaitable[None]]) -> None:
    """Stop every process of the server in its tracks, and let them go on."""
    frozen = await asyncio.to_thread(processes, server)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        await away()
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


def processes(server: PostgresServer) -> list[int]:
    """Return the ids of the server and of all that it started; the server comes first, so that none is added then."""
    with server.connect() as connection:
        (backend,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        first = _parent(backend)
    children = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _parent(int(path.name)) == first]
    return [first, *children]


def _parent(pid: int) -> int:
    """Return the id of a process's parent, 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[1])


@pytest.mark.parametrize("outage", [stop_and_start, freeze])
async def test_calls_go_on_while_the_server_is_away(
    tmp_path: Path,
    server: PostgresServer,
    upstream: FakeUpstream,
    outage: Callable[[PostgresServer, Callable[[], Awaitable[None]]], Awaitable[None]],
) -> None:
    """Keys that were seen go on working, others are told to come back, and all is well seconds after it is back."""
    async with placed(tmp_path, server, upstream) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        unseen = await place.make_key("unseen")
        gateway = await place.start()
        assert await place.folded(gateway) == []
        load = Load(random.Random(), upstream, key)
        await load.on(gateway, 40)

        async def away() -> None:
            completed = len(load.completed)
            answer = await ask(gateway, unseen)
            assert (answer.status, answer.json()["error"]["message"]) == (503, NO_KEYS)
            await load.has_completed(completed + 50)

        async with load.going_on(gateway):
            await outage(server, away)
            await recovered(gateway, unseen)
        assert not load.refused
        rows = await place.folded(gateway)
        assert judge(rows, load) == 0
        audit = await place.audited()
        assert (audit.open_calls, audit.quarantined, audit.unknown_calls) == (0, 0, 0)
        assert await gateway.metric("chatgate_ledger_lost_records") == 0
        await place.stop(gateway)


async def test_a_gateway_that_is_started_while_the_server_is_down(
    tmp_path: Path, server: PostgresServer, upstream: FakeUpstream
) -> None:
    """It starts, answers callers without a key, tells the others to come back, and knows them once the server is up."""
    async with placed(tmp_path, server, upstream) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        free = await place.make_key("free")
        await asyncio.to_thread(server.stop, signal.SIGQUIT)
        try:
            gateway = await place.start()
            assert (await ask(gateway)).status == 200
            answer = await ask(gateway, free)
            assert (answer.status, answer.json()["error"]["message"]) == (503, NO_KEYS)
        finally:
            await asyncio.to_thread(server.start)
        await recovered(gateway, free)
        await place.folded(gateway, RECOVERY_SECONDS)
        load = Load(random.Random(), upstream, key)
        await load.on(gateway, 40)
        assert len(load.completed) == 40
        rows = await place.folded(gateway)
        assert judge(rows, load) == 0
        assert [row.state for row in rows if row.asked_model == "other"] == ["settled"] * 2
        assert (await place.audited()).open_calls == 0
        await place.stop(gateway)


async def ask(gateway: Gateway, key: str = "") -> http.Response:
    """Make a call that is not of the load."""
    headers = [http.bearer(key)] if key else []
    return await http.post_json(gateway.port, CHAT, http.chat("Hi", "other"), headers)


async def recovered(gateway: Gateway, key: str) -> None:
    """Return once a key opens that could not be looked up before."""
    back_at = time.monotonic()
    while (await ask(gateway, key)).status != 200:
        assert time.monotonic() < back_at + RECOVERY_SECONDS
        await asyncio.sleep(0.05)
