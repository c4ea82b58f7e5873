"""A disk that takes nothing: no call is made that cannot be written down, none is lost, and it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway
from fakes.ledger_load import CHAT, NO_ACCOUNTS, Load, configuration, judge
from fakes.site import Site, site
from fakes.upstream import FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

DISK_BYTES = 8 << 20
RECOVERY_SECONDS = 5.0

Trouble = Callable[[Site, Gateway], AbstractContextManager[None]]


@contextlib.contextmanager
def full(place: Site, _gateway: Gateway) -> Iterator[None]:
    """Fill the disk to its last byte while the block lasts."""
    file = place.data / "filling"
    with file.open("wb", buffering=0) as filling, contextlib.suppress(OSError):
        while filling.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        file.unlink()


@contextlib.contextmanager
def limited(_place: Site, gateway: Gateway) -> Iterator[None]:
    """Let the gateway write to no file while the block lasts; it hears that as an error, and not as a lack of room."""
    pid, kind = gateway.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory whose `data` is a small disk of its own."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", data], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here, which takes root: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", data], check=True)


@pytest.mark.usefixtures("disk")
async def test_a_full_disk(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Calls are refused before the upstream hears of them, until there is room."""
    await run(tmp_path, upstream, full)


async def test_a_disk_that_fails(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The same holds when writing fails for another reason."""
    await run(tmp_path, upstream, limited)


async def run(tmp_path: Path, upstream: FakeUpstream, trouble: Trouble) -> None:
    """Have load, trouble, and load again; then hold the ledger against what the upstream saw."""
    async with site(tmp_path, configuration(upstream)) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        gateway = await place.start()
        assert await place.folded(gateway) == []
        load = Load(random.Random(), upstream, key)
        await load.on(gateway, 40)
        tap = Tap(2)
        streaming = scripts.stream(scripts.text_events("one two", usage=True), tap=tap)
        upstream.on_model("other", streaming, scripts.provider)
        async with http.open_stream(gateway.port, CHAT, http.chat("Hi", "other", stream=True)) as stream:
            await stream.until(b"one")
            with trouble(place, gateway):
                await loaded_until_refused(load, gateway)
                seen, completed = len(upstream.calls), len(load.completed)
                for _ in range(5):
                    answer = await http.post_json(gateway.port, CHAT, http.chat("Hi", "call-0"), [http.bearer(key)])
                    assert (answer.status, answer.json()["error"]["message"]) == (503, NO_ACCOUNTS)
                    assert answer.header("retry-after")
                assert (await http.request(gateway.port, "GET", "/healthz")).status == 200
                # What was under way before goes on to its end.
                tap.let(20)
                assert http.events_of(await stream.rest())[-1] == b"[DONE]"
                # Time passes in which the disk is tried again, and nothing is let through.
                await asyncio.sleep(1.5)
                await load.on(gateway, 20)
                assert (len(upstream.calls), len(load.completed)) == (seen, completed)
            ended_at = time.monotonic()
            while (await http.post_json(gateway.port, CHAT, http.chat("Hi", "other"))).status != 200:
                assert time.monotonic() < ended_at + RECOVERY_SECONDS
                await asyncio.sleep(0.05)
        await load.on(gateway, 40)
        assert len(load.completed) > completed
        rows = await place.folded(gateway)
        assert judge(rows, load) == 0
        first, *_ = [row for row in rows if row.asked_model == "other"]
        assert (first.state, first.outcome, first.usage_source) == ("settled", "completed", "final")
        assert await gateway.metric("chatgate_ledger_lost_records") == 0
        assert (await place.audited()).open_calls == 0
        await place.stop(gateway)
        assert await place.rows() == rows


async def loaded_until_refused(load: Load, gateway: Gateway) -> None:
    """Call until the disk takes no more."""
    for _ in range(10):
        await load.on(gateway, 24)
        if load.refused[NO_ACCOUNTS]:
            return
    raise AssertionError(f"nothing was refused: {load.refused}")
