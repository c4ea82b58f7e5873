"""The answers of upstreams that speak Anthropic's protocol, as everything behind them reads answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from chatgate.protocols.anthropic.upstream import Messages
from chatgate.protocols.sse import MAX_EVENT_BYTES
from chatgate.providers.translating import TranslatingSender
from chatgate.vocabulary.errors import UpstreamError
from chatgate.vocabulary.exchange import OutboundRequest, PassOn, Verdict
from chatgate.vocabulary.upstreams import Origin, Timeouts
from fakes import messages

TEXT = messages.text_block("One two three.")
LIMIT = 1 << 20


class Told:
    """An answer in memory."""

    def __init__(self, status: int, pieces: list[bytes]) -> None:
        """Take its pieces."""
        self.status = status
        self.headers: Mapping[bytes, bytes] = {b"content-type": b"x"}
        self.whole: bytes | None = None
        self.pieces = pieces
        self.ends: list[str] = []

    async def read(self, limit_bytes: int) -> bytes:
        """Return all of it."""
        assert limit_bytes == LIMIT
        return b"".join(self.pieces)

    async def next_chunk(self) -> bytes:
        """Return the next piece."""
        return self.pieces.pop(0) if self.pieces else b""

    async def forward(
        self,
        take: Callable[[bytes], Verdict],
        pass_on: PassOn | None = None,  # noqa: ARG002 - as an answer has it
    ) -> bool:
        """Hand over pieces until no more are wanted."""
        while self.pieces:
            if take(self.pieces.pop(0)) is Verdict.STOP:
                return False
        return True

    def release(self) -> None:
        """Note it."""
        self.ends.append("released")

    def close(self) -> None:
        """Note it."""
        self.ends.append("closed")


class Wire:
    """A sender that answers one thing."""

    def __init__(self, answer: Told) -> None:
        """Take the answer."""
        self.answer = answer

    async def send(self, request: OutboundRequest, may_repeat: object = None) -> Told:  # noqa: ARG002 - a port's method
        """Answer."""
        return self.answer


def request(*, is_native: bool = False) -> OutboundRequest:
    """Return a request."""
    return OutboundRequest(Origin("http", "up.invalid", 80), b"", b"", Timeouts(), is_native)


def sender(answer: Told) -> TranslatingSender:
    """Return what sends through a wire with this answer."""
    return TranslatingSender(Wire(answer), Messages(lambda: 1.7e9, drops_parts=False))


async def test_a_whole_answer_is_read_as_openais() -> None:
    """With the time at which it came."""
    answer = await sender(Told(200, [json.dumps(messages.message(TEXT)).encode()])).send(request())
    body = json.loads(await answer.read(LIMIT))
    assert (body["object"], body["created"]) == ("chat.completion", 1_700_000_000)
    assert (answer.status, answer.headers) == (200, {b"content-type": b"x"})


async def test_a_native_answer_stays_unless_it_is_a_refusal() -> None:
    """Refusals are judged in one place, in one shape."""
    told = Told(200, [b"x"])
    assert await sender(told).send(request(is_native=True)) is told
    refused = Told(400, [json.dumps(messages.error("invalid_request_error", "credit balance is too low")).encode()])
    answer = await sender(refused).send(request(is_native=True))
    assert json.loads(await answer.read(LIMIT))["error"]["code"] == "insufficient_quota"
    assert answer.status == 402


async def test_a_stream_is_handed_on_piece_by_piece() -> None:
    """Also by several takers in turn, and with an end that lacks its blank line."""
    stream = b"".join(messages.events(TEXT)).removesuffix(b"\n\n")
    pieces = [stream[at : at + 7] for at in range(0, len(stream), 7)]
    answer = await sender(Told(200, list(pieces))).send(request())
    first: list[bytes] = []
    rest: list[bytes] = []

    def stop_at_text(data: bytes) -> Verdict:
        first.append(data)
        return Verdict.STOP if b'"One tw' in data else Verdict.MORE

    def take(data: bytes) -> Verdict:
        rest.append(data)
        return Verdict.MORE

    assert await answer.forward(stop_at_text) is False
    assert await answer.forward(take) is True
    whole = b"".join([*first, *rest])
    assert whole.endswith(b"data: [DONE]\n\n")
    other = await sender(Told(200, list(pieces))).send(request())
    chunks = []
    while chunk := await other.next_chunk():
        chunks.append(chunk)
    assert b"".join(chunks) == whole


async def test_a_stream_that_cannot_be_read_breaks() -> None:
    """An event without end is no reason to keep it all."""
    answer = await sender(Told(200, [b"data: ", b"x" * (MAX_EVENT_BYTES + 1)])).send(request())
    with pytest.raises(UpstreamError, match="upstream_too_large"):
        await answer.forward(lambda _: Verdict.MORE)


async def test_what_holds_the_connection_is_told() -> None:
    """Released or closed, as the answer's owner wants it."""
    told = Told(200, [])
    answer = await sender(told).send(request())
    answer.release()
    answer.close()
    assert told.ends == ["released", "closed"]
