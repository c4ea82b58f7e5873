r"""A gateway small enough to test a server against: it answers by path, and remembers what it was asked.

    /echo          the body, as it came; any other path the same
    /size          the length of the body, in digits
    /refused       refused by its head alone, with 401
    /nothing       204
    /stream/N      N pieces "piece 0\n" …, one after the other
    /flood         a stream without an end, as fast as the caller reads
    /hold          a stream that says "here\n" and then waits until it is cancelled; a drain gets a last "draining\n"
    /stubborn      as /hold, but says nothing at the end
    /half          a stream that is never finished
    /mute          returns without an answer
    /bug           raises
    /twice         replies twice, which is a bug
    /bad-head      a bug in the judgement of the head
    /never-again   is not let in again without being judged anew
    /lasting       is let in again without being asked about
    /talk          becomes a WebSocket, where a `FakeConversation` answers
    /no-talk       is refused with 401 when it would become one

It keeps the promises of the real gateway: it judges by the head, never looks at a body before that, and lets a
cancellation pass.
"""

from __future__ import annotations

import asyncio

from chatgate.vocabulary.errors import GateError, Kind
from chatgate.vocabulary.exchange import (
    CallerPort,
    Endpoint,
    Envelope,
    Identified,
    Operation,
    Reply,
    Serve,
    Surface,
    Upgrade,
    Upload,
)
from chatgate.vocabulary.identity import Caller
from fakes.conversation import FakeConversation

TEXT = b"Content-Type: text/plain\r\n"
STATUS = {
    Kind.INVALID_VALUE: 400,
    Kind.REQUEST_TIMEOUT: 408,
    Kind.REQUEST_TOO_LARGE: 413,
    Kind.UNSUPPORTED_MEDIA_TYPE: 415,
    Kind.OVERLOADED: 503,
}
ENDPOINT = Endpoint(Operation.CHAT, Surface.PLAIN, takes_files=True)


class FakeGate:
    """The gateway of the tests.

    `envelopes` are those that arrived, `repeated` how many of them were let in by the judgement of another, which it
    was `asked_again` about so often. `served` are the paths and bodies that came to be served, `errors` the reasons and
    parameters of refusals, `left` the messages that tasks were cancelled with, `conversations` those that began.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self.envelopes: list[Envelope] = []
        self.repeated = self.asked_again = 0
        self.served: list[tuple[str, bytes]] = []
        self.errors: list[tuple[str, dict[str, object]]] = []
        self.left: list[str] = []
        self.flooded_bytes = 0
        self.conversations: list[FakeConversation] = []

    def arrive(self, envelope: Envelope) -> Identified | Reply:
        """Let everybody in, except on /refused."""
        self.envelopes.append(envelope)
        if envelope.path == "/refused":
            return Reply(401, TEXT, b"refused")
        if envelope.path == "/bad-head":
            raise LookupError(envelope.path)
        lasts = envelope.path == "/lasting"
        identified = Identified(envelope, ENDPOINT, Caller(envelope.peer, 0), "en_US", lasts)
        if envelope.path in ("/talk", "/no-talk"):
            return Upgrade(101, b"x-request-id: %b\r\n" % envelope.request_id.encode(), b"", identified)
        return identified

    def stands_by(self, identified: Identified) -> bool:
        """Stand by what was said, except on /never-again."""
        self.asked_again += 1
        return identified.envelope.path != "/never-again"

    async def converse(self, identified: Identified) -> FakeConversation | Reply:
        """Begin a conversation, except on /no-talk."""
        await asyncio.sleep(0)
        if identified.envelope.path == "/no-talk":
            return Reply(401, TEXT, b"refused")
        self.conversations.append(FakeConversation(self.left))
        return self.conversations[-1]

    async def prepare(self, identified: Identified, body: bytes) -> Reply:
        """Answer with the body."""
        del identified
        return Reply(200, TEXT, body)

    def refuse(self, envelope: Envelope, error: GateError) -> Reply:
        """Answer with the reason as the body."""
        del envelope
        self.errors.append((error.reason, dict(error.parameters)))
        return Reply(STATUS[error.kind], TEXT, error.reason.encode())

    def server_of(self, endpoint: Endpoint) -> Serve:
        """Serve all in the same way."""
        del endpoint
        return self.serve

    async def serve(self, identified: Identified, body: bytes, port: CallerPort) -> None:
        """Answer by path."""
        path = identified.envelope.path
        self.served.append((path, body))
        if all(identified.envelope is not each for each in self.envelopes):
            self.repeated += 1
            self.envelopes.append(identified.envelope)
        try:
            await self._answer(path, body, port)
        except asyncio.CancelledError as error:
            self.left.append(error.args[0] if error.args else "")
            if path == "/hold" and self.left[-1] == "draining":
                port.send(b"draining\n")
                port.finish()
            raise

    async def receive(self, identified: Identified, upload: Upload, port: CallerPort) -> None:
        """Answer as with a body that has arrived; on /unread without waiting for it."""
        pieces = []
        try:
            while identified.envelope.path != "/unread" and (piece := await upload.next_piece()):
                pieces.append(piece)
        except GateError as error:
            port.reply(self.refuse(identified.envelope, error))
            return
        await self.serve(identified, b"".join(pieces), port)

    async def _answer(self, path: str, body: bytes, port: CallerPort) -> None:
        match path.split("/")[1:]:
            case ["size"]:
                port.reply(Reply(200, TEXT, b"%d" % len(body)))
            case ["nothing"]:
                port.reply(Reply(204, b"", b""))
            case ["stream", count]:
                port.start_stream(200, TEXT)
                for number in range(int(count)):
                    port.send(b"piece %d\n" % number)
                    await asyncio.sleep(0)
                port.finish()
            case ["ends"]:
                port.start_stream(200, TEXT, b"first\n")
                port.finish(b"last\n")
            case ["flood"]:
                await self._flood(port)
            case ["hold" | "stubborn"]:
                port.start_stream(200, TEXT)
                port.send(b"here\n")
                await asyncio.Event().wait()
            case ["echo"]:
                port.reply(Reply(200, TEXT, body))
            case _:
                _misbehave(path, body, port)

    async def _flood(self, port: CallerPort) -> None:
        port.start_stream(200, TEXT)
        piece = b"x" * 16_384
        while True:
            port.send(piece)
            self.flooded_bytes += len(piece)
            await port.drained()
            await asyncio.sleep(0)


def _misbehave(path: str, body: bytes, port: CallerPort) -> None:
    match path:
        case "/half":
            port.start_stream(200, TEXT)
            port.send(b"here\n")
        case "/mute":
            pass
        case "/bug":
            raise LookupError(path)
        case "/twice":
            port.reply(Reply(200, TEXT, b"once"))
            port.reply(Reply(200, TEXT, b"twice"))
        case _:
            port.reply(Reply(200, TEXT, body))
