"""What is asked of a model, whatever protocol it was asked in, and what it cost in tokens."""

from __future__ import annotations

from msgspec import Struct

from chatgate.vocabulary.document import Document


class Message(Struct, frozen=True, gc=False):
    """One message of a dialogue; `content` is plain text."""

    role: str
    content: str


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one call, as the provider counted them."""

    input_tokens: int
    output_tokens: int


class ChatCall(Struct, frozen=True, gc=False):
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


class Asked(Struct, frozen=True, gc=False):
    """A caller's body as decoded.

    `api_key` is a key shown in the body, "" when there is none. `dialogue` is what the plain API hands back as
    `result`, without the answer: the earlier turns as they came, and the new question.
    """

    chat: ChatCall
    api_key: str = ""
    dialogue: tuple[Message, ...] = ()

    def __repr__(self) -> str:
        """Hide the key and the prompt."""
        return f"Asked({self.chat.asked_model})"
