"""A disk that takes nothing: no call is made that cannot be written down, none is lost, and it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import shutil
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


class Image:
    """A disk that is a file, mounted as a directory."""

    def __init__(self, file: Path, directory: Path) -> None:
        """Make the disk, and mount it; skip where that is not possible."""
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("there is no mkfs.ext4 (Debian: apt-get install e2fsprogs)")
        self._file, self._directory = file, directory
        directory.mkdir(mode=0o700)
        with file.open("wb") as image:
            image.truncate(2 * DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", file], check=True)
        mounted = self._mount()
        if mounted.returncode:
            pytest.skip(f"a disk in a file cannot be mounted here, which takes root: {mounted.stderr.strip()}")
        if not self._switch.exists():
            self.remove()
            pytest.skip("this kernel does not let a disk fail on purpose")

    def fail(self) -> None:
        """Have the system find the disk broken, and so make it read-only under whoever writes to it."""
        self._switch.write_text("1")

    def repair(self) -> None:
        """Do what an operator does after that, once nobody uses it."""
        self.remove()
        subprocess.run(["e2fsck", "-fy", self._file], check=False, stdout=subprocess.DEVNULL)
        assert self._mount().returncode == 0

    def remove(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", self._directory], check=True)

    @property
    def _switch(self) -> Path:
        device = self._directory.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        return Path("/sys/fs/ext4") / name / "trigger_fs_error"

    def _mount(self) -> subprocess.CompletedProcess[str]:
        options = ["-o", "loop,errors=remount-ro"]
        return subprocess.run(
            ["mount", *options, self._file, self._directory], capture_output=True, text=True, check=False
        )


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """Return a disk that can break, whose directory is `data`."""
    made = Image(tmp_path / "disk.img", tmp_path / "data")
    yield made
    made.remove()


async def test_a_disk_that_becomes_read_only(tmp_path: Path, image: Image, upstream: FakeUpstream) -> None:
    """Calls are refused before the upstream hears of them, and what was told to callers is there after the repair.

    The system itself makes the disk read-only, under a gateway that has files open on it; with `durability = "power"`
    nothing that was told is only in the memory that such a disk loses.
    """
    async with site(tmp_path, '[ledger]\ndurability = "power"\n' + configuration(upstream)) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        gateway = await place.start()
        load = Load(random.Random(), upstream, key)
        await load.on(gateway, 40)
        image.fail()
        await loaded_until_refused(load, gateway)
        seen, completed = len(upstream.calls), len(load.completed)
        # Also after the disk was tried again.
        await asyncio.sleep(1.5)
        await load.on(gateway, 20)
        assert (len(upstream.calls), len(load.completed)) == (seen, completed)
        assert (await http.request(gateway.port, "GET", "/healthz")).status == 200
        assert await gateway.metric("chatgate_ledger_lost_records") == 0
        await place.stop(gateway)
        image.repair()
        gateway = await place.start()
        await load.on(gateway, 40)
        assert len(load.completed) > completed
        judge(await place.folded(gateway), load)
        await place.audited()
        await place.stop(gateway)


FAILING_SYNC = """
import os, pathlib
def sync(file, sync=os.fdatasync):
    if pathlib.Path("failing").exists():
        raise OSError(5, "Input/output error")
    sync(file)
os.fdatasync = sync
from chatgate.cli import main
main()
"""
"""The program as it is, on a system whose `fdatasync` fails while there is a file of this name."""


async def test_a_sync_that_fails(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Where records shall outlive the power, no call is made that the disk did not take; it ends by itself."""
    async with site(tmp_path, '[ledger]\ndurability = "power"\n' + configuration(upstream)) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        gateway = await place.start(("-c", FAILING_SYNC))
        load = Load(random.Random(), upstream, key)
        await load.on(gateway, 40)
        failing = tmp_path / "failing"
        failing.touch()
        # Calls that wait for the disk at this moment may be at the upstream already.
        await loaded_until_refused(load, gateway)
        seen, completed = len(upstream.calls), len(load.completed)
        await load.on(gateway, 20)
        assert (len(upstream.calls), len(load.completed)) == (seen, completed)
        failing.unlink()
        ended_at = time.monotonic()
        while (await http.post_json(gateway.port, CHAT, http.chat("Hi", "other"))).status != 200:
            assert time.monotonic() < ended_at + RECOVERY_SECONDS
            await asyncio.sleep(0.05)
        await load.on(gateway, 40)
        assert len(load.completed) > completed
        rows = await place.folded(gateway)
        judge(rows, load)
        assert await gateway.metric("chatgate_ledger_lost_records") == 0
        await place.audited()
        await place.stop(gateway)
        assert await place.rows() == rows


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
