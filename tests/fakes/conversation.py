"""A conversation small enough to test a server's WebSockets against: it answers by the text of a message.

LANE|TEXT      TEXT in a lane; without a bar it is the lane without a name
echo …         the whole text, as it came
hold           says "here" and waits until it is cancelled; a drain gets a last "draining"
flood          messages without an end, as fast as the caller reads
bug            raises
refused        what the gateway says to a head that it refuses
anything else  the whole text
"""

from __future__ import annotations

import asyncio

from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.exchange import Channel, Envelope, Gate

FAREWELL = b"too old"


class FakeTurn:
    """One message. `left` collects what turns were cancelled with."""

    def __init__(self, text: str, left: list[str]) -> None:
        """Take the text."""
        self.lane, _, self._text = text.rpartition("|")
        self._left = left

    async def serve(self, gate: Gate, channel: Channel) -> None:
        """Answer by the text."""
        try:
            await self._answer(gate, channel)
        except asyncio.CancelledError as error:
            self._left.append(error.args[0] if error.args else "")
            if self._left[-1] != "draining":
                raise
            channel.send(b"draining")

    async def _answer(self, gate: Gate, channel: Channel) -> None:
        match self._text.split(" ")[0]:
            case "hold":
                channel.send(b"here")
                await asyncio.Event().wait()
            case "flood":
                while True:
                    channel.send(b"x" * 16_384)
                    await channel.drained()
                    await asyncio.sleep(0)
            case "bug":
                raise LookupError(self._text)
            case "refused":
                envelope = Envelope("req_1", "POST", "/", "", {}, "", 0.0)
                channel.send(gate.refuse(envelope, CallerError(Kind.INVALID_VALUE, "no")).body)
            case "ping":
                channel.ping()
            case _:
                channel.send(self._text.encode())


class FakeConversation:
    """What is said over one WebSocket; `taken` are the messages that came, `has_ended` whether its end was told."""

    def __init__(self, left: list[str]) -> None:
        """Say nothing first."""
        self.taken: list[bytes] = []
        self.has_ended = False
        self._left = left

    def take(self, text: bytes, request_id: str, arrived_at: float) -> FakeTurn:
        """Take a message."""
        del request_id, arrived_at
        self.taken.append(text)
        if text == b"broken":
            raise LookupError(text)
        return FakeTurn(text.decode(), self._left)

    def farewell(self, gate: Gate, request_id: str, arrived_at: float) -> bytes:
        """Say that it is over."""
        del gate, request_id, arrived_at
        return FAREWELL

    def end(self) -> None:
        """Take note of the end."""
        self.has_ended = True
