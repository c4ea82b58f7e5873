"""A database that another program keeps locked: calls go on, keys are known, and the rows come afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import http_client as http
from fakes.ledger_load import CHAT, Load, configuration, judge
from fakes.site import Site, site
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOCKED_SECONDS = float(os.environ.get("CHATGATE_TEST_LOCKED_SECONDS", "6"))
"""Longer than the five seconds for which the gateway waits in patience."""

BEHIND = "The ledger's database cannot be written, the journal goes on"

BY_SQLITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
BY_TURN = """
import pathlib, sys
from chatgate.storage.database import open_database
def wait(connection):
    print("locked", flush=True)
    sys.stdin.read()
open_database(None, pathlib.Path(sys.argv[1]).parent).write(wait)
"""
"""A command of ours that holds its turn and does not come to an end."""

STOPPED = """
import os, pathlib, signal, sys
from chatgate.storage.database import open_database
def change(connection):
    connection.exec_driver_sql("UPDATE keys SET notes = 'half done'")
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    sys.stdin.read()
open_database(None, pathlib.Path(sys.argv[1]).parent).write(change)
"""
"""The same, stopped by the system between a change and its commit."""


@contextlib.contextmanager
def locked(place: Site, program: str) -> Iterator[None]:
    """Have another process lock the database while the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(place.data / "chatgate.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.send_signal(signal.SIGCONT)
        process.communicate()
    assert process.returncode == 0


async def test_calls_go_on_while_the_database_is_locked(tmp_path: Path) -> None:
    """No call is refused, a key that was never seen opens too, and every row is there soon after."""
    programs = {"by_sqlite": BY_SQLITE, "by_turn": BY_TURN, "stopped": STOPPED}
    for name in programs:
        (tmp_path / name).mkdir()
    # All take long and do next to nothing, so they are done at once.
    await asyncio.gather(*(lock(tmp_path / name, program) for name, program in programs.items()))


async def lock(directory: Path, program: str) -> None:
    """Have a gateway under load, lock its database for a while, and judge."""
    async with FakeUpstream() as upstream, site(directory, configuration(upstream)) as place:
        key = await place.make_key("loaded", "--budget-usd", "1000", "--per", "ever")
        unseen = await place.make_key("unseen")
        gateway = await place.start()
        assert await place.folded(gateway) == []
        load = Load(random.Random(), upstream, key)
        await load.on(gateway, 40)
        assert judge(await place.folded(gateway), load) == 0
        with locked(place, program):
            locked_at = time.monotonic()
            async with load.going_on(gateway):
                while BEHIND not in gateway.output() or time.monotonic() < locked_at + LOCKED_SECONDS:
                    assert time.monotonic() < locked_at + LOCKED_SECONDS + 10
                    await asyncio.sleep(0.1)
                question = http.chat("never seen before", "other")
                assert (await http.post_json(gateway.port, CHAT, question, [http.bearer(unseen)])).status == 200
            assert await gateway.metric("chatgate_ledger_waiting_bytes") > 0
            assert await gateway.metric("chatgate_ledger_lag_seconds") > LOCKED_SECONDS / 2
        assert not load.refused
        assert judge(await place.folded(gateway), load) == 0
        assert (await place.audited()).open_calls == 0
        assert await gateway.metric("chatgate_ledger_lost_records") == 0
        await place.stop(gateway)
