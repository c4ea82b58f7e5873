"""Upstreams that speak another protocol than OpenAI's, behind a sender that makes their answers OpenAI's.

Owns no protocol: what an answer says is its translation's to tell. Answers in the caller's own protocol stay as they
are; only refusals are read for everyone alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from chatgate.protocols import openai_models
from chatgate.protocols.anthropic.upstream import Messages
from chatgate.protocols.gemini import models as gemini_models
from chatgate.protocols.gemini.upstream import Gemini
from chatgate.protocols.ollama.upstream import OllamaChats
from chatgate.protocols.responses.upstream import Responses
from chatgate.vocabulary.errors import UpstreamError
from chatgate.vocabulary.exchange import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatgate.protocols.openai_models import Entry
    from chatgate.protocols.translation import Translation
    from chatgate.vocabulary.exchange import Answer, OutboundRequest, PassOn, Sender
    from chatgate.vocabulary.upstreams import Protocol

_OK = 200


def translations(clock: Callable[[], float], *, drops_parts: bool) -> dict[Protocol, Translation]:
    """Return what every protocol but OpenAI's chat is translated by.

    `clock` gives Unix time in seconds; `drops_parts` says that parts of a call may go missing.
    """
    return {
        "anthropic": Messages(clock, drops_parts=drops_parts),
        "gemini": Gemini(clock, drops_parts=drops_parts),
        "ollama": OllamaChats(clock, drops_parts=drops_parts),
        "openai_responses": Responses(clock, drops_parts=drops_parts),
    }


def read_models(protocol: Protocol, body: bytes) -> list[Entry]:
    """Return what an upstream lists, as OpenAI's entries. Raises `UpstreamError`."""
    return gemini_models.decode_list(body) if protocol == "gemini" else openai_models.decode_list(body)


class TranslatingSender:
    """Sends through another sender, and translates what comes back."""

    def __init__(self, sender: Sender, translation: Translation) -> None:
        """Take both."""
        self._sender = sender
        self._translation = translation

    async def send(self, request: OutboundRequest, may_repeat: Callable[[float], bool] | None = None) -> Answer:
        """Send the request; see `Sender`."""
        answer = await self._sender.send(request, may_repeat)
        if request.is_native and answer.status == _OK:
            return answer
        return TranslatedAnswer(answer, self._translation)


class TranslatedAnswer:
    """An answer of an upstream, as OpenAI's protocol would have it.

    The status of a refusal may change as it is read.
    """

    __slots__ = ("_answer", "_decoder", "_translation", "headers", "status")

    whole: ClassVar[None] = None

    def __init__(self, answer: Answer, translation: Translation) -> None:
        """Take the answer, of which nothing has been read."""
        self._answer = answer
        self._translation = translation
        self._decoder = translation.decoder()
        self.status = answer.status
        self.headers: Mapping[bytes, bytes] = answer.headers

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body; more than `limit_bytes` of it is an error."""
        body = await self._answer.read(limit_bytes)
        if self._answer.status == _OK:
            return self._translation.decode_whole(body)
        self.status, body = self._translation.decode_error(self._answer.status, body)
        return body

    async def next_chunk(self) -> bytes:
        """Return the next piece that says something; b"" once, at the end."""
        while data := await self._answer.next_chunk():
            if out := self._decoder.feed(data):
                return out
        return self._decoder.end()

    async def forward(
        self,
        take: Callable[[bytes], Verdict],
        pass_on: PassOn | None = None,  # noqa: ARG002 - an answer's method
    ) -> bool:
        """Hand every piece to `take`, at the moment it arrives."""
        broken: list[UpstreamError] = []

        def take_decoded(data: bytes) -> Verdict:
            try:
                return take(self._decoder.feed(data))
            except UpstreamError as error:
                broken.append(error)
                return Verdict.STOP

        is_over = await self._answer.forward(take_decoded)
        if broken:
            raise broken[0]
        if is_over and (rest := self._decoder.end()):
            take(rest)
        return is_over

    def release(self) -> None:
        """Give the connection back."""
        self._answer.release()

    def close(self) -> None:
        """End the connection, unless that has been done."""
        self._answer.close()
