"""What a provider says when it is well: a text in which every lost or doubled word is seen, in OpenAI's format.

Does no input or output. Called by `faults`, which writes it well or badly, and by `judge`, which knows it by heart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

WORDS: Final = tuple(f"tok{number}" if number % 8 else f"tok{number}→词" for number in range(60))
"""The answer of every provider that is well. Some words are longer in bytes than in characters, to be cut in two."""

OTHER_WORDS: Final = tuple(f"alt{number}" for number in range(60))
"""The answer of a provider that has its own mind."""

TEXT: Final = " ".join(WORDS)
OTHER_TEXT: Final = " ".join(OTHER_WORDS)
_PROMPT_TOKENS: Final = 21
_CREATED: Final = 1_700_000_000

Event = Mapping[str, object]


def pieces(words: Sequence[str], *, goes_on: bool = False) -> list[str]:
    """Return the words as a stream says them, each with the blank before it; `goes_on` says that some were said."""
    return [word if number == 0 and not goes_on else f" {word}" for number, word in enumerate(words)]


def left_after(said: str, words: Sequence[str]) -> list[str] | None:
    """Return the pieces that follow what was said already; None when the text did not begin like that."""
    text = " ".join(words)
    if not text.startswith(said):
        return None
    at, left = 0, []
    for piece in pieces(words):
        if at + len(piece) > len(said):
            left.append(piece[max(0, len(said) - at) :])
        at += len(piece)
    return left


def completion(model: str, said: Sequence[str]) -> bytes:
    """Return a whole answer as JSON."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "".join(said)}, "finish_reason": "stop"}
    head = {"id": "chatcmpl-drill", "object": "chat.completion", "created": _CREATED, "model": model}
    return json.dumps(head | {"choices": [choice], "usage": _usage(len(said))}, ensure_ascii=False).encode()


def events(model: str, said: Sequence[str], *, usage: bool) -> list[bytes]:
    """Return a streamed answer's data: the role, a piece each, the finish, and the usage when it was asked for."""
    chunks = [chunk(model, {"role": "assistant", "content": ""})]
    chunks += [chunk(model, {"content": piece}) for piece in said]
    chunks.append(chunk(model, {}, finish="stop"))
    if usage:
        chunks.append(chunk(model, None, usage=_usage(len(said))))
    return chunks


def chunk(model: str, delta: Event | None, *, finish: str | None = None, **more: object) -> bytes:
    """Return the data of one event of a stream; without a delta it has no choices, like the one with the usage."""
    head = {"id": "chatcmpl-drill", "object": "chat.completion.chunk", "created": _CREATED, "model": model}
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps(head | {"choices": choices} | more, ensure_ascii=False).encode()


def error(message: str, kind: str = "server_error", code: str | None = None) -> bytes:
    """Return an error as OpenAI words it, as JSON."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def _usage(tokens: int) -> Event:
    return {"prompt_tokens": _PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": _PROMPT_TOKENS + tokens}
