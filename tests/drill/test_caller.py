"""The drill's own caller: strict with every answer that is not whole."""

from __future__ import annotations

import json

import pytest

from chatgate.drill.caller import Received, call
from fakes import scripts
from fakes.raw_server import RawServer, answer, saying, silent_after

PIECES = [scripts.event(scripts.chunk({"content": word})) for word in ("one", " two")]
FAILURE = scripts.event(scripts.error_body("no more", "upstream_error"))
END = scripts.framed(b"")


def stream(*events: bytes, end: bytes = END) -> bytes:
    """Return a streamed answer."""
    return scripts.STREAM_HEAD + b"".join(scripts.framed(event) for event in events) + end


async def received(said: bytes) -> Received:
    """Call a server that says this and closes."""
    async with RawServer(saying(said)) as server:
        return await call("127.0.0.1", server.port, {"model": "m"}, limit_seconds=5)


BROKEN = [
    ("", b""),
    ("no end", stream(*PIECES, end=b"")),
    ("neither error nor mark", stream(*PIECES)),
    ("error and mark", stream(PIECES[0], FAILURE, scripts.DONE)),
    ("more after the mark", stream(PIECES[0], scripts.DONE, PIECES[1])),
    ("no JSON inside", stream(PIECES[0], b"data: {\n\n", scripts.DONE)),
    ("half a body", answer(b'{"choices": []}')[:-3]),
    ("no answer inside", answer(b'{"choices": []}')),
    ("no JSON", answer(b"<html>")),
    ("an error that says nothing", answer(b"{}", status=b"502 Bad Gateway")),
]


@pytest.mark.parametrize("said", [each[1] for each in BROKEN], ids=[each[0] for each in BROKEN])
async def test_what_is_neither_whole_nor_an_error_is_broken(said: bytes) -> None:
    """Nothing that ends badly is taken for an answer, nor for an error."""
    assert (await received(said)).ending == "broken"


async def test_a_whole_stream_is_whole() -> None:
    """The text, the model and the usage are read."""
    usage = scripts.event(scripts.chunk(None, usage={"completion_tokens": 2}))
    got = await received(stream(*PIECES, usage, scripts.DONE))
    assert (got.ending, got.status, got.text, got.model, got.has_usage) == (
        "whole",
        200,
        "one two",
        "gpt-fake-small",
        True,
    )


async def test_a_whole_body_is_whole() -> None:
    """The same without a stream."""
    got = await received(answer(json.dumps(scripts.completion("one two")).encode()))
    assert (got.ending, got.text, got.model, got.has_usage) == ("whole", "one two", "gpt-fake-small", True)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (stream(PIECES[0], FAILURE), "one"),
        (answer(json.dumps(scripts.error_body("no more", "upstream_error")).encode(), status=b"502 Bad"), ""),
    ],
)
async def test_an_error_is_read(said: bytes, text: str) -> None:
    """Errors inside a stream and as an answer are told by their code, and what was said before is kept."""
    got = await received(said)
    assert (got.ending, got.code, got.message, got.text) == ("error", "upstream_error", "no more", text)


async def test_silence_is_a_hang() -> None:
    """A call that does not end is given up after the limit."""
    async with RawServer(silent_after(stream(*PIECES, end=b""))) as server:
        got = await call("127.0.0.1", server.port, {}, limit_seconds=0.2)
        assert (got.ending, got.text) == ("hang", "one two")
        assert await server.open_count_becomes(0)


@pytest.mark.parametrize(("words", "text"), [(1, "one two"), (0, "")])
async def test_the_caller_can_leave(words: int, text: str) -> None:
    """It closes its connection after so many words, or before any."""
    async with RawServer(silent_after(stream(*PIECES, end=b""))) as server:
        got = await call("127.0.0.1", server.port, {}, limit_seconds=5, leave_after_words=words)
        assert got.ending == "left"
        assert text.startswith(got.text)
        assert await server.open_count_becomes(0)


async def test_nobody_there_is_broken() -> None:
    """A gateway that does not listen is no exception."""
    async with RawServer(saying(b"")) as server:
        port = server.port
    assert (await call("127.0.0.1", port, {}, limit_seconds=5)).ending == "broken"
