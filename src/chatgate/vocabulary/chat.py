"""What is asked of a model, whatever protocol it was asked in, and what it cost in tokens."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class Message(Struct, frozen=True):
    """One message of a dialogue; `content` is plain text."""

    role: str
    content: str


class Usage(Struct, frozen=True):
    """Tokens of one call, as the provider counted them."""

    input_tokens: int
    output_tokens: int


class Document(Struct, frozen=True):
    """A JSON object in the bytes it came in; `spans` are the offsets of each top-level value, in their order."""

    body: bytes
    spans: dict[str, tuple[int, int]]

    def value(self, field: str) -> Any:  # noqa: ANN401 - JSON may be anything
        """Return a field's decoded value; None when it is absent or null."""
        span = self.spans.get(field)
        return None if span is None else msgspec.json.decode(self.body[slice(*span)])

    def splice(self, changes: dict[str, bytes]) -> bytes:
        """Return the body with some fields' values replaced or added; every other byte stays as it came."""
        pieces: list[bytes] = []
        at = 0
        for start, end, field in sorted((*self.spans[field], field) for field in changes if field in self.spans):
            pieces += (self.body[at:start], changes[field])
            at = end
        added = [msgspec.json.encode(field) + b":" + changes[field] for field in changes if field not in self.spans]
        if added:
            close = self.body.rindex(b"}")
            pieces += (self.body[at:close], b"," if self.spans else b"", b",".join(added))
            at = close
        pieces.append(self.body[at:])
        return b"".join(pieces)


class ChatCall(Struct, frozen=True):
    """A chat as decoded from the caller's body.

    `asked_model` is the name that the caller asked for. `stream` and `wants_usage` say what the caller wants back,
    whatever is asked of the upstream.

    Either `document` is the caller's own OpenAI chat object, to be forwarded with only the named keys changed, or it is
    None and `messages` and `max_tokens` say it all.
    """

    asked_model: str
    stream: bool
    wants_usage: bool = False
    messages: tuple[Message, ...] = ()
    max_tokens: int | None = None
    document: Document | None = None


class Asked(Struct, frozen=True):
    """A caller's body as decoded.

    `api_key` is a key shown in the body, "" when there is none. `dialogue` is what the plain API hands back as
    `result`, without the answer: the earlier turns as they came, and the new question.
    """

    chat: ChatCall
    api_key: str = ""
    dialogue: tuple[Message, ...] = ()
