"""What is asked of a model, whatever protocol it was asked in, and what it cost in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Protocol

from msgspec import Meta, Raw, Struct

from chatgate.vocabulary.document import Document
from chatgate.vocabulary.upstreams import Protocol as WireProtocol
from chatgate.vocabulary.upstreams import Target

MAX_TOKENS: Final = 10**8
"""A provider's count above this is no count."""

Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]


class Turn(Protocol):
    """A message of a dialogue, its content a text or the JSON that it came as."""

    @property
    def role(self) -> str:
        """Return who speaks."""

    @property
    def content(self) -> str | Raw:
        """Return what is said."""


class Message(Struct, frozen=True, gc=False):
    """One message of a dialogue; `content` is plain text."""

    role: str
    content: str


class InputDetails(Struct, frozen=True, gc=False):
    """Parts of what was sent."""

    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    audio_tokens: Count | None = None


class OutputDetails(Struct, frozen=True, gc=False):
    """Parts of what was answered."""

    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None


class UsageParts(Struct, frozen=True, gc=False, eq=False, kw_only=True):
    """What a usage object of OpenAI's chat says besides its sums, with what others put elsewhere.

    `prompt_cache_hit_tokens` is DeepSeek's name for the cached tokens, and Moonshot names them beside the sums.
    Source: the usage extractors of genai-prices 0.2.3 (read 2026-11-23).
    """

    total_tokens: Count | None = None
    cached_tokens: Count | None = None
    prompt_cache_hit_tokens: Count | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class Usage(
    UsageParts,
    frozen=True,
    gc=False,
    eq=False,
    rename={"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"},
):
    """Tokens of one call, as the provider counted them: a usage object with both sums. Equal when these are."""

    input_tokens: Count
    output_tokens: Count

    def __eq__(self, other: object) -> bool:
        """Compare the sums."""
        return isinstance(other, Usage) and (self.input_tokens, self.output_tokens) == (
            other.input_tokens,
            other.output_tokens,
        )

    def __hash__(self) -> int:
        """Return what equal ones have in common."""
        return hash((self.input_tokens, self.output_tokens))


class OddUsage(Usage, frozen=True, gc=False, eq=False):
    """The sums of a usage object with something in it that is no count; `raw` is all that was said, as JSON."""

    raw: bytes = b""


class ChatCall(Struct, frozen=True, gc=False):
    """A chat as decoded from the caller's body.

    `asked_model` is the name that the caller asked for. `stream` and `wants_usage` say what the caller wants back,
    whatever is asked of the upstream.

    Either `document` is the caller's own OpenAI chat object, to be forwarded with only the named keys changed; or it is
    None, and `messages` and `max_tokens` say it all, but for a body in another protocol, whose messages are `turns`.
    `max_tokens` is what the caller allows for each of `choices` answers, None when that is left to the provider.
    Without `is_counted` no provider says what such a call took.
    """

    asked_model: str
    stream: bool
    wants_usage: bool = False
    messages: tuple[Message, ...] = ()
    max_tokens: int | None = None
    document: Document | None = None
    turns: Sequence[Turn] = ()
    choices: int = 1
    is_counted: bool = True


class Foreign(Protocol):
    """A caller's own body in another protocol than OpenAI's chat."""

    @property
    def protocol(self) -> WireProtocol:
        """Return which one."""

    def encode_own(self, model: str | None) -> bytes:
        """Return the body as it came, but for the model's name; None keeps that."""

    def encode_chat(self, target: Target) -> tuple[bytes, tuple[str, ...]]:
        """Return the OpenAI chat's body for a target, and the fields that it goes without. Raises `CallerError`."""


class Asked(Struct, frozen=True, gc=False):
    """A caller's body as decoded.

    `api_key` is a key shown in the body, "" when there is none. `dialogue` is what the plain API hands back as
    `result`, without the answer: the earlier turns as they came, and the new question. `foreign` is a body that came
    in another protocol; then the chat only tells what has to be known whoever answers.
    """

    chat: ChatCall
    api_key: str = ""
    dialogue: tuple[Message, ...] = ()
    foreign: Foreign | None = None

    def __repr__(self) -> str:
        """Hide the key and the prompt."""
        return f"Asked({self.chat.asked_model})"
