"""A stream that breaks in the middle is gone on with when another target says the same, and ends honestly when not.

Every call has a model of its own with two upstreams. The first one says half of the answer, waits until the caller has
heard some of it, and breaks; what the second one says then is the case's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import NamedTuple

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import Heard, Surface
from fakes.scripts import Script
from fakes.upstream import Call, Exchange, FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "Zwölf Boxkämpfer jagen — 零一二三 — Viktor 🚀 quer über den großen Sylter Deich."
EVENTS = scripts.told(TEXT, by="a")
HALF = 6
"""So many events are half of the answer: the role and five words."""

SURFACES: list[Surface] = ["openai", "plain"]
AT_ONCE = 40
MELTED = scripts.event(scripts.error_body("the GPU melted", None, "server_error"))
LAST_WORD = EVENTS[HALF]
UMLAUT = EVENTS[1].index("ö".encode()) + 1

Break = Callable[[Tap], Script]
"""What the first upstream does, given the tap that is opened once the caller has heard something."""


def breaking(then: Script, *, said: list[bytes] = EVENTS[:HALF]) -> Break:
    """Say half, wait, and go on with a script."""
    return lambda tap: scripts.beginning(said, tap, then)


BREAKS: dict[str, Break] = {
    "closes": breaking(scripts.raw(b"", then="close")),
    "resets": breaking(scripts.raw(b"", then="reset")),
    "ends without a reason": breaking(scripts.raw(scripts.framed(b""))),
    "closes inside an event": breaking(scripts.raw(scripts.framed(LAST_WORD[:40]), then="close")),
    "ends inside an event": breaking(scripts.raw(scripts.framed(LAST_WORD[:40]) + scripts.framed(b""))),
    "closes inside a character": breaking(scripts.raw(scripts.framed(EVENTS[3][:UMLAUT]), then="close")),
    "closes inside a chunk": breaking(scripts.raw(scripts.framed(LAST_WORD)[:-20], then="close")),
    "closes before the end of an event": breaking(scripts.raw(scripts.framed(LAST_WORD[:-1]), then="close")),
    "falls silent": breaking(scripts.silent()),
    "falls silent inside an event": breaking(scripts.raw(scripts.framed(LAST_WORD[:40]), then="hang")),
    "sends only comments": breaking(scripts.raw(scripts.framed(b": one\n\n") * 3, then="hang")),
    "sends an error": breaking(scripts.raw(scripts.framed(MELTED), then="hang")),
    "sends an error and an end": breaking(
        scripts.raw(scripts.framed(MELTED) + scripts.framed(scripts.DONE) + scripts.framed(b""))
    ),
    "breaks its chunks": breaking(scripts.raw(b"zz\r\n", then="hang")),
    "sends an endless event": breaking(scripts.raw(scripts.framed(b"data: " + b"x" * (3 << 20)), then="hang")),
    "closes after a word that is all": breaking(scripts.raw(b"", then="close"), said=EVENTS[:-1]),
}
"""How a stream breaks that another target can go on with."""


class Outcome(NamedTuple):
    """What a caller heard, or what was wrong with it, and which calls came to the two upstreams."""

    name: str
    said: Heard | BaseException
    at_first: list[Call]
    at_second: list[Call]

    @property
    def heard(self) -> Heard:
        """Return the answer; raises what was wrong with it."""
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said


ELSEWHERE: dict[str, Script] = {
    "says the same": scripts.telling(TEXT, by="b"),
    "says the same in other pieces": scripts.telling(TEXT, by="b", characters=3),
    "says the same at once": scripts.telling(TEXT, by="b", characters=1000),
    "says the same and stops at the end": scripts.stream(scripts.told(TEXT, by="b"), end=b""),
    "says the same and closes at the end": scripts.stream(
        scripts.told(TEXT, by="b"), end=b"", close=False, then="close"
    ),
}
"""What the second upstream does so that the answer is whole."""

HOPELESS: dict[str, Script] = {
    "says something else": scripts.telling("An answer of another kind altogether.", by="b"),
    "differs late": scripts.telling(TEXT.replace("Sylter", "breiten").replace("jagen", "jagten"), by="b"),
    "says less": scripts.telling("Zwölf Boxkämpfer", by="b"),
    "says nothing": scripts.stream([]),
    "fails": scripts.whole(scripts.error_body("boom"), 500),
    "refuses": scripts.whole(scripts.error_body("no"), 400),
    "refuses the key": scripts.whole(scripts.error_body("no"), 401),
    "closes": scripts.raw(b"", then="close"),
    "is silent": scripts.silent(),
    "answers whole": scripts.whole(scripts.completion(TEXT)),
    "breaks at the same place": scripts.stream(EVENTS[:3], end=b"", close=False, then="close"),
    "breaks further on": scripts.stream(EVENTS[: HALF + 2], end=b"", close=False, then="close"),
    "falls silent on its way": scripts.stream(EVENTS[:3], end=b"", close=False, then="hang"),
    "sends an error": scripts.stream([MELTED]),
}
"""What the second upstream does so that nobody can go on."""

CASES: dict[str, tuple[Break, Script]] = {
    **{f"broke: {what}": (first, ELSEWHERE["says the same in other pieces"]) for what, first in BREAKS.items()},
    **{f"elsewhere: {what}": (BREAKS["closes"], second) for what, second in ELSEWHERE.items()},
    **{f"hopeless: {what}": (BREAKS["closes"], second) for what, second in HOPELESS.items()},
}


class Outcomes(NamedTuple):
    """The outcome of every case on both surfaces, and the gateway that was called."""

    gateway: Gateway
    of: dict[tuple[str, Surface], Outcome]
    other: FakeUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(
    upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway
) -> Outcomes:
    """Make every call, with a model of its own."""
    first, second = upstream_of_file, other_of_file
    keys = [(case, surface) for case in CASES for surface in SURFACES]
    names = [f"m{number}" for number in range(len(keys))]
    taps = [Tap() for _ in keys]
    config = fleet.QUICK + "[retry]\nmax_retries = 0\n"
    for (case, _), name, tap in zip(keys, names, taps, strict=True):
        begin, go_on = CASES[case]
        config += fleet.pair(name, first.base_url, second.base_url)
        first.on_model(f"{name}-a", begin(tap))
        second.on_model(f"{name}-b", go_on)
    gateway = await start_gateway({"ROUTE": "api"}, config)
    places = asyncio.Semaphore(AT_ONCE)

    async def call(surface: Surface, name: str, tap: Tap) -> Heard:
        async with places:
            return await hearing.ask(gateway.port, (surface, True), "Say it", name, on_words=tap.let)

    calls = [call(surface, name, tap) for (_, surface), name, tap in zip(keys, names, taps, strict=True)]
    said = await asyncio.gather(*calls, return_exceptions=True)
    found = {
        key: Outcome(name, each, first.calls_of(f"{name}-a"), second.calls_of(f"{name}-b"))
        for key, name, each in zip(keys, names, said, strict=True)
    }
    return Outcomes(gateway, found, second)


def check_whole(outcome: Outcome) -> None:
    """Check that an answer is whole, as one, and that both targets had a part in it."""
    heard = outcome.heard
    assert heard.is_whole, heard.body[-400:]
    assert heard.text == TEXT
    assert (heard.model, heard.attempts) == (f"{outcome.name}-a", "1")  # The head had left before it broke.
    assert heard.models[-1] == "gpt-b"
    assert heard.roles in ([], ["assistant"])
    assert heard.ids in ([], ["chatcmpl-a"])
    assert (len(outcome.at_first), len(outcome.at_second)) == (1, 1)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("what", BREAKS)
async def test_a_broken_stream_is_gone_on_with(outcomes: Outcomes, what: str, surface: Surface) -> None:
    """However it broke, the caller gets the whole text once, in one stream, with one end."""
    check_whole(outcomes.of[f"broke: {what}", surface])


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("what", ELSEWHERE)
async def test_the_same_text_in_any_pieces_goes_on(outcomes: Outcomes, what: str, surface: Surface) -> None:
    """The pieces need not be cut alike, and what goes on may lack its end mark."""
    check_whole(outcomes.of[f"elsewhere: {what}", surface])


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("what", HOPELESS)
async def test_a_stream_that_nobody_can_go_on_with_says_so(outcomes: Outcomes, what: str, surface: Surface) -> None:
    """What was said is the beginning of the answer; then comes an error, and no end mark."""
    heard = outcomes.of[f"hopeless: {what}", surface].heard
    assert not heard.is_whole
    assert b"[DONE]" not in heard.body
    assert b'"success"' not in heard.body
    assert heard.code == "upstream_error"
    assert heard.text
    assert TEXT.startswith(heard.text)


async def test_every_call_is_settled_as_it_ended(outcomes: Outcomes) -> None:
    """The log tells whole answers from broken ones, and who was tried last."""
    lines = {line["model"]: line for line in await outcomes.gateway.logged("call", len(outcomes.of))}
    assert len(lines) == len(outcomes.of)
    for (case, _), outcome in outcomes.of.items():
        line = lines[outcome.name]
        assert (line["attempts"], line["target"]) == (2, f"{outcome.name}-b/{outcome.name}-b"), case
        assert line["outcome"] == ("upstream_failed" if case.startswith("hopeless") else "completed"), case
        assert line["status"] == 200
    assert await outcomes.gateway.metric("chatgate_calls_in_flight") == 0
    assert await outcomes.gateway.metric("chatgate_upstream_calls_in_flight") == 0


PECULIAR: dict[str, list[bytes]] = {
    "no end mark": [*EVENTS],
    "CRLF": [event.replace(b"\n", b"\r\n") for event in [*EVENTS, scripts.DONE]],
    "CR": [event.replace(b"\n", b"\r") for event in [*EVENTS, scripts.DONE]],
    "comments": [piece for event in [*EVENTS, scripts.DONE] for piece in (b": ping\n\n", event)],
    "names and numbers": [b"event: chunk\nid: 7\nretry: 10\n" + event for event in EVENTS] + [scripts.DONE],
    "data in several lines": [
        *(event.replace(b', "choices"', b',\ndata: "choices"') for event in EVENTS),
        scripts.DONE,
    ],
    "a byte at a time": [bytes([byte]) for byte in b"".join([*EVENTS, scripts.DONE])],
    "all at once": [b"".join([*EVENTS, scripts.DONE])],
    "malformed events": [
        piece
        for event in [*EVENTS, scripts.DONE]
        for piece in (b"data: {\n\n", b'data: {"choices": [{"delta": {"con\n\n', b"data: \xff\n\n", event)
    ],
    "no space after the colon": [event.replace(b"data: ", b"data:") for event in [*EVENTS, scripts.DONE]],
    "a byte order mark": [b"\xef\xbb\xbf" + EVENTS[0], *EVENTS[1:], scripts.DONE],
    "words after the end": [*EVENTS, scripts.DONE, *EVENTS[1:3]],
    "no blank line at the end": [*EVENTS, scripts.DONE[:-1]],
}
"""What a provider may send that is whole, in its own way."""


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("what", PECULIAR)
async def test_a_peculiar_stream_is_whole(
    outcomes: Outcomes, upstream: FakeUpstream, what: str, surface: Surface
) -> None:
    """What the format allows, and what readers forgive, needs no rescue."""
    upstream.queue(scripts.stream(PECULIAR[what], end=b""))
    heard = await hearing.ask(outcomes.gateway.port, (surface, True), "Say it", "m0")
    assert heard.is_whole
    assert heard.text == TEXT
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("surface", SURFACES)
async def test_an_event_of_a_mebibyte_passes(outcomes: Outcomes, upstream: FakeUpstream, surface: Surface) -> None:
    """A long event is an event, in however many pieces it comes."""
    long = "Sylt " * (1 << 18)
    event = b"".join(scripts.told(long, by="a", characters=len(long)))
    pieces = [event[at : at + 50_000] for at in range(0, len(event), 50_000)]
    upstream.queue(scripts.stream(pieces))
    heard = await hearing.ask(outcomes.gateway.port, (surface, True), "Say it", "m0")
    assert heard.is_whole
    assert heard.text == long
    assert len(upstream.calls) == 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lone(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway with one target for each model, which is tried twice more."""
    config = fleet.QUICK
    for name in ("thrice", "too-often", "silent", "usage"):
        config += fleet.upstream(name, upstream_of_file.base_url) + fleet.model(name, [fleet.target(name, name)])
    return await start_gateway({"ROUTE": "api"}, config)


def said_until(number: int) -> Script:
    """Say so many events, and close."""
    return scripts.stream(EVENTS[:number], end=b"", close=False, then="close")


@pytest.mark.parametrize("surface", SURFACES)
async def test_the_same_target_may_go_on_after_itself(lone: Gateway, upstream: FakeUpstream, surface: Surface) -> None:
    """A target that breaks again and again is rescued as often as it may be tried, wherever it breaks."""
    tap = Tap()
    upstream.on_model("thrice", BREAKS["closes"](tap), said_until(3), scripts.telling(TEXT, by="b", characters=5))
    heard = await hearing.ask(lone.port, (surface, True), "Say it", "thrice", on_words=tap.let)
    assert heard.is_whole
    assert heard.text == TEXT
    assert len(upstream.calls) == 3


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_target_is_not_tried_more_often_than_it_may_be(
    lone: Gateway, upstream: FakeUpstream, surface: Surface
) -> None:
    """When it has broken once too often, what it had said is not presented as all."""
    tap = Tap()
    upstream.on_model("too-often", BREAKS["closes"](tap), said_until(8), said_until(5), scripts.telling(TEXT))
    heard = await hearing.ask(lone.port, (surface, True), "Say it", "too-often", on_words=tap.let)
    assert heard.code == "upstream_error"
    assert TEXT.startswith(heard.text)
    assert len(upstream.calls) == 3


async def test_a_target_that_fell_silent_is_not_tried_again(lone: Gateway, upstream: FakeUpstream) -> None:
    """Whoever was silent once would keep the caller waiting again."""
    tap = Tap()
    upstream.on_model("silent", BREAKS["falls silent"](tap), scripts.telling(TEXT))
    heard = await hearing.ask(lone.port, ("openai", True), "Say it", "silent", on_words=tap.let)
    assert heard.code == "upstream_timeout"
    assert len(upstream.calls) == 1


async def test_the_usage_is_that_of_who_ended_the_answer(lone: Gateway, upstream: FakeUpstream) -> None:
    """The count that the last target made of the whole answer is in the log, and reaches a caller who wants it."""
    tap = Tap()
    upstream.on_model("usage", BREAKS["closes"](tap), scripts.telling(TEXT, by="b", characters=5))
    heard = await hearing.ask(
        lone.port,
        ("openai", True),
        "Say it",
        "usage",
        on_words=tap.let,
        stream_options={"include_usage": True},
    )
    pieces = -(-len(TEXT) // 5)
    assert heard.is_whole
    assert heard.usage is not None
    assert heard.usage["completion_tokens"] == pieces
    (line,) = await lone.logged("call", model="usage")
    assert (line["input_tokens"], line["output_tokens"], line["attempts"]) == (7, pieces, 2)


async def pinging(exchange: Exchange) -> None:
    """Send comments for longer than anybody should wait, then the whole answer."""
    await exchange.send(scripts.STREAM_HEAD)
    for _ in range(20):
        await exchange.send(scripts.framed(b": ping\n\n"))
        await asyncio.sleep(0.2)  # The gateway's own clock decides; here is nothing to move.
    await exchange.send(b"".join(scripts.framed(event) for event in [*scripts.told(TEXT, by="b"), scripts.DONE, b""]))


async def test_comments_do_not_keep_a_rescue_waiting(outcomes: Outcomes, upstream: FakeUpstream) -> None:
    """A target that sends nothing else when it should go on is as silent as one that sends nothing."""
    tap = Tap()
    upstream.queue(BREAKS["closes"](tap))
    other = outcomes.other
    other.queue(pinging)
    heard = await hearing.ask(outcomes.gateway.port, ("openai", True), "Say it", "m0", on_words=tap.let)
    assert heard.code == "upstream_error"
    assert (await other.last_call()).ended == "gateway_left"


async def test_nothing_is_gone_on_with_when_the_operator_does_not_want_it(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """With `recovery = "error"` a stream that breaks ends with an error, though another target is there."""
    config = fleet.QUICK + '[retry]\nrecovery = "error"\n' + fleet.pair("m", upstream.base_url, upstream.base_url)
    gateway = await start_gateway({"ROUTE": "api"}, config)
    for surface in SURFACES:
        tap = Tap()
        upstream.forget()
        upstream.on_model("m-a", BREAKS["closes"](tap))
        heard = await hearing.ask(gateway.port, (surface, True), "Say it", "m", on_words=tap.let)
        assert heard.code == "upstream_error"
        assert heard.text
        assert TEXT.startswith(heard.text)
        assert len(upstream.calls) == 1


ALL = ("assistant_last", "prefix", "partial", "continue_final_message")
WITH_PREFIX = {
    "assistant_last": {},
    "prefix": {"prefix": True},
    "partial": {"partial": True},
    "continue_final_message": {},
}
WITH_FLAGS = {"continue_final_message": {"continue_final_message": True, "add_generation_prompt": False}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def continuing(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway whose second upstreams can continue an answer, each in its way."""
    config = fleet.QUICK + "[retry]\nmax_retries = 0\n"
    url = upstream_of_file.base_url
    for way in ALL:
        config += fleet.upstream(f"{way}-a", url) + fleet.upstream(f"{way}-b", url, continuation=way)
        targets = [fleet.target(f"{way}-a", f"{way}-a"), fleet.target(f"{way}-b", f"{way}-b", priority=1)]
        config += fleet.model(way, targets)
    return await start_gateway({"ROUTE": "api"}, config)


async def rescued(gateway: Gateway, upstream: FakeUpstream, surface: Surface, way: str, *second: Script) -> Heard:
    """Call; the first target breaks after half of the answer, the second one does what is given here."""
    tap = Tap()
    upstream.on_model(f"{way}-a", BREAKS["closes"](tap))
    upstream.on_model(f"{way}-b", *second)
    return await hearing.ask(gateway.port, (surface, True), "Say it", way, on_words=tap.let)


SAID = "".join(json.loads(event[6:])["choices"][0]["delta"]["content"] for event in EVENTS[:HALF])


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("repeats", [False, True], ids=["goes on", "repeats"])
@pytest.mark.parametrize("way", ALL)
async def test_a_provider_that_can_continue_is_given_what_was_said(
    continuing: Gateway, upstream: FakeUpstream, way: str, surface: Surface, *, repeats: bool
) -> None:
    """It gets the text so far as the assistant's, and may go on after it or repeat it first."""
    answer = scripts.telling(TEXT if repeats else TEXT[len(SAID) :], by="b", characters=4)
    heard = await rescued(continuing, upstream, surface, way, answer)
    assert heard.is_whole
    assert heard.text == TEXT
    _, call = upstream.calls
    asked = call.json()
    assert [message["role"] for message in asked["messages"]] == ["user", "assistant"]
    assert asked["messages"][1] == {"role": "assistant", "content": SAID, **WITH_PREFIX[way]}
    assert {name: asked.get(name) for name in WITH_FLAGS["continue_final_message"]} == WITH_FLAGS.get(
        way, dict.fromkeys(WITH_FLAGS["continue_final_message"])
    )


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_provider_that_refuses_to_continue_is_asked_anew(
    continuing: Gateway, upstream: FakeUpstream, surface: Surface
) -> None:
    """A refused prefill costs a call, not the answer: the same target gets the question as the caller put it."""
    refusal = scripts.whole(scripts.error_body("prefilling is not supported"), 400)
    heard = await rescued(continuing, upstream, surface, ALL[0], refusal, scripts.telling(TEXT, by="b"))
    assert heard.is_whole
    assert heard.text == TEXT
    first, refused, anew = upstream.calls
    assert len(refused.json()["messages"]) == 2
    assert anew.json()["messages"] == first.json()["messages"]
    assert await continuing.logged("call", model=ALL[0], surface=surface, attempts=3, outcome="completed")


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_continuation_that_is_another_answer_is_not_passed_on(
    continuing: Gateway, upstream: FakeUpstream, surface: Surface
) -> None:
    """A provider that begins anew with other words has not continued."""
    other = scripts.telling(SAID[:26] + " and then something else entirely.", by="b", characters=4)
    heard = await rescued(continuing, upstream, surface, ALL[0], other)
    assert heard.code == "upstream_error"
    assert heard.text == SAID
