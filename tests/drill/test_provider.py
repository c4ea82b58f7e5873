"""The provider of the drill: what it says on the wire, and what its log knows."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from chatgate.drill import faults
from chatgate.drill.answers import OTHER_WORDS, TEXT, WORDS
from chatgate.drill.caller import Received
from chatgate.drill.caller import _Call as Reading
from chatgate.drill.faults import Fault
from chatgate.drill.provider import KEY, Provider
from chatgate.drill.timing import Timing, short
from chatgate.vocabulary.upstreams import Timeouts

PACE = short(Timeouts(), 1.0)


def request(*, stream: bool, key: int = 1, **more: Any) -> bytes:
    """Return a call as the gateway sends it."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": stream, **more}
    body = json.dumps(asked).encode()
    shown = KEY.format(upstream=0, number=key)
    head = f"POST /drill-0/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shown}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(provider: Provider, sent: bytes) -> tuple[Received, bytes]:
    """Send a request and read strictly; return what was understood, and what came after it until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.ports["one"])
    received = Received()
    rest = b""
    try:
        async with asyncio.timeout(5):
            writer.write(sent)
            await Reading(received, None).read(reader)
            writer.write_eof()
            rest = await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        received.why = type(error).__name__
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return received, rest


def doing(fault: Fault, timing: Timing = PACE) -> Provider:
    """Return a provider with one upstream that does this with every call."""
    return Provider(["one"], lambda _attempt: fault(timing))


@pytest.mark.parametrize("fault", [faults.answer(), faults.odd_framing()])
async def test_a_good_stream_is_good(fault: Fault) -> None:
    """However it is framed, it says the whole text, and its usage when asked."""
    async with doing(fault) as provider:
        got, rest = await ask(provider, request(stream=True, stream_options={"include_usage": True}))
    assert (got.ending, got.text, got.model, got.has_usage, rest) == ("whole", TEXT, "m", True, b"")
    (attempt,) = provider.attempts
    assert (attempt.upstream, attempt.model, attempt.stream, attempt.ended, attempt.spoke) == (
        "one",
        "m",
        True,
        "answered",
        True,
    )


async def test_a_good_answer_is_good() -> None:
    """It says the whole text at once, and the log knows the key."""
    async with doing(faults.answer()) as provider:
        got, _ = await ask(provider, request(stream=False, key=3))
    assert (got.ending, got.text) == ("whole", TEXT)
    assert provider.attempts[0].key_number == 3


@pytest.mark.parametrize(("prefill", "words"), [(True, WORDS), (True, OTHER_WORDS), (False, WORDS)])
async def test_a_text_is_continued_where_it_can_be(*, prefill: bool, words: tuple[str, ...]) -> None:
    """What was said is not said again, and what cannot be continued is refused."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": " ".join(WORDS[:40])}]
    async with doing(faults.answer(words, prefill=prefill)) as provider:
        got, _ = await ask(provider, request(stream=True, messages=messages))
    if prefill and words is WORDS:
        assert got.text == TEXT.removeprefix(" ".join(WORDS[:40]))
    else:
        assert (got.status, got.code) == (400, "invalid_prefill")
    assert provider.attempts[0].prefill == " ".join(WORDS[:40])


CUTS = [(faults.then_cut, 40), (faults.then_reset, 40), (faults.then_cut_inside_a_character, 20)]


@pytest.mark.parametrize(("then", "count"), CUTS)
async def test_a_cut_is_a_cut_on_the_wire(then: Any, count: int) -> None:
    """The framing breaks off after exactly so many words."""
    async with doing(faults.begins(count, then, "cut")) as provider:
        got, _ = await ask(provider, request(stream=True))
    assert got.text == " ".join(WORDS[:count])
    assert got.why in {"IncompleteReadError", "ConnectionResetError"}
    assert provider.attempts[0].ended == "cut"


@pytest.mark.parametrize("then", [faults.then_end, faults.then_error])
async def test_an_end_that_is_none_is_framed_well(then: Any) -> None:
    """The body ends properly, and yet the answer is not whole."""
    async with doing(faults.begins(20, then, "ended")) as provider:
        got, _ = await ask(provider, request(stream=True))
    assert (got.ending, got.text) == ("broken", " ".join(WORDS[:20]))
    assert got.why in {"the stream ended with neither an error nor [DONE]", "[DONE] was said besides an error"}


async def test_the_log_knows_who_left_first() -> None:
    """A gateway that leaves ends the script at once; one that stays finds it still at work."""
    async with doing(faults.begins(20, faults.then_hang, "waited")) as provider:
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.ports["one"])
        writer.write(request(stream=True))
        async with asyncio.timeout(5):
            await reader.readuntil(b"tok19")
            assert len(provider.running) == 1
            writer.close()
            while provider.running:  # noqa: ASYNC110 - the other side of a socket tells nobody
                await asyncio.sleep(0.01)
        await writer.wait_closed()
    assert provider.attempts[0].ended == "left"


async def test_nobody_gets_in_where_it_is_shut() -> None:
    """A port that is shut refuses, as one where nobody listens."""
    async with Provider(["one", "two"], lambda _attempt: faults.answer()(PACE)) as provider:
        provider.shut("one")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", provider.ports["one"])
        provider.ports["one"] = provider.ports["two"]
        assert (await ask(provider, request(stream=False)))[0].ending == "whole"


async def test_a_request_that_is_misframed_is_seen() -> None:
    """Two lengths, or chunks, are not what a gateway should send."""
    async with doing(faults.answer()) as provider:
        bad = request(stream=False).replace(b"Host: x", b"Content-Length: 4\r\nHost: x")
        assert (await ask(provider, bad))[0].ending == "broken"
        assert len(provider.misframed) == 1
        assert provider.attempts == []
