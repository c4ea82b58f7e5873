"""The body of an OpenAI chat as requests of other protocols become it, and are made from it.

Owns what those translations have in common, whatever the other protocol is. Pure.
Source: https://platform.openai.com/docs/api-reference/chat/create (read 2026-11-23).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from chatgate.protocols.losses import Losses
    from chatgate.protocols.reading import Json
    from chatgate.vocabulary.upstreams import Continuation, Target

EFFORT_BUDGETS = ((4096, "low"), (16384, "medium"))
"""Up to so many tokens of thinking are this effort; more is `high`."""

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,")


def addressed(body: Json, target: Target) -> bytes:
    """Write a body for a target: under its model's name, with a stream's count asked for, in the names used there."""
    if target.sent_model is not None:
        body["model"] = target.sent_model
    if body.get("stream"):
        body["stream_options"] = {"include_usage": True}
    for name, theirs in target.upstream.renamed.items():
        if name in body:
            body[theirs] = body.pop(name)
    return msgspec.json.encode(body)


def effort_of(budget_tokens: int) -> str:
    """Return the effort that a budget of tokens for thinking is."""
    return next((effort for most, effort in EFFORT_BUDGETS if budget_tokens <= most), "high")


def prefill(body: Json, losses: Losses, continuation: Continuation | None, path: str) -> None:
    """Have the upstream go on with the assistant's message that the dialogue ends with, if it does.

    `path` is where the caller's dialogue is; it is a part that gets lost when the upstream cannot do that.
    """
    last = body["messages"][-1]
    if last["role"] != "assistant" or "tool_calls" in last:
        return
    match continuation:
        case None:
            losses.part(path)
        case "prefix" | "partial":
            last[continuation] = True
        case "continue_final_message":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        case "assistant_last":
            pass


def joined(parts: list[Json]) -> str | list[Json]:
    """Return text alone as one text: many servers take no list of parts."""
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join(part["text"] for part in parts)
    return parts


def inline_data(url: str) -> tuple[str, str] | None:
    """Return the media type and the base64 text of a data URL, None for any other."""
    found = _DATA_URL.match(url)
    return (found[1], url[found.end() :]) if found is not None else None
