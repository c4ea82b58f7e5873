"""A conversation's turns go to the gateway as calls, and what comes back goes out as messages."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any

from chatgate.conversing import Conversing, Talking
from chatgate.protocols.responses.dialect import ResponsesDialect
from chatgate.vocabulary.errors import GateError
from chatgate.vocabulary.exchange import (
    CallerPort,
    Conversation,
    Decoded,
    Endpoint,
    Envelope,
    Identified,
    Operation,
    Reply,
    Serve,
    Surface,
    Upload,
)
from chatgate.vocabulary.identity import Caller

HEADERS = {b"authorization": b"Bearer sk-test"}
HEAD = Envelope("req_0", "GET", "/v1/responses", "", HEADERS, "192.0.2.1", 1.0)
ENDPOINT = Endpoint(Operation.CHAT, Surface.RESPONSES)


class Place:
    """A gateway and a channel at once: it remembers what it was asked, and what was sent."""

    is_congested = False

    def __init__(self, refusal: Reply | None = None) -> None:
        """Refuse every head with this, if anything."""
        self._refusal = refusal
        self.arrived: list[Envelope] = []
        self.served: list[bytes] = []
        self.refused: list[str] = []
        self.sent: list[Any] = []

    def arrive(self, envelope: Envelope) -> Identified | Reply:
        """Note the head."""
        self.arrived.append(envelope)
        return self._refusal or Identified(envelope, ENDPOINT, Caller("", 0), "en_US")

    def stands_by(self, identified: Identified) -> bool:
        """Stand by nothing."""
        del identified
        return False

    def refuse(self, envelope: Envelope, error: GateError) -> Reply:
        """Note the reason."""
        del envelope
        self.refused.append(error.provider_code or error.reason)
        return Reply(400, b"x-request-id: req_9\r\n", b'{"error":{"message":"No."}}')

    def server_of(self, endpoint: Endpoint) -> Serve:
        """Serve all in the same way."""
        del endpoint
        return self.serve

    def serve(self, identified: Identified, body: bytes, port: CallerPort) -> Coroutine[None, None, None]:
        """Answer with a short stream."""
        del identified
        self.served.append(body)
        return self._stream(port)

    async def _stream(self, port: CallerPort) -> None:
        port.start_stream(200, b"x-chatgate-model: m\r\nset-cookie: no\r\n")
        port.send(b": keep-alive\n\n")
        port.send(b'event: a\ndata: {"type":"a"}\n\nevent: b\ndata: {"type":"b"}\n\n')
        await port.drained()
        port.cancel("enough")
        port.finish()

    def receive(self, identified: Identified, upload: Upload, port: CallerPort) -> Coroutine[None, None, None]:
        """Do nothing of the kind."""
        raise NotImplementedError

    async def converse(self, identified: Identified) -> Conversation | Reply:
        """Do nothing of the kind either."""
        raise NotImplementedError

    async def prepare(self, identified: Identified, body: bytes) -> Reply:
        """Prepare a response."""
        del identified
        self.served.append(body)
        return Reply(200, b"", b'{"id":"resp_1","status":"completed"}')

    def send(self, text: bytes) -> None:
        """Note a message."""
        self.sent.append(json.loads(text))

    def ping(self) -> None:
        """Note a ping."""
        self.sent.append("ping")

    def cancel(self, message: str) -> None:
        """Note that the turn was to be cancelled."""
        self.sent.append(message)

    async def drained(self) -> None:
        """Return at once."""


async def said(place: Place, talking: Talking, **message: Any) -> list[Any]:
    """Say something; return what was sent for it."""
    place.sent.clear()
    await talking.take(json.dumps(message).encode(), "req_1", 2.0).serve(place, place)
    return place.sent


async def test_a_turn_is_a_call() -> None:
    """Its head is that of the connection, with an id and a time of its own; comments are pings."""
    place, talking = Place(), Talking(HEAD)
    sent = await said(place, talking, type="response.create", model="m", stream_id="a")
    assert sent == [
        "ping",
        {"stream_id": "a", "type": "a", "headers": {"x-chatgate-model": "m"}},
        {"stream_id": "a", "type": "b"},
        "enough",
    ]
    assert place.served == [b'{"model":"m","stream":true}']
    (head,) = place.arrived
    assert (head.request_id, head.method, head.arrived_at) == ("req_1", "POST", 2.0)
    assert head.headers is HEADERS


async def test_a_turn_that_prepares_asks_no_model() -> None:
    """It begins and is completed."""
    sent = await said(Place(), Talking(HEAD), type="response.create", model="m", generate=False)
    assert [(each["type"], each["response"]["status"]) for each in sent] == [
        ("response.created", "in_progress"),
        ("response.completed", "completed"),
    ]


async def test_what_is_wrong_is_told_in_its_turn() -> None:
    """With the lane, as soon as that is known; so is what the gateway refuses by the head."""
    place, talking = Place(), Talking(HEAD)
    (sent,) = await said(place, talking, type="other", stream_id="a")
    assert (sent["stream_id"], sent["status"], sent["error"]["message"]) == ("a", 400, "No.")
    for number in range(40):
        await said(place, talking, type="response.create", stream_id=f"{number}")
    assert place.refused == ["invalid_field", *["websocket_stream_limit_reached"] * 9]
    (sent,) = await said(
        Place(Reply(401, b"", b'{"error":{"message":"Who?"}}')), talking, type="response.create", model="m"
    )
    assert (sent["status"], sent["error"]["message"]) == (401, "Who?")
    assert json.loads(talking.farewell(place, "req_2", 3.0))["status"] == 400
    assert place.refused[-1] == "websocket_connection_limit_reached"


class Memory:
    """Keeps one answer."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.kept: list[Any] = []

    async def recall(self, decoded: Decoded) -> int:
        """Find nothing."""
        del decoded
        return 0

    async def keep(self, decoded: Decoded, answer: object) -> None:
        """Keep it."""
        del decoded
        assert isinstance(answer, bytes)
        self.kept.append(json.loads(answer))


async def test_what_is_prepared_is_kept() -> None:
    """As a response that has said nothing and used nothing."""
    memory = Memory()
    conversing = Conversing(ResponsesDialect(lambda: "one", lambda: 5.0, keeps=False), memory)
    identified = Identified(HEAD, ENDPOINT, Caller("", 0), "en_US")
    reply = await conversing.prepare(identified, b'{"model":"m","input":"Hi","stream":true}')
    assert [json.loads(reply.body)] == memory.kept
    (kept,) = memory.kept
    assert (kept["id"], kept["output"], kept["usage"]["total_tokens"]) == ("resp_one", [], 0)
