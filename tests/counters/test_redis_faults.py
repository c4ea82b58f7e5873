"""A store that freezes, dies, forgets and loses its callers, while three processes spend from one budget."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from chatgate.accounting.holds import Budget, Hold, Refusal
from chatgate.admission.limits import Bound, Facts
from chatgate.counters.fleet import Fleet
from chatgate.counters.money import SharedMoney
from chatgate.counters.port import Taken
from chatgate.counters.redis import RedisCounters
from chatgate.vocabulary.errors import Overloaded
from storage.redis.redis_server import RedisServer

SECONDS = float(os.environ.get("CHATGATE_TEST_FAULT_SECONDS", "5"))
BUDGET = Budget("key", "k", "ever", 10**12, 0)
CALLERS = 10
MOST = 1000
"""What a call can cost, in nano-USD."""


class Process:
    """One of them: its part of the ledger, which is late, and callers who begin calls, leave, and end calls."""

    def __init__(self, server: RedisServer, rows: dict[str, int], chance: random.Random) -> None:
        """`rows` are what the database has of all processes: what calls cost, by their id."""
        self._rows = rows
        self._chance = chance
        self.settled: dict[str, int] = {}
        self.refused = 0
        self.fleet = Fleet(server.address, time.monotonic, lambda _: None)
        self.money = SharedMoney(self.fleet, self, time.monotonic)
        self._counters = RedisCounters((), self.fleet, self.money, time.monotonic_ns)

    async def stored(self, mark: Callable[[], None]) -> None:
        """Bring the rows up to a moment, some time later."""
        await self._pause(0.05)
        mark()
        ended = dict(self.settled)
        await self._pause(0.05)
        self._rows |= ended

    async def spent_without(self, accounts: Sequence[str], call_ids: Sequence[str]) -> Mapping[str, int]:
        """Tell what the rows say, some time later."""
        await self._pause(0.01)
        spent = sum(cost for call_id, cost in self._rows.items() if call_id not in call_ids)
        await self._pause(0.01)
        return dict.fromkeys(accounts, spent)

    async def reserve(self, call_id: str, nano_usd: int) -> Hold | Refusal | None:
        """Begin a call."""
        taking = self._counters.take(Facts(1, "k"), Bound(0, 0, nano_usd), (), call_id, (BUDGET,))
        return (await cast("asyncio.Future[Taken]", taking)).hold

    async def call(self, name: str, end: float) -> None:
        """Make calls until a time, one after another."""
        for number in range(10**6):
            if time.monotonic() > end:
                return
            call_id, amount = f"{name}-{number}", self._chance.randrange(MOST)
            asking = asyncio.create_task(self.reserve(call_id, amount))
            if self._chance.random() < 0.05:
                await self._pause(0.002)
                asking.cancel()
            try:
                assert isinstance(await asking, Hold)
            except asyncio.CancelledError:
                continue
            except Overloaded:
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            await self._pause(0.05)
            cost = self._chance.randrange(amount + 1)
            assert self.money.settle(call_id, cost)
            self.settled[call_id] = cost

    async def known(self) -> None:
        """Return once it can reserve."""
        async with asyncio.timeout(20):
            while not self.money.is_known:  # noqa: ASYNC110 - as a caller would find out
                await asyncio.sleep(0.02)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(self._chance.random() * seconds)


async def fault(server: RedisServer, processes: Sequence[Process], chance: random.Random) -> None:
    """Do something to the store, or to the way there."""
    kind = chance.choice(("freeze", "die", "forget", "forget scripts", "cut"))
    if kind == "freeze":
        server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.02, 1.5))
        server.send_signal(signal.SIGCONT)
    elif kind == "die":
        server.kill()
        await asyncio.sleep(chance.uniform(0, 0.6))
        await asyncio.to_thread(server.start)
    elif kind == "cut":
        chance.choice(processes).fleet.lose("cut by the test")
    else:
        await asyncio.to_thread(server.ask, "FLUSHALL" if kind == "forget" else "SCRIPT FLUSH")


async def test_no_fault_of_the_store_loses_or_invents_money() -> None:
    """When all is calm again, the store says to the digit what the calls cost, and nothing is held."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    server = RedisServer()
    rows: dict[str, int] = {}
    processes = [Process(server, rows, chance) for _ in range(3)]
    try:
        for process in processes:
            process.fleet.start()
            await process.known()
        end = time.monotonic() + SECONDS
        names = [
            (process, f"{number}-{caller}") for number, process in enumerate(processes) for caller in range(CALLERS)
        ]
        calling = asyncio.gather(*[process.call(name, end) for process, name in names])
        while time.monotonic() < end:
            await asyncio.sleep(chance.uniform(0.1, 1))
            await fault(server, processes, chance)
        await calling
        costs = [cost for process in processes for cost in process.settled.values()]
        assert len(costs) > CALLERS * SECONDS
        # What nobody could confirm while the store was away is told again until it is.
        spent, deadline = await probed(processes), time.monotonic() + 20
        while spent != sum(costs) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            spent = await probed(processes)
        assert spent == sum(costs)
    finally:
        for process in processes:
            await process.money.close()
            await process.fleet.close()
        server.remove()


async def probed(processes: Sequence[Process]) -> int | None:
    """Return what is spent and held of the budget, None while that cannot be told."""
    for process in processes:
        await process.known()
    try:
        refused = await processes[0].reserve("probe", 10**13)
    except Overloaded:
        return None
    assert isinstance(refused, Refusal)
    return BUDGET.limit_nano_usd - refused.reached[0].remaining_nano_usd
