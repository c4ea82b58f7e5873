"""Ollama's protocol as upstreams speak it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chatgate.protocols.ollama.answer import to_completion, to_openai_error
from chatgate.protocols.ollama.decoder import StreamDecoder
from chatgate.protocols.ollama.to_ollama import to_ollama
from chatgate.protocols.translation import Written, through_chat
from chatgate.vocabulary.chat import Asked
from chatgate.vocabulary.upstreams import Target


class OllamaChats:
    """Puts calls to upstreams that speak Ollama's protocol, and reads their answers."""

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
        if foreign is not None and foreign.protocol == "ollama" and passes:
            return Written(foreign.encode_own(target.sent_model), is_native=True)
        body, dropped = through_chat(asked, target, chat_body, to_ollama, drops_parts=self._drops_parts)
        return Written(body, dropped=dropped)

    def decode_whole(self, body: bytes) -> bytes:
        """Return a whole answer as a completion. Raises `UpstreamError`."""
        return to_completion(body, int(self._clock()))

    def decode_error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of a refusal as OpenAI's."""
        return to_openai_error(status, body)

    def decoder(self) -> StreamDecoder:
        """Return what reads one stream."""
        return StreamDecoder(int(self._clock()))
