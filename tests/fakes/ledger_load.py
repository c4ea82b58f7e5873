"""Load whose every call can be found again: at the upstream, in the ledger, and in what its caller got.

It owns the callers, what the upstream says to each, and the judgement. Every call asks for a model of its own and says
its name, so that the upstream's log, which is the ground truth, can be held against the rows. Journeys of the ledger
call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from typing import Any

from fakes import fleet, scripts
from fakes import http_client as http
from fakes.gateway import Gateway
from fakes.scripts import Script
from fakes.site import Row
from fakes.upstream import Exchange, FakeUpstream

CHAT = "/v1/chat/completions"
AT_ONCE = 12
INPUT_TOKENS = 7
NANO_USD = 1_000
"""Of each token: a dollar for a million."""

NO_ACCOUNTS = (
    "The gateway cannot keep its accounts right now, and makes no calls without them. "
    "Please try again in a few seconds."
)
NO_KEYS = "The gateway cannot check keys right now, so yours may well be in order. Please try again in a few seconds."
"""What a caller is told whose call cannot be written down, and one whose key cannot be looked up."""

BUSY = "busy here"
"""What the upstream says in place of an answer now and then."""

_SENT = "loaded"
"""What every model is called at the upstream, so that one price will do."""


class Load:
    """What callers did, and what came of it.

    `completed` has, of each answer that came whole, its request id and how many words the upstream said, by the call's
    name. `refused` counts the calls that the gateway answered with an error of its own, by its message; `broken` those
    without an end.
    """

    def __init__(self, chance: random.Random, upstream: FakeUpstream, key: str) -> None:
        """Have this upstream answer all calls; most of them show the key, the others none."""
        self.upstream = upstream
        self.key = key
        self.asked = 0
        self.completed: dict[str, tuple[str, int]] = {}
        self.refused: Counter[str] = Counter()
        self.broken = 0
        self._chance = chance
        self._scripts: dict[str, list[Script]] = {}
        upstream.on_model(_SENT, self._answer)

    async def on(self, gateway: Gateway, calls: int) -> None:
        """Call the gateway from several callers at once: so many times, or until it is gone."""
        last = self.asked + calls

        async def caller() -> None:
            while self.asked < last and gateway.process.poll() is None:
                try:
                    await self.call(gateway)
                except ConnectionRefusedError:
                    return
                except (OSError, http.Truncated, asyncio.IncompleteReadError):
                    self.broken += 1

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))

    @contextlib.asynccontextmanager
    async def going_on(self, gateway: Gateway) -> AsyncIterator[None]:
        """Call the gateway from a few callers while the block lasts; every call has to be answered."""
        is_over = False

        async def caller() -> None:
            while not is_over:
                await self.call(gateway)
                await asyncio.sleep(0.02)

        callers = asyncio.gather(*(caller() for _ in range(4)))
        try:
            yield
        finally:
            is_over = True
            await callers

    async def has_completed(self, calls: int) -> None:
        """Return once so many answers came whole."""
        deadline = time.monotonic() + http.TIMEOUT_SECONDS
        while len(self.completed) < calls:
            assert time.monotonic() < deadline, f"{len(self.completed)} of {calls} answers came; {self.refused}"
            await asyncio.sleep(0.005)

    async def call(self, gateway: Gateway) -> None:
        """Make one call, whole or streamed; now and then the upstream is busy first."""
        name = f"call-{self.asked}"
        self.asked += 1
        words, stream = self._chance.randint(1, 12), self._chance.random() < 0.5
        fails = [scripts.whole(scripts.error_body(BUSY), 503)] * (self._chance.random() < 0.1)
        pauses = [self._chance.random() * 0.01 for _ in range(words)]
        self._scripts[name] = [*fails, _answering(words, pauses)]
        headers = [http.bearer(self.key)] if self._chance.random() < 0.7 else []
        answer = await http.post_json(gateway.port, CHAT, http.chat(name, name, stream=stream), headers)
        if answer.status == 200 and (not stream or answer.events()[-1] == b"[DONE]"):
            request_id = answer.header("x-request-id")
            assert request_id is not None
            self.completed[name] = request_id, words
        elif answer.status != 200:
            message = answer.json()["error"]["message"]
            if BUSY not in message:  # Else the retry budget was spent: the upstream's doing.
                self.refused[message] += 1

    async def _answer(self, exchange: Exchange) -> None:
        await self._scripts[_name(exchange.call.json())].pop(0)(exchange)


def _answering(words: int, pauses: list[float]) -> Script:
    """Say so many words with these pauses, whole or streamed, and their count."""
    text = " ".join(["word"] * words)

    async def script(exchange: Exchange) -> None:
        if not exchange.call.json().get("stream"):
            await asyncio.sleep(sum(pauses) / 2)
            await scripts.whole(scripts.completion(text))(exchange)
            return
        await exchange.send(scripts.STREAM_HEAD)
        for event, pause in zip(scripts.text_events(text, usage=True), [*pauses, 0, 0, 0], strict=True):
            await exchange.send(scripts.framed(event))
            await asyncio.sleep(pause)
        await exchange.send(scripts.framed(scripts.DONE) + scripts.framed(b""))

    return script


def _name(asked: dict[str, Any]) -> str:
    name: str = asked["messages"][0]["content"]
    return name


def configuration(upstream: FakeUpstream) -> str:
    """Return a configuration with the load's models, which have a price, and one more, `other`, which has none."""
    return (
        "[retry]\nmax_retries = 2\n"
        + fleet.upstream("a", upstream.base_url)
        + fleet.model("call-*", [fleet.target("a", _SENT)])
        + fleet.model("other", [fleet.target("a", "other")])
        + fleet.price(_SENT, 1, 1)
    )


def judge(rows: list[Row], load: Load) -> int:
    """Hold the ledger against what the upstream and the callers saw; return how many calls were interrupted.

    Rows and calls that are not the load's are left out.
    """
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.asked_model.startswith("call-"):
            by_name[row.asked_model].append(row)
    asked = [call.json() for call in load.upstream.calls]
    called = Counter(_name(each) for each in asked if each["model"] == _SENT)
    without_a_row = {name: calls for name, calls in called.items() if len(by_name[name]) < calls}
    assert not without_a_row
    for name, of_call in by_name.items():
        assert len({row.request_id for row in of_call}) <= 1, of_call
        assert sorted(row.attempt for row in of_call) == list(range(1, len(of_call) + 1)), of_call
        # Once the process is gone there may be one that was written down and never sent.
        assert len(of_call) - called[name] in ({0} if name in load.completed else {0, 1}), of_call
        assert sum(row.ends_call for row in of_call) == bool(of_call), of_call
        assert sum(row.state == "settled" for row in of_call) <= 1
    for name, (request_id, words) in load.completed.items():
        (end,) = (row for row in by_name[name] if row.ends_call)
        assert (end.request_id, end.state, end.outcome, end.status) == (request_id, "settled", "completed", 200)
        assert (end.usage_source, end.input_tokens, end.output_tokens) == ("final", INPUT_TOKENS, words)
        assert end.charged_nano_usd == (INPUT_TOKENS + words) * NANO_USD
    of_load = [row for of_call in by_name.values() for row in of_call]
    assert not [row for row in of_load if row.state == "dispatched"]
    interrupted = [row for row in of_load if row.ends_call and row.state != "settled"]
    # A call that died between two attempts ends with the one that failed.
    assert {row.state for row in interrupted} <= {"unknown", "failed"}
    reserved = {(row.request_id, row.key_id): row.reserved_nano_usd for row in of_load if row.attempt == 1}
    assert all(row.charged_nano_usd == reserved[row.request_id, row.key_id] for row in interrupted)
    assert all(row.charged_nano_usd > 0 for row in interrupted if row.key_id)
    return len(interrupted)
