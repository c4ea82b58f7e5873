"""Anthropic's Messages as upstreams speak them.

Sources (read 2026-11-23): https://platform.claude.com/docs/en/api/overview,
https://platform.claude.com/docs/en/api/versioning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chatgate.protocols.anthropic import errors
from chatgate.protocols.anthropic.decoder import StreamDecoder
from chatgate.protocols.anthropic.message import to_completion
from chatgate.protocols.anthropic.to_messages import to_messages
from chatgate.protocols.translation import Written, through_chat
from chatgate.vocabulary.chat import Asked
from chatgate.vocabulary.upstreams import Target

VERSION = b"2023-06-01"
"""The version that calls of the gateway's own making are written for: a later one takes no `temperature`."""

_PASSED = (b"anthropic-version", b"anthropic-beta")
"""The caller's headers that decide what its body means."""


class Messages:
    """Puts calls to upstreams that speak Anthropic's protocol, and reads their answers."""

    def __init__(self, clock: Callable[[], float], *, drops_parts: bool) -> None:
        """`clock` gives Unix time in seconds.

        `drops_parts` says that parts of a call which the protocol cannot carry may go missing.
        """
        self._clock = clock
        self._drops_parts = drops_parts

    def write(
        self, asked: Asked, headers: Mapping[bytes, bytes], target: Target, chat_body: bytes | None, *, passes: bool
    ) -> Written:
        """Put a call to a target. Raises `CallerError` when it cannot be carried."""
        foreign = asked.foreign
        if foreign is not None and foreign.protocol == "anthropic" and passes:
            return Written(foreign.encode_own(target.sent_model), passed_lines(headers), is_native=True)
        body, dropped = through_chat(asked, target, chat_body, to_messages, drops_parts=self._drops_parts)
        return Written(body, _line(b"anthropic-version", VERSION), dropped)

    def decode_whole(self, body: bytes) -> bytes:
        """Return a message as a completion. Raises `UpstreamError`."""
        return to_completion(body, int(self._clock()))

    def decode_error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of a refusal as OpenAI's."""
        return errors.to_openai_error(status, body)

    def decoder(self) -> StreamDecoder:
        """Return what reads one stream."""
        return StreamDecoder(int(self._clock()))


def passed_lines(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the lines of a caller's head that go with its body to an Anthropic upstream; a version is always there."""
    found = {b"anthropic-version": VERSION} | {name: headers[name] for name in _PASSED if name in headers}
    return b"".join(_line(name, value) for name, value in found.items())


def _line(name: bytes, value: bytes) -> bytes:
    return b"%b: %b\r\n" % (name, value)
