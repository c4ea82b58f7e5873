"""Gemini's protocol as upstreams speak it.

Sources (read 2026-11-23): https://ai.google.dev/api/generate-content, https://ai.google.dev/api/all-methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

from chatgate.protocols.gemini import errors
from chatgate.protocols.gemini.answer import to_completion
from chatgate.protocols.gemini.decoder import StreamDecoder
from chatgate.protocols.gemini.to_gemini import to_gemini
from chatgate.protocols.translation import Written, through_chat
from chatgate.vocabulary.chat import Asked
from chatgate.vocabulary.upstreams import Target

_FOLDERS = ("models/", "tunedModels/")


def path_of(model: str, method: str) -> str:
    """Return where a method of a model is, below the base URL."""
    folder = next((each for each in _FOLDERS if model.startswith(each)), "")
    return f"/{folder or 'models/'}{quote(model.removeprefix(folder), safe='')}:{method}"


class Gemini:
    """Puts calls to upstreams that speak Gemini's protocol, and reads their answers."""

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
        foreign, stream = asked.foreign, asked.chat.stream
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path = path_of(target.sent_model or asked.chat.asked_model, method)
        if foreign is not None and foreign.protocol == "gemini" and passes:
            return Written(foreign.encode_own(target.sent_model), is_native=True, path=path)
        body, dropped = through_chat(asked, target, chat_body, to_gemini, drops_parts=self._drops_parts)
        return Written(body, dropped=dropped, path=path)

    def decode_whole(self, body: bytes) -> bytes:
        """Return a response as a completion. Raises `UpstreamError`."""
        return to_completion(body, int(self._clock()))

    def decode_error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of a refusal as OpenAI's."""
        return errors.to_openai_error(status, body)

    def decoder(self) -> StreamDecoder:
        """Return what reads one stream."""
        return StreamDecoder(int(self._clock()))
