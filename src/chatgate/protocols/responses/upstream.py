"""OpenAI's Responses as upstreams speak them: what is asked there, and their answers as a chat's.

Sources (read 2026-11-23): https://developers.openai.com/api/reference/resources/responses,
https://developers.openai.com/api/reference/resources/responses/streaming-events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatgate.protocols import sse
from chatgate.protocols.responses.decoder import ChatDecoder, to_chat_completion
from chatgate.protocols.responses.to_responses import to_responses
from chatgate.protocols.translation import Written, through_chat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatgate.vocabulary.chat import Asked
    from chatgate.vocabulary.upstreams import Target

PATH = "/responses"
"""Where calls go, below the base URL."""


class Responses:
    """Puts calls to upstreams that speak Responses, and reads their answers."""

    def __init__(self, clock: Callable[[], float], *, drops_parts: bool) -> None:
        """`clock` gives Unix time in seconds.

        `drops_parts` says that parts of a call which the protocol cannot carry may go missing.
        """
        self._clock = clock
        self._drops_parts = drops_parts

    def write(
        self,
        asked: Asked,
        headers: Mapping[bytes, bytes],  # noqa: ARG002 - a port's method
        target: Target,
        chat_body: bytes | None,
        *,
        passes: bool,
    ) -> Written:
        """Put a call to a target. Raises `CallerError` when it cannot be carried."""
        foreign = asked.foreign
        if foreign is not None and foreign.protocol == "openai_responses" and passes:
            return Written(foreign.encode_own(target.sent_model), is_native=True, path=PATH)
        body, dropped = through_chat(asked, target, chat_body, to_responses, drops_parts=self._drops_parts)
        return Written(body, dropped=dropped, path=PATH)

    def decode_whole(self, body: bytes) -> bytes:
        """Return a response as a completion. Raises `UpstreamError`."""
        return to_chat_completion(body, int(self._clock()))

    def decode_error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return a refusal as it is: all of OpenAI's operations have the same."""
        return status, body

    def decoder(self) -> StreamDecoder:
        """Return what reads one stream."""
        return StreamDecoder(int(self._clock()))


class StreamDecoder:
    """Turns the bytes of a Responses stream, cut anywhere, into those of a chat's."""

    __slots__ = ("_decoder", "_splitter")

    def __init__(self, created: int) -> None:
        """Start before the first event; `created` is the Unix time of a response that does not say its own."""
        self._decoder = ChatDecoder(created)
        self._splitter = sse.EventSplitter()

    def feed(self, data: bytes) -> bytes:
        """Return whole events; what has no counterpart goes, but comments stay."""
        return b"".join(map(self._take, self._splitter.feed(data)))

    def end(self) -> bytes:
        """Return what an event still says that the end of the body cut short of its blank line."""
        tail = self._splitter.finish()
        return self._take(tail) if tail else b""

    def _take(self, event: bytes) -> bytes:
        data = sse.data_of(event)
        if not data:
            return event
        return b"".join(map(sse.event, self._decoder.take(data)))
