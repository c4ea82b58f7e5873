"""What is asked of a model, whatever protocol it was asked in, and what it cost in tokens."""

from __future__ import annotations

from msgspec import Struct


class Message(Struct, frozen=True):
    """One message of a dialogue; `content` is plain text."""

    role: str
    content: str


class Usage(Struct, frozen=True):
    """Tokens of one call, as the provider counted them."""

    input_tokens: int
    output_tokens: int


class ChatCall(Struct, frozen=True):
    """A chat as decoded from the caller's body.

    `asked_model` is the name that the caller asked for. `stream` and `wants_usage` say what the caller wants back,
    whatever is asked of the upstream.

    Either `body` holds the caller's OpenAI chat object, to be forwarded with only the named keys changed, or it is
    empty and `messages` and `max_tokens` say it all.
    """

    asked_model: str
    stream: bool
    wants_usage: bool = False
    messages: tuple[Message, ...] = ()
    max_tokens: int | None = None
    body: bytes = b""
