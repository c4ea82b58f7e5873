"""A stream on its way to a Gemini caller.

`GeminiRelay` gets OpenAI chunks and writes pieces. `PassingRelay` gets Gemini's own pieces, passes them on as they are,
and takes note of them as if they had been chunks; so another target can go on with the stream, whatever that one
speaks, and from then on it writes pieces itself. What ends an answer is held back until all of it is there.

A caller gets the pieces as events or as the elements of one array, as their URL asks.
"""

from __future__ import annotations

from chatgate.protocols import sse
from chatgate.protocols.gemini.decoder import Decoder, data_of
from chatgate.protocols.gemini.encoder import Encoder
from chatgate.protocols.openai_stream import Relay

BLANK = b"\n"
"""What keeps the connection open: Google's clients take a comment for an answer that they cannot read, but skip blank
lines, and in an array they mean nothing either."""


class GeminiRelay(Relay):
    """Turns the chunks into Gemini's pieces."""

    __slots__ = ("_encoder", "_in_array", "_written")

    def __init__(self, model: str, *, shows_thoughts: bool, in_array: bool) -> None:
        """`model` is reported when the provider names none; `shows_thoughts` says that the caller wants to see them."""
        super().__init__()
        self._encoder = Encoder(model, shows_thoughts=shows_thoughts)
        self._in_array = in_array
        self._written = False

    def fail(self, error: bytes) -> bytes:
        """Return what ends a stream that broke; `error` is an error's body."""
        return framed_error(error, in_array=self._in_array, begun=self._written)

    def _framed(self, piece: bytes) -> bytes:
        """Write a piece into the stream."""
        if not piece:
            return b""
        if not self._in_array:
            return sse.event(piece)
        opening = b",\n" if self._written else b"["
        self._written = True
        return opening + piece

    def _pass_on(self, event: bytes, data: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return self._framed(self._encoder.take(data))

    def _last(self) -> bytes:
        return self._framed(self._encoder.end()) + (b"]" if self._in_array else b"")

    def _comment(self, event: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return BLANK


class PassingRelay(GeminiRelay):
    """Passes a Gemini stream on as it is, until another target has to go on with it."""

    __slots__ = ("_decoder", "_held", "_passes")

    def __init__(self, model: str, *, shows_thoughts: bool, in_array: bool) -> None:
        """See `GeminiRelay`."""
        super().__init__(model, shows_thoughts=shows_thoughts, in_array=in_array)
        self._decoder = Decoder(0, notes=True)
        self._held = b""
        self._passes = True

    def forget_tail(self) -> None:
        """Drop the beginning of an event: another stream, one of OpenAI chunks, goes on from here."""
        super().forget_tail()
        if self._passes and self._decoder.is_begun:
            self._encoder.go_on(self._decoder.identity, self._decoder.model)
        self._passes = False

    def _take(self, event: bytes, data: bytes | None) -> bytes:
        if not self._passes:
            return super()._take(event, data)
        data = data_of(event)
        if not data:
            return super()._take(event, data)
        for chunk in self._decoder.take(data):
            super()._take(sse.event(chunk), chunk)
        self.heard = True
        piece = self._framed(data) if self._in_array else event
        if not self._decoder.is_finished:
            return piece
        if (counted := self._decoder.count()) is not None:
            super()._take(sse.event(counted), counted)
        self._held += piece
        return b""

    def _pass_on(self, event: bytes, data: bytes) -> bytes:
        return b"" if self._passes else super()._pass_on(event, data)

    def _last(self) -> bytes:
        if self._passes and self._held:
            return self._held + (b"]" if self._in_array else b"")
        return super()._last()


def framed_error(error: bytes, *, in_array: bool, begun: bool) -> bytes:
    """Return what ends a stream that broke. Google's clients look for an error as bare JSON, not as an event's data."""
    if in_array:
        return (b",\n" if begun else b"[") + error + b"]"
    return error + b"\n\n"
