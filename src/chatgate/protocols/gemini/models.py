"""Gemini's list of models: written for callers from OpenAI's entries, and read from upstreams as such.

Source: https://ai.google.dev/api/models (read 2026-11-23).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from chatgate.protocols.openai_models import Entry, entry
from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import CallerError, Kind, UpstreamError

PREFIX = "models/"
LIMIT_DEFAULT, LIMIT_HIGH = 50, 1000
"""How many models a page has, and may have."""

_METHODS = ["generateContent", "countTokens"]


class _List(Struct):
    models: list[dict[str, Any]] = []


def encode_list(entries: Sequence[Entry], query: str) -> bytes:
    """Write a page of a list; `query` is the URL's: `pageSize` and `pageToken`. Raises `CallerError`."""
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    size = _number(asked, "pageSize", "page_size", LIMIT_DEFAULT, 1, LIMIT_HIGH)
    first = _number(asked, "pageToken", "page_token", 0, 0, len(entries))
    told: Json = {"models": [_model(each) for each in entries[first : first + size]]}
    if first + size < len(entries):
        told["nextPageToken"] = str(first + size)
    return msgspec.json.encode(told)


def encode_entry(found: Entry) -> bytes:
    """Write one model."""
    return msgspec.json.encode(_model(found))


def decode_list(body: bytes) -> list[Entry]:
    """Read an upstream's list; entries without a name are left out. Raises `UpstreamError`."""
    try:
        found = msgspec.json.decode(body, type=_List).models
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamError("upstream_bad_answer") from None
    names = (each.get("name") for each in found)
    return [entry(name.removeprefix(PREFIX), "google") for name in names if isinstance(name, str) and name]


def _model(found: Entry) -> Json:
    return {
        "name": f"{PREFIX}{found['id']}",
        "version": "1",
        "displayName": found["id"],
        "supportedGenerationMethods": _METHODS,
    }


def _number(asked: dict[str, str], name: str, other: str, usual: int, low: int, high: int) -> int:
    told = asked.get(name) or asked.get(other)
    if told is None:
        return usual
    if not told.isascii() or not told.isdigit() or not low <= int(told[:9]) <= high:
        parameters: dict[str, str | int] = {"field": name, "low": low, "high": high}
        raise CallerError(Kind.INVALID_VALUE, "out_of_range", param=name, parameters=parameters)
    return int(told)
