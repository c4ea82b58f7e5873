"""A stream on its way to an Anthropic caller.

`AnthropicRelay` gets OpenAI chunks and writes events. `PassingRelay` gets Anthropic's own events, passes them on byte
for byte, and takes note of them as if they had been chunks; so another target can go on with the stream, whatever that
one speaks, and from then on it writes events itself.
"""

from __future__ import annotations

from chatgate.protocols import sse
from chatgate.protocols.anthropic.decoder import DONE, Decoder
from chatgate.protocols.anthropic.encoder import STOP, Encoder
from chatgate.protocols.openai_stream import Relay

_DONE_EVENT = sse.event(DONE)


class AnthropicRelay(Relay):
    """Turns the chunks into Anthropic's events."""

    __slots__ = ("_encoder",)

    def __init__(self, model: str, stops: tuple[str, ...] = ()) -> None:
        """`model` is reported when the provider names none; `stops` are the caller's stop sequences."""
        super().__init__()
        self._encoder = Encoder(model, stops)

    def _pass_on(self, event: bytes, data: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return self._encoder.take(data)

    def _last(self) -> bytes:
        return self._encoder.end()

    def _comment(self, event: bytes) -> bytes:
        return event


class PassingRelay(AnthropicRelay):
    """Passes an Anthropic stream on as it is, until another target has to go on with it."""

    __slots__ = ("_decoder", "_is_told", "_passes")

    def __init__(self, model: str, stops: tuple[str, ...] = ()) -> None:
        """See `AnthropicRelay`."""
        super().__init__(model, stops)
        self._decoder = Decoder(0)
        self._passes = True
        self._is_told = False

    def forget_tail(self) -> None:
        """Drop the beginning of an event: another stream, one of OpenAI chunks, goes on from here."""
        super().forget_tail()
        if self._passes and self._decoder.is_begun:
            self._encoder.go_on(self._decoder.index, self._decoder.open_block, is_told=self._is_told)
        self._passes = False

    def _take(self, event: bytes, data: bytes | None) -> bytes:
        if not self._passes or not data:
            return super()._take(event, data)
        for chunk in self._decoder.take(data):
            super()._take(_DONE_EVENT if chunk == DONE else sse.event(chunk), chunk)
        kind = _kind_of(event)
        if kind == b"message_delta":
            self._is_told = True
        elif kind == b"content_block_start":
            self.begun = True  # Of thinking that is kept back nothing more may come for long.
        self.heard = self.heard or kind not in (b"ping", b"")
        return event

    def _pass_on(self, event: bytes, data: bytes) -> bytes:
        return b"" if self._passes else super()._pass_on(event, data)

    def _last(self) -> bytes:
        return STOP if self._passes and self._is_told else super()._last()


def _kind_of(event: bytes) -> bytes:
    """Return the event's name as its first line gives it, which is where the vendor writes it; else b""."""
    line = event.partition(b"\n")[0]
    return line[6:].strip() if line.startswith(b"event:") else b""
