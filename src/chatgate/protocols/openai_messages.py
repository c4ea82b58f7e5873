"""The messages of an OpenAI chat, as far as they are read: what decoding them proves, and what it leaves open.

What decodes as a `PlainMessage` is harmless without another look: in it are only texts, and no deeper than these types
are. Anything else is an `AnyMessage`, whose content somebody has to look into. Used by the reader of requests.
Source: https://platform.openai.com/docs/api-reference/chat/create (read 2026-11-23).
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Raw, Struct

MAX_PLAIN_PARTS: Final = 1000
"""A message of more parts, or with more tool calls, is not plain: there may be too many of them."""

_Few = Meta(max_length=MAX_PLAIN_PARTS)


class AnyMessage(Struct):
    """A message of any kind."""

    role: str
    content: Raw = Raw(b"null")


class _PlainImage(Struct, forbid_unknown_fields=True, gc=False):
    url: str
    detail: str | None = None


class _PlainPart(Struct, forbid_unknown_fields=True, gc=False):
    type: str
    text: str | None = None
    image_url: _PlainImage | None = None


class _PlainFunction(Struct, forbid_unknown_fields=True, gc=False):
    name: str
    arguments: str


class _PlainToolCall(Struct, forbid_unknown_fields=True, gc=False):
    id: str
    function: _PlainFunction
    type: str | None = None


class PlainMessage(Struct, forbid_unknown_fields=True, gc=False):
    """A message with texts, images and tool calls: no number is in it, and nothing that could be deep."""

    role: str
    content: str | Annotated[list[_PlainPart], _Few] | None = None
    name: str | None = None
    tool_calls: Annotated[list[_PlainToolCall], _Few] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
