"""Workers' links and the owner of their counters, over real sockets in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from chatgate.accounting.holds import Budget, Hold
from chatgate.admission.limits import NOTHING, Bound, Facts, Rule
from chatgate.counters.doorway import Doorway
from chatgate.counters.hosting import Host
from chatgate.counters.link import Link
from chatgate.counters.notes import Notes
from chatgate.counters.port import Taken
from chatgate.counters.shared import SharedCounters
from chatgate.vocabulary.errors import CallerError, Overloaded

PER_MINUTE = Rule(100, 60.0, "minute", ("global",))
ONE_AT_ONCE = (Rule(1, 0.0, "", ("key",), "in_flight"),)
KEY = Facts(7, "k1", "m")
BUDGETS = (Budget("key", "k1", "ever", 1_000),)
ACCOUNT = "key/k1/ever/1970-01-01"


class Rows:
    """The ledger of all workers: what is told to be spent is in the rows once they come up to a mark."""

    def __init__(self) -> None:
        """Begin with nothing; `is_down` makes readings impossible."""
        self.spent_in: dict[str, int] = {}
        self.is_down = False

    @contextlib.asynccontextmanager
    async def at_rest(self, mark: Callable[[], None]) -> AsyncIterator[None]:
        """Come up to the mark."""
        if self.is_down:
            raise OSError("down")
        mark()
        await asyncio.sleep(0)
        yield

    async def spent(self) -> tuple[Sequence[str], Mapping[str, int]]:
        """Tell."""
        return ["ever/1970-01-01"], dict(self.spent_in)


class House:
    """A doorway, an owner behind it, and workers."""

    def __init__(self) -> None:
        """Open the doorway only."""
        self.doorway = Doorway()
        self.notes = Notes()
        self.rows = Rows()
        self.links: list[Link] = []
        self.host: Host | None = None

    def open(self) -> Host:
        """Let an owner take its place."""
        self.host = Host(self.doorway, copy.deepcopy(self.notes))
        self.host.open()
        return self.host

    def kill(self) -> None:
        """End the owner."""
        assert self.host is not None
        self.host.close()
        self.host = None

    def worker(self, *rules: Rule) -> tuple[Link, SharedCounters]:
        """Start a worker whose configuration has these rules."""
        link = Link(self.doorway.connect)
        link.start(self.rows)
        self.links.append(link)
        return link, SharedCounters(link, rules)

    def close(self) -> None:
        """End all."""
        for link in self.links:
            link.close()
        if self.host is not None:
            self.host.close()
        self.doorway.close()
        self.notes.close()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Return a house that has no owner yet."""
    made = House()
    yield made
    made.close()
    await asyncio.sleep(0)


async def take(counters: SharedCounters, *arguments: Any) -> Taken:
    """Take a call, waiting for the answer."""
    taken = counters.take(*arguments)
    assert not isinstance(taken, Taken)
    return await taken


async def until(condition: Callable[[], object]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what others do has no event
            await asyncio.sleep(0.005)


async def test_several_workers_together_admit_exactly_the_limit(house: House) -> None:
    """Of eight hundred calls at once, through four connections."""
    house.open()
    workers = [house.worker(PER_MINUTE)[1] for _ in range(4)]
    taken = await asyncio.gather(*[take(each, Facts(7), NOTHING, ()) for _ in range(200) for each in workers])
    assert sum(each.standing.admitted for each in taken) == 100
    assert {each.standing.reached for each in taken if not each.standing.admitted} == {(PER_MINUTE,)}


async def test_several_workers_together_spend_no_more_than_the_budget(house: House) -> None:
    """What the rows had counts; what was set aside and not used is there again for others."""
    house.rows.spent_in[ACCOUNT] = 300
    house.open()
    links = [house.worker() for _ in range(4)]
    await asyncio.gather(*[link.is_loaded.wait() for link, _ in links])
    asked = [
        take(counters, KEY, Bound(1, 1, 20), (), f"c{number}-{turn}", BUDGETS)
        for turn in range(50)
        for number, (_, counters) in enumerate(links)
    ]
    taken = await asyncio.gather(*asked)
    held = [each.hold for each in taken if isinstance(each.hold, Hold)]
    assert len(held) == 35
    assert sum(len(link.purse) for link, _ in links) == 35
    for link, _ in links:
        for call_id in list(link.holds):
            assert link.purse.settle(call_id, 10)
            assert not link.purse.settle(call_id, 10)
    link, counters = links[0]
    # Another connection's settlements may come after this question.
    await until(lambda: house.host is not None and house.host.owner.holds.totals()[ACCOUNT] == (650, 0))
    last = await take(counters, KEY, Bound(1, 1, 350), (), "last", BUDGETS)
    assert isinstance(last.hold, Hold)


async def test_a_worker_that_ends_frees_its_slots_at_once(house: House) -> None:
    """Others have them then."""
    house.open()
    (dying, first), (_, second) = house.worker(), house.worker()
    assert (await take(first, KEY, NOTHING, ONE_AT_ONCE)).standing.admitted
    assert not (await take(second, KEY, NOTHING, ONE_AT_ONCE)).standing.admitted
    dying.close()
    await asyncio.sleep(0)
    assert (await take(second, KEY, NOTHING, ONE_AT_ONCE)).standing.admitted


async def test_what_is_taken_for_nobody_is_given_back(house: House) -> None:
    """Whether the answer is still on its way when the caller leaves, or has just come."""
    house.open()
    link, counters = house.worker()
    await link.is_loaded.wait()
    for turns in range(12):
        call_id = f"c{turns}"
        asking = asyncio.create_task(take(counters, KEY, Bound(1, 1, 900), ONE_AT_ONCE, call_id, BUDGETS))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            taken = await asking
            counters.settle(taken.receipt, NOTHING)
            link.purse.settle(call_id, 0)
    await until(lambda: not link.holds)
    taken = await take(counters, KEY, Bound(1, 1, 1_000), ONE_AT_ONCE, "last", BUDGETS)
    assert isinstance(taken.hold, Hold)
    assert taken.standing.admitted


async def test_without_rules_nobody_is_asked(house: House) -> None:
    """There is no owner, and nothing to await."""
    _, counters = house.worker(Rule(5, 1.0, "second", ("upstream",)))
    taken = counters.take(Facts(7), NOTHING, ())
    assert isinstance(taken, Taken)
    assert taken.standing.admitted
    assert counters.limit_attempts
    assert not counters.needs_bound(())


async def test_an_owner_that_is_away_is_waited_for_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Then its callers are told at once, until it says something; what it took for them meanwhile is given back."""
    link, counters = house.worker()
    waiting = [asyncio.create_task(take(counters, KEY, NOTHING, ONE_AT_ONCE)) for _ in range(3)]
    for each in waiting:
        with pytest.raises(Overloaded, match="counters_unavailable"):
            await each
    with pytest.raises(Overloaded):
        take(counters, KEY, NOTHING, ONE_AT_ONCE).send(None)  # It does not wait for anything.
    house.open()
    await link.is_loaded.wait()
    assert (await take(counters, KEY, NOTHING, ONE_AT_ONCE)).standing.admitted
    assert caplog.text.count("does not answer") == caplog.text.count("answers again") == 1


async def test_an_owner_that_was_held_up_hears_who_waited(house: House) -> None:
    """Nobody is taken for dead who has said something in the meantime."""
    now = 0.0
    house.host = host = Host(house.doorway, copy.deepcopy(house.notes), clock=lambda: now)
    host.open()
    link, counters = house.worker(PER_MINUTE)
    await link.is_loaded.wait()
    asking = asyncio.create_task(take(counters, Facts(7), NOTHING, ()))
    for _ in range(2):
        await asyncio.sleep(0)  # It is said then, and not heard yet.
    now = 100.0
    host.tick()
    assert (await asking).standing.admitted
    now = 200.0
    host.tick()
    await until(lambda: not link.is_loaded.is_set())
    await link.is_loaded.wait()
    assert (await take(counters, Facts(7), NOTHING, ())).standing.admitted


async def test_a_worker_that_ends_takes_no_part_in_readings(house: House) -> None:
    """None is possible until its journal is closed; then all is in the rows."""
    now = 0.0
    house.host = host = Host(house.doorway, copy.deepcopy(house.notes), clock=lambda: now)
    host.open()
    (ending, _), (staying, _) = house.worker(), house.worker()
    await asyncio.gather(ending.is_loaded.wait(), staying.is_loaded.wait())
    ending.decline()
    house.rows.spent_in[ACCOUNT] = 70
    staying.purse.learn({}, {})
    staying.purse.learn({}, {})
    await asyncio.sleep(0.1)
    assert host.owner.holds.totals() == {}
    ending.close()
    await asyncio.sleep(0.1)
    # A reading that was not possible is tried again in a second, by the clock.
    now += 2
    host.tick()
    await until(lambda: host.owner.holds.totals() == {ACCOUNT: (70, 0)})


async def test_another_owner_is_told_of_all_that_goes_on(house: House) -> None:
    """Rules, what is set aside, and what was taken of the limits before, which ends as it would have."""
    house.open()
    link, counters = house.worker(PER_MINUTE)
    await link.is_loaded.wait()
    before = await take(counters, KEY, Bound(1, 1, 600), ONE_AT_ONCE, "c1", BUDGETS)
    asking = asyncio.create_task(take(counters, KEY, NOTHING, ()))
    await asyncio.sleep(0)
    house.kill()
    with pytest.raises(Overloaded):
        await asking
    house.rows.spent_in[ACCOUNT] = 50
    host = house.open()
    await link.is_loaded.wait()
    assert host.owner.holds.totals() == {ACCOUNT: (50, 600)}
    assert (await take(counters, KEY, NOTHING, ())).standing.remaining == 98
    assert not (await take(counters, KEY, NOTHING, ONE_AT_ONCE)).standing.admitted
    counters.release(before.receipt)
    assert (await take(counters, KEY, NOTHING, ONE_AT_ONCE)).standing.remaining == 98
    link.purse.settle("c1", 100)
    await until(lambda: host.owner.holds.totals() == {ACCOUNT: (150, 0)})


async def test_another_configuration_goes_on_with_the_counts(house: House) -> None:
    """Calls of the one before count in the same place; what they took ends as it would have."""
    house.open()
    (link, before), (_, other) = house.worker(PER_MINUTE), house.worker(PER_MINUTE)
    taken = await take(before, Facts(7), NOTHING, ())
    after = SharedCounters(link, (Rule(50, 60.0, "minute", ("global",)),))
    assert (await take(after, Facts(7), NOTHING, ())).standing.remaining == 48
    assert (await take(other, Facts(7), NOTHING, ())).standing.remaining == 97
    before.release(taken.receipt)
    assert (await take(after, Facts(7), NOTHING, ())).standing.remaining == 47


async def test_money_is_refused_until_the_rows_can_be_read(house: House) -> None:
    """Limits go on meanwhile."""
    house.rows.is_down = True
    house.open()
    _, counters = house.worker(PER_MINUTE)
    with pytest.raises(Overloaded, match="accounting_unavailable"):
        await take(counters, KEY, Bound(1, 1, 1), (), "c1", BUDGETS)
    with pytest.raises(CallerError, match="price_unknown"):
        await take(counters, KEY, Bound(1, 1, None), (Rule(5, 1.0, "second", ("key",), "usd"),))
    assert (await take(counters, KEY, NOTHING, ())).standing.remaining == 99


async def test_what_cannot_be_understood_ends_one_connection(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """The others go on."""
    host = house.open()
    _, counters = house.worker(PER_MINUTE)
    with house.doorway.connect() as stranger:
        stranger.sendall(b"\x00\x00\x00\x03\xff\xff\xff")
        await until(lambda: "cannot be understood" in caplog.text)
    await until(lambda: len(host.owner.members) == 1)
    assert (await take(counters, Facts(7), NOTHING, ())).standing.admitted


async def test_more_than_the_kernel_takes_is_kept_until_it_does(house: House) -> None:
    """Nothing is lost or mixed up when the owner comes late: forty thousand settlements of nothing."""
    link, counters = house.worker(PER_MINUTE)
    for number in range(40_000):
        link.holds[f"c{number}"] = Hold(f"c{number}", 1, (ACCOUNT,))
        link.purse.settle(f"c{number}", 1)
        if number % 100 == 0:
            await asyncio.sleep(0)
    house.open()
    await link.is_loaded.wait()
    assert (await take(counters, Facts(7), NOTHING, ())).standing.remaining == 99
