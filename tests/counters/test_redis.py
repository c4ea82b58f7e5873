"""Processes that count together in a real store: what they see of each other, and what is left when it goes away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import cast

import pytest

from chatgate.accounting.holds import Budget, Hold, Refusal
from chatgate.admission.limits import NOTHING, Bound, Facts, Rule, Standing
from chatgate.admission.rules import rule_of
from chatgate.counters.fleet import Fleet
from chatgate.counters.money import SharedMoney
from chatgate.counters.port import Taken
from chatgate.counters.redis import RedisCounters
from chatgate.vocabulary.errors import Overloaded
from storage.redis.redis_server import RedisServer

RULES = (rule_of(10, "minute", ("global",), "requests"), rule_of(100, "minute", ("key",), "tokens"))
SLOTS = (rule_of(2, "", ("global",), "in_flight"),)
WHO = Facts(1, "k")
BUDGET = Budget("key", "k", "ever", 100, 80)
ACCOUNT = "key/k/ever/1970-01-01"


class Ledger:
    """What the database says is spent; `trouble` is raised while there is any."""

    def __init__(self) -> None:
        """Begin with nothing spent."""
        self.spent: dict[str, int] = {}
        self.trouble: Exception | None = None
        self.asked: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    async def stored(self, mark: Callable[[], None]) -> None:
        """Have it all."""
        mark()
        if self.trouble is not None:
            raise self.trouble

    async def spent_without(self, accounts: Sequence[str], call_ids: Sequence[str]) -> Mapping[str, int]:
        """Tell; the calls are taken out of the sums by whoever sets them."""
        self.asked.append((tuple(accounts), tuple(call_ids)))
        if self.trouble is not None:
            raise self.trouble
        return {account: self.spent[account] for account in accounts if account in self.spent}


class Process:
    """A process that counts: everything that a gateway has for it."""

    def __init__(self, server: RedisServer, ledger: Ledger, rules: Sequence[Rule] = RULES) -> None:
        """Build the parts; `changes` has what the operator would read."""
        self.changes: list[str] = []
        self.fleet = Fleet(server.address, time.monotonic, self.changes.append)
        self.money = SharedMoney(self.fleet, ledger, time.monotonic)
        self.counters = RedisCounters(rules, self.fleet, self.money, time.monotonic_ns)

    async def ready(self) -> Process:
        """Return once it counts in the store, limits and money."""
        async with asyncio.timeout(10):
            while not (self.fleet.is_ready and self.money.is_known):  # noqa: ASYNC110 - as a caller would find out
                await asyncio.sleep(0.01)
        return self

    async def lost(self) -> None:
        """Return once it knows that there is no store."""
        async with asyncio.timeout(10):
            while self.fleet.is_ready:  # noqa: ASYNC110 - as a caller would find out
                await asyncio.sleep(0.01)

    async def take(self, tokens: int = 0, facts: Facts = WHO) -> Taken:
        """Take a call that no budget counts."""
        return await awaited(self.counters.take(facts, Bound(tokens, 0, 0), ()))

    async def reserve(self, call_id: str, nano_usd: int) -> Hold | Refusal:
        """Take a call that a budget counts."""
        taken = await awaited(self.counters.take(WHO, Bound(0, 0, nano_usd), (), call_id, (BUDGET,)))
        assert taken.hold is not None
        return taken.hold

    async def left(self) -> int:
        """Return how much a budget has left, by what it would let through."""
        probe = RedisCounters((), self.fleet, self.money, time.monotonic_ns)
        taken = await awaited(probe.take(WHO, Bound(0, 0, 10**6), (), "probe", (BUDGET,)))
        assert isinstance(taken.hold, Refusal)
        (standing,) = taken.hold.reached
        return standing.remaining_nano_usd


async def awaited(taking: object) -> Taken:
    """Return what was taken, whether at once or not."""
    return taking if isinstance(taking, Taken) else await cast("asyncio.Future[Taken]", taking)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Run a store for each test."""
    made = RedisServer()
    yield made
    made.remove()


@pytest.fixture
def ledger() -> Ledger:
    """Return the database of all processes."""
    return Ledger()


@pytest.fixture
async def start(server: RedisServer, ledger: Ledger) -> AsyncIterator[Callable[..., Process]]:
    """Return what starts processes."""
    async with AsyncExitStack() as stack:

        def begin(rules: Sequence[Rule] = RULES) -> Process:
            process = Process(server, ledger, rules)
            stack.push_async_callback(process.fleet.close)
            stack.push_async_callback(process.money.close)
            process.fleet.start()
            return process

        yield begin


async def test_processes_count_together(start: Callable[..., Process]) -> None:
    """Calls and tokens of either count for both; what is given back is free for both."""
    first, second = await start().ready(), await start().ready()
    taken = [await process.take(tokens=30) for process in (first, second, first)]
    refused = await second.take(tokens=30)
    assert [each.standing.admitted for each in (*taken, refused)] == [True, True, True, False]
    assert refused.standing.tokens is not None
    assert (refused.standing.tokens.remaining, refused.standing.remaining) == (10, 7)
    assert 59 < refused.standing.retry_after_seconds <= 60
    first.counters.settle(taken[0].receipt, Bound(5, 0, 0))
    first.counters.release(taken[2].receipt)
    first.counters.settle(taken[0].receipt, NOTHING)
    found = (await first.take(tokens=1)).standing
    assert found.tokens is not None
    assert (found.tokens.remaining, found.remaining) == (100 - 5 - 30 - 1, 7)
    stands = await cast("asyncio.Future[Standing]", second.counters.standing(WHO, ()))
    assert (stands.remaining, stands.is_degraded) == (7, False)


async def test_without_a_rule_nobody_is_asked(start: Callable[..., Process]) -> None:
    """It answers at once, also while there is no store."""
    process = start(())
    assert isinstance(process.counters.take(WHO, NOTHING, ()), Taken)
    assert isinstance(process.counters.take_attempt(WHO, NOTHING), Taken)
    assert isinstance(process.counters.standing(WHO, ()), Standing)


async def test_what_is_taken_for_who_has_left_is_given_back(start: Callable[..., Process]) -> None:
    """Calls that are cancelled while they wait for the store leave nothing behind: no slot, no token and no money."""
    process = await start((*RULES, *SLOTS)).ready()
    assert isinstance(await process.reserve("first", 0), Hold)
    waiting = [asyncio.ensure_future(process.take(tokens=9)), asyncio.ensure_future(process.reserve("left", 60))]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*waiting, return_exceptions=True)
    )
    # The first answer finds nobody, and so something is given back before the second.
    await process.fleet.renew()
    await process.fleet.renew()
    assert await process.left() == 100
    taken = await process.take(tokens=100)
    assert taken.standing.admitted
    assert (taken.standing.remaining, list(process.fleet.slots.values())) == (8, [2])


async def test_money_is_held_for_all_and_settled_once(start: Callable[..., Process], ledger: Ledger) -> None:
    """What the ledger says is brought once; a hold of either is one for both."""
    ledger.spent = {ACCOUNT: 30}
    first, second = await start().ready(), await start().ready()
    hold = await first.reserve("c1", 45)
    assert isinstance(hold, Hold)
    assert (hold.accounts, hold.amount_nano_usd, hold.warnings) == ((ACCOUNT,), 45, ())
    refused = await second.reserve("c2", 26)
    assert isinstance(refused, Refusal)
    assert (refused.reached[0].spent_nano_usd, refused.reached[0].held_nano_usd, refused.retry_at) == (30, 45, None)
    warned = await second.reserve("c3", 25)
    assert isinstance(warned, Hold)
    assert warned.warnings == (BUDGET,)
    assert (first.money.settle("c1", 5), first.money.settle("c1", 5), second.money.release("c3")) == (True, False, True)
    await first.take()
    assert await second.left() == 65
    assert [accounts for accounts, _ in ledger.asked] == [(ACCOUNT,)]
    assert (len(first.money), len(second.money)) == (0, 0)


async def test_money_is_refused_while_the_ledger_cannot_tell(start: Callable[..., Process], ledger: Ledger) -> None:
    """It never begins at nothing. As soon as the ledger can be read, the next call goes through."""
    process = await start().ready()
    ledger.trouble, ledger.spent = OSError("away"), {ACCOUNT: 99}
    with pytest.raises(Overloaded, match="accounting_unavailable"):
        await process.reserve("c1", 1)
    ledger.trouble = None
    assert isinstance(await process.reserve("c2", 1), Hold)
    assert await process.left() == 0


async def test_a_frozen_store(start: Callable[..., Process], server: RedisServer) -> None:
    """Whoever waits then waits a tenth of a second. Each process has its half, and says so; money is refused."""
    first, second = await start().ready(), await start().ready()
    while (first.fleet.processes, second.fleet.processes) != (2, 2):  # noqa: ASYNC110 - heard of with a renewal
        await asyncio.sleep(0.05)
    await first.take()
    server.send_signal(signal.SIGSTOP)
    began_at = time.monotonic()
    taken = await asyncio.gather(*[first.take() for _ in range(4)])
    assert time.monotonic() - began_at < 1
    assert not isinstance(first.counters.take(WHO, NOTHING, ()), asyncio.Future)
    taken += [await first.take() for _ in range(2)]
    assert [each.standing.admitted for each in taken] == [True, True, True, True, False, False]
    assert {(each.standing.limit, each.standing.is_degraded) for each in taken} == {(5, True)}
    first.counters.release(taken[0].receipt)
    assert (await first.take()).standing.admitted
    with pytest.raises(Overloaded, match="accounting_unavailable"):
        await first.reserve("c1", 1)
    server.send_signal(signal.SIGCONT)
    await first.ready()
    found = await first.take()
    assert (found.standing.limit, found.standing.is_degraded) == (10, False)
    await second.ready()
    assert first.changes == ["the server does not answer", ""]


async def test_a_call_whose_answer_never_came_holds_nothing(start: Callable[..., Process], server: RedisServer) -> None:
    """The store may have set its money aside when it went on; that is taken back."""
    process = await start((*RULES, *SLOTS)).ready()
    assert isinstance(await process.reserve("first", 10), Hold)
    server.send_signal(signal.SIGSTOP)
    with pytest.raises(Overloaded):
        await process.reserve("lost", 50)
    server.send_signal(signal.SIGCONT)
    await process.ready()
    assert await process.left() == 90
    # Of its slots one is in use: the other is free for one call.
    assert [(await process.take()).standing.admitted for _ in range(2)] == [True, False]


async def test_what_ends_while_the_store_is_away_is_told_when_it_is_back(
    start: Callable[..., Process], server: RedisServer
) -> None:
    """Money, tokens and slots."""
    process = await start((*RULES, *SLOTS)).ready()
    taken = await process.take(tokens=90)
    await process.reserve("c1", 60)
    server.send_signal(signal.SIGSTOP)
    with pytest.raises(Overloaded):
        await process.reserve("c2", 1)
    process.counters.settle(taken.receipt, Bound(10, 0, 0))
    process.money.settle("c1", 7)
    server.send_signal(signal.SIGCONT)
    await process.ready()
    assert await process.left() == 93
    assert (await process.take(tokens=90)).standing.admitted


async def test_a_store_that_has_forgotten_is_told_of_what_is_under_way(
    start: Callable[..., Process], server: RedisServer, ledger: Ledger
) -> None:
    """Calls in flight and money that is held; what was spent comes from the ledger, and windows begin anew."""
    first, second = await start((*RULES, *SLOTS)).ready(), await start((*RULES, *SLOTS)).ready()
    for process, call_id in ((first, "c1"), (second, "c2")):
        assert isinstance(await process.reserve(call_id, 20), Hold)
    assert not (await first.take()).standing.admitted
    await first.fleet.renew()
    server.kill()
    ledger.spent = {ACCOUNT: 33}
    await first.lost()
    await second.lost()
    server.start()
    assert await (await first.ready()).left() == 100 - 33 - 40
    assert sorted(ledger.asked[-1][1]) == ["c1", "c2"]
    await second.ready()
    assert not (await second.take()).standing.admitted
    second.money.settle("c2", 1)
    await second.take()
    assert await first.left() == 100 - 33 - 20 - 1
    assert (await first.take()).standing.remaining == 10


async def test_an_emptied_store_is_noticed(start: Callable[..., Process], server: RedisServer, ledger: Ledger) -> None:
    """Somebody flushed it under a connection that goes on: nobody spends what the ledger knows of."""
    process = await start().ready()
    await process.reserve("c1", 20)
    ledger.spent = {ACCOUNT: 70}
    server.ask("FLUSHALL")
    with pytest.raises(Overloaded):
        await process.reserve("c2", 20)
    assert await (await process.ready()).left() == 10


async def test_a_process_that_ends_is_gone_at_once(start: Callable[..., Process]) -> None:
    """It counts no more among those who share the limits."""
    first, second = await start().ready(), await start().ready()
    assert len((await first.fleet.renew()).alive) == 2
    await second.money.close()
    await second.fleet.close()
    assert (await first.fleet.renew()).alive == {first.fleet.process}


async def test_a_store_that_is_not_there_at_the_start(server: RedisServer, start: Callable[..., Process]) -> None:
    """Limits hold in part from the first call on, and wholly as soon as it comes."""
    server.kill()
    process = start()
    await process.fleet.first_try.wait()
    assert (await process.take()).standing.is_degraded
    server.start()
    await process.ready()
    assert not (await process.take()).standing.is_degraded
    assert len(process.changes) == 2
