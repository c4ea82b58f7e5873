"""A stream on its way to an Ollama caller.

`OllamaRelay` gets OpenAI chunks and writes lines. `PassingRelay` gets Ollama's own lines, passes them on byte for byte,
and takes note of them as if they had been chunks; so another target can go on with the stream, whatever that one
speaks, and from then on it writes lines itself.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from chatgate.protocols import sse
from chatgate.protocols.ollama.answer import UNREADABLE
from chatgate.protocols.ollama.decoder import DONE, Decoder, LineSplitter
from chatgate.protocols.ollama.encoder import Encoder
from chatgate.protocols.openai_stream import Relay
from chatgate.vocabulary.errors import UpstreamError

_DONE_EVENT = sse.event(DONE)


class OllamaRelay(Relay):
    """Turns the chunks into lines."""

    __slots__ = ("_encoder",)

    def __init__(self, encoder: Encoder) -> None:
        """Have `encoder` write them."""
        super().__init__()
        self._encoder = encoder

    def _pass_on(self, event: bytes, data: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return self._encoder.take(data)

    def _last(self) -> bytes:
        return self._encoder.end()

    def _comment(self, event: bytes) -> bytes:  # noqa: ARG002 - the same: lines have no comments
        return b""


class PassingRelay(OllamaRelay):
    """Passes lines on as they are, until another target has to go on with them."""

    __slots__ = ("_decoder", "_lines", "_passes")

    def __init__(self, encoder: Encoder) -> None:
        """See `OllamaRelay`."""
        super().__init__(encoder)
        self._decoder = Decoder(0)
        self._lines = LineSplitter()
        self._passes = True

    def feed(self, data: bytes) -> bytes:
        """Return what the caller gets of this: whole lines only."""
        if not self._passes:
            return super().feed(data)
        if self.is_over:
            return b""
        self.heard = False
        out: list[bytes] = []
        try:
            for line in self._lines.feed(data):
                out.append(self._take_line(line))
                if self.done:
                    break
        except UpstreamError as broken:
            self.error = broken
        return b"".join(out)

    def end(self) -> bytes:
        """Return what is still to be passed on at the upstream's regular end of body."""
        if not self._passes:
            return super().end()
        tail = self._lines.finish()
        out = self.feed(tail + b"\n") if tail else b""
        if not self.is_over:
            self.error = UpstreamError("upstream_cut")
        return out

    def complete(self) -> bytes:
        """Return the end of an answer that has finished; in lines, what finishes it is the end."""
        self.done = True
        return b"" if self._passes else self._last()

    def forget_tail(self) -> None:
        """Drop the beginning of a line: another stream, one of OpenAI chunks, goes on from here."""
        super().forget_tail()
        self._passes = False

    def _take_line(self, line: bytes) -> bytes:
        chunks = self._decoder.take(line)
        if not chunks and not _is_object(line):
            return b""  # It is empty or broken, and would break the caller's reader too.
        for chunk in chunks:
            self._take(_DONE_EVENT if chunk == DONE else sse.event(chunk), chunk)
        return line

    def _pass_on(self, event: bytes, data: bytes) -> bytes:
        return b"" if self._passes else super()._pass_on(event, data)

    def _last(self) -> bytes:
        return b"" if self._passes else super()._last()


def _is_object(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict[str, Raw])
    except UNREADABLE:
        return False
    return True
