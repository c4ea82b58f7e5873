"""A thousand streams, each cut at a byte of its own: none is presented as whole that is not, and most are rescued."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import Surface
from fakes.upstream import Exchange, FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "Zwölf Boxkämpfer jagen — 零一二三 — Viktor 🚀 quer über den großen Sylter Deich, 12 an der Zahl."
MODELS = 250
"""Of two kinds each, so that no circuit sees enough failures in a row to open."""
AT_ONCE = 25
SURFACES: tuple[Surface, Surface] = ("openai", "plain")


class Cutting:
    """A script that streams an answer and cuts it somewhere, politely or not, in pieces of any length."""

    def __init__(self, chance: random.Random) -> None:
        """Take all that is random from `chance`."""
        self.chance = chance
        self.cuts: Counter[str] = Counter()

    async def __call__(self, exchange: Exchange) -> None:
        """Answer, until the cut."""
        events = [*scripts.told(TEXT, by="a", characters=self.chance.choice((0, 1, 5))), scripts.DONE]
        data = scripts.STREAM_HEAD + b"".join(map(scripts.framed, [*events, b""]))
        cut_at = self.chance.randrange(len(data))
        at = 0
        while at < cut_at:
            end = min(cut_at, at + self.chance.randint(1, 1500))
            await exchange.send(data[at:end])
            if self.chance.random() < 0.2:
                await asyncio.sleep(0.001)  # So that some of it is with the caller before the cut comes.
            at = end
        polite = self.chance.random() < 0.6
        self.cuts["closed" if polite else "reset"] += 1
        exchange.cut(reset=not polite)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway with many models, with a second target or without."""
    config = fleet.upstream("a", upstream_of_file.base_url) + fleet.upstream("b", other_of_file.base_url)
    for number in range(MODELS):
        targets = [fleet.target("a", f"m{number}"), fleet.target("b", f"m{number}", priority=1)]
        config += fleet.model(f"paired-{number}", targets)
        config += fleet.model(f"alone-{number}", [fleet.target("a", f"alone-{number}")])
    return await start_gateway({"ROUTE": "api"}, config)


@pytest.mark.parametrize(("kind", "calls_of_each", "share"), [("paired", 4, 0.95), ("alone", 1, 0.0)])
async def test_a_cut_stream_is_whole_or_says_that_it_is_not(
    gateway: Gateway, upstream: FakeUpstream, other_of_file: FakeUpstream, kind: str, calls_of_each: int, share: float
) -> None:
    """What is declared complete is the whole text; what is not is a beginning of it, with an error at its end."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    cutting = Cutting(chance)
    names = [f"{kind}-{number}" for number in range(MODELS)] * calls_of_each
    for number in range(MODELS):
        upstream.on_model(f"m{number}", cutting)
        upstream.on_model(f"alone-{number}", cutting)
        other_of_file.on_model(f"m{number}", scripts.telling(TEXT, by="b", characters=chance.randint(0, 9)))
    places = asyncio.Semaphore(AT_ONCE)

    async def call(name: str, surface: Surface) -> str:
        async with places:
            heard = await hearing.ask(gateway.port, (surface, True), "Say it", name)
        if heard.is_whole:
            assert heard.text == TEXT
            assert set(heard.ids) <= {"chatcmpl-a"} or set(heard.ids) == {"chatcmpl-b"}
            return "whole"
        assert heard.code == "upstream_error", heard.body
        assert TEXT.startswith(heard.text)
        return "broken"

    ends = await asyncio.gather(*(call(name, SURFACES[number % 2]) for number, name in enumerate(names)))
    assert min(cutting.cuts.values()) > len(names) / 5
    assert Counter(ends)["whole"] >= share * len(ends), Counter(ends)
    assert await gateway.metric("chatgate_upstream_calls_in_flight") == 0
    assert await gateway.metric("chatgate_calls_in_flight") == 0
