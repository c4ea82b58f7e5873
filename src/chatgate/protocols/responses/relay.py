"""A stream on its way to a caller of Responses.

`ResponsesRelay` gets OpenAI chunks and writes events. `PassingRelay` gets a provider's own events, passes them on byte
for byte, and takes note of them as if they had been chunks. No other target can go on with those: their ids are the
provider's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from chatgate.protocols import sse
from chatgate.protocols.openai_stream import Relay
from chatgate.protocols.responses.decoder import DONE, Decoder
from chatgate.protocols.responses.encoder import Encoder
from chatgate.protocols.resume import Transcript

if TYPE_CHECKING:
    from chatgate.protocols.reading import Json
    from chatgate.protocols.responses.session import Session

_DONE_EVENT = sse.event(DONE)


class ResponsesRelay(Relay):
    """Turns the chunks into the events of a response."""

    __slots__ = ("_encoder",)

    def __init__(self, session: Session) -> None:
        """Start before the first byte."""
        super().__init__()
        self._encoder = Encoder(session)

    @property
    def final(self) -> Json | None:
        """Return the Response object once it has ended, to be kept."""
        return self._encoder.final

    @property
    def told(self) -> Json | None:
        """Return the Response object once it has ended, whoever keeps it."""
        return self.final

    def fail(self, code: str, message: str, kind: str) -> bytes:
        """Return the event that ends a stream which broke; see `Encoder.fail`."""
        return self._encoder.fail(code, message, kind)

    def _pass_on(self, event: bytes, data: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return self._encoder.take(data)

    def _last(self) -> bytes:
        return self._encoder.end()

    def _comment(self, event: bytes) -> bytes:
        return event


class _Unrepeatable(Transcript):
    """What a provider said under its own ids."""

    @property
    def is_resumable(self) -> bool:
        return False


class PassingRelay(ResponsesRelay):
    """Passes the events of a provider's own response on as they are."""

    __slots__ = ("_decoder",)

    def __init__(self, session: Session) -> None:
        """See `ResponsesRelay`."""
        super().__init__(session)
        self._decoder = Decoder()
        self.transcript = _Unrepeatable()
        self._note = self.transcript.note

    @property
    def final(self) -> Json | None:
        """Return None: the provider keeps its own."""
        return None

    @property
    def told(self) -> Json | None:
        """Return the provider's own Response object, as it was last told."""
        return self._decoder.response or None

    def fail(self, code: str, message: str, kind: str) -> bytes:
        """Return the event that ends a stream which broke, as the provider would have numbered it."""
        if not self._decoder.response:
            return super().fail(code, message, kind)
        error = {"code": code, "message": message, "type": kind}
        response = {**self._decoder.response, "status": "failed", "error": error}
        told = {"type": "response.failed", "sequence_number": self._decoder.number, "response": response}
        return b"event: response.failed\n" + sse.event(msgspec.json.encode(told))

    def _take(self, event: bytes, data: bytes | None) -> bytes:
        if not data:
            return self._comment(event)
        self.heard = True
        for chunk in self._decoder.take(data):
            super()._take(_DONE_EVENT if chunk == DONE else sse.event(chunk), chunk)
        if self._decoder.has_item:
            self.begun = True  # Of reasoning that is kept back nothing more may come for long.
        return event

    def _pass_on(self, event: bytes, data: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return b""

    def _last(self) -> bytes:
        return b""
