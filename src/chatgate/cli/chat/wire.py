"""Own what the client says to a server and hears from it: request bodies, events and errors of the two protocols.

The plain API (`POST /{ROUTE}`) and OpenAI's chat completions are read leniently, because any server may be at the
other end: a field that is missing or of another type is as good as absent. Pure: no I/O. Called by `server`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from chatgate.vocabulary.chat import Message

PLAIN_MAX_TOKENS: Final = 3000
"""Asked of the plain API when the user names no number: its own default of 100 ends most answers early."""


class Question(Struct, frozen=True):
    """What is asked: `text`, after the whole exchanges `earlier`, under `system` ("" for none).

    `model` is "" for the server's default; `max_tokens` None when the user named no number.
    """

    text: str
    earlier: tuple[Message, ...] = ()
    system: str = ""
    model: str = ""
    max_tokens: int | None = None


class Piece(Struct, frozen=True):
    """What one event or one body says.

    `delta` is the next part of the text. `whole` is the complete text, in bodies that were not streamed and in the
    plain API's last event, else None. `ended` says that the model's answer is complete, `cut_at_limit` that the token
    limit ended it. `failure` is the server's reason why there is no answer, else None.
    """

    delta: str = ""
    whole: str | None = None
    ended: bool = False
    cut_at_limit: bool = False
    failure: str | None = None


class Dialect(Struct, frozen=True):
    """A protocol: how a question is written and how a piece of the answer is read."""

    write: Callable[[Question], dict[str, object]]
    read: Callable[[object], Piece]


def parse(data: bytes) -> object:
    """Return the JSON document, or None when it is none.

    The standard library's parser is used because it accepts halves of surrogate pairs, which some servers send in two
    events.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def well_formed(text: str) -> str:
    """Return the text fit for UTF-8: halves of surrogate pairs are joined, or replaced by U+FFFD when alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def failure_in(document: object) -> str | None:
    """Return the reason in an error document of either protocol or of a common web framework, or None.

    The plain API's `data.response` comes first: it is in the server's language, its `error` is for programs.
    """
    if _dig(document, "msg") == "failed":
        return _text(document, "data", "response") or _text(document, "error", "code") or ""
    if not _dig(document, "error"):
        return _text(document, "message") or _text(document, "detail")
    return (
        _text(document, "error", "message")
        or _text(document, "error", "code")
        or _text(document, "error", "type")
        or _text(document, "error")
        or ""
    )


def model_ids(document: object) -> list[str] | None:
    """Return the ids of OpenAI's model list in its order, or None when the document is no such list."""
    models = _dig(document, "data")
    if not isinstance(models, list):
        return None
    return [model_id for model in models if (model_id := _text(model, "id"))]


def _write_openai(question: Question) -> dict[str, object]:
    system = [Message("system", question.system)] if question.system else []
    messages = [*system, *question.earlier, Message("user", question.text)]
    body: dict[str, object] = {"model": question.model, "messages": messages, "stream": True}
    if question.max_tokens is not None:
        body["max_tokens"] = question.max_tokens
    return body


def _read_openai(document: object) -> Piece:
    # Only these two mean a failure here: a `message` at the top of a good answer would be somebody's extension.
    if _dig(document, "error") or _dig(document, "msg") == "failed":
        return Piece(failure=failure_in(document) or "")
    finish_reason = _text(document, "choices", 0, "finish_reason")
    return Piece(
        delta=_text(document, "choices", 0, "delta", "content"),
        whole=_text(document, "choices", 0, "message", "content") or None,
        ended=bool(finish_reason),
        cut_at_limit=finish_reason == "length",
    )


def _write_plain(question: Question) -> dict[str, object]:
    body: dict[str, object] = {
        "user_content": question.text,
        "continuous": question.earlier,
        "max_tokens": PLAIN_MAX_TOKENS if question.max_tokens is None else question.max_tokens,
        "stream": True,
    }
    if question.system:
        body["sys_content"] = question.system
    if question.model:
        body["model"] = question.model
    return body


def _read_plain(document: object) -> Piece:
    if _dig(document, "error") or _dig(document, "msg") == "failed":
        return Piece(failure=failure_in(document) or "")
    whole = _text(document, "data", "response") or _text(document, "current_response")
    return Piece(
        delta=_text(document, "delta"), whole=whole or None, ended=bool(whole) or _dig(document, "msg") == "success"
    )


OPENAI: Final = Dialect(_write_openai, _read_openai)
PLAIN: Final = Dialect(_write_plain, _read_plain)


def _dig(document: object, *path: str | int) -> object:
    """Follow names and positions into a JSON document; None where one is absent."""
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return None
    return document


def _text(document: object, *path: str | int) -> str:
    """Follow the path to a string; "" where there is none."""
    found = _dig(document, *path)
    return found if isinstance(found, str) else ""
