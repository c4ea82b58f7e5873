"""Gemini's answers, as its API writes them: whole responses and streams, for fakes and comparisons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fakes.scripts import Headers, Script, stream, whole
from fakes.upstream import Exchange

Json = dict[str, Any]
USAGE: Json = {
    "promptTokenCount": 9,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 1,
    "totalTokenCount": 13,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
}
"""Nine tokens in, four out, one of which was thought."""


def text(said: str) -> Json:
    """Return a part of text."""
    return {"text": said}


def response(*parts: Json, finish: str | None = "STOP", **more: Any) -> Json:
    """Return a whole response, or a piece of a stream without `finish`."""
    candidate: Json = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-fake-1",
        "responseId": "r01",
        **more,
    }


def event(value: Json) -> bytes:
    """Write a piece of a stream as Google does."""
    return b"data: " + json.dumps(value).encode() + b"\r\n\r\n"


def events(*parts: Json, finish: str | None = "STOP", pieces: int = 2) -> list[bytes]:
    """Write the pieces of a whole stream, texts cut; the last one says why it ended."""
    cut: list[Json] = []
    for part in parts:
        if "text" in part:
            size = max(-(-len(part["text"]) // pieces), 1)
            cut += [{**part, "text": part["text"][at : at + size]} for at in range(0, len(part["text"]), size)]
        else:
            cut.append(part)
    return [event(response(part, finish=finish if number == len(cut) else None)) for number, part in enumerate(cut, 1)]


def error(status: int, word: str, said: str, *details: Json) -> Json:
    """Return an error's body."""
    return {"error": {"code": status, "message": said, "status": word, "details": list(details)}}


def answering(*parts: Json, finish: str = "STOP", headers: Headers = ()) -> Script:
    """Answer with these parts, streamed or whole as the URL asks."""

    async def script(exchange: Exchange) -> None:
        if ":streamGenerateContent?alt=sse" in exchange.call.target:
            await stream(events(*parts, finish=finish), end=b"")(exchange)
        else:
            assert ":generateContent" in exchange.call.target
            await whole(response(*parts, finish=finish), headers=headers)(exchange)

    return script


def read(body: bytes) -> list[Json]:
    """Return the pieces of a stream of events, without what keeps it open; an error is bare."""
    events = (part.strip() for part in body.replace(b"\r\n", b"\n").split(b"\n\n"))
    return [json.loads(part.removeprefix(b"data: ")) for part in events if part]


def assembled(found: Sequence[Json]) -> Json:
    """Return the response that a client puts together from pieces, of which only the last says why it ended."""
    parts: list[Json] = []
    for number, piece in enumerate(found, 1):
        (candidate,) = piece["candidates"]
        assert ("finishReason" in candidate) == (number == len(found))
        for part in candidate["content"]["parts"]:
            is_text = "text" in part and parts and "text" in parts[-1]
            if is_text and bool(part.get("thought")) == bool(parts[-1].get("thought")):
                parts[-1] = {**parts[-1], "text": parts[-1]["text"] + part["text"]}
            elif part != {"text": ""}:
                parts.append(part)
    last = found[-1]
    return {**last, "candidates": [{**last["candidates"][0], "content": {"parts": parts, "role": "model"}}]}
