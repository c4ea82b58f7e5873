"""OpenAI's list of models: read from upstreams, written for callers.

Source: https://platform.openai.com/docs/api-reference/models (read 2026-11-23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from chatgate.vocabulary.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterable

Entry = dict[str, Any]
"""A model as a list tells of it: at least `id`, `object`, `created` (Unix time) and `owned_by`."""


class _List(Struct):
    data: list[Entry]


def entry(name: str, owner: str, created: int = 0) -> Entry:
    """Return the entry of a model that the configuration or the gateway itself names."""
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def decode_list(body: bytes) -> list[Entry]:
    """Read an upstream's list; entries without a name are left out. Raises `UpstreamError`."""
    try:
        found = msgspec.json.decode(body, type=_List).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamError("upstream_bad_answer") from None
    named = (each for each in found if isinstance(each.get("id"), str) and each["id"])
    return [{**entry(each["id"], "upstream"), **each} for each in named]


def encode_list(entries: Iterable[Entry]) -> bytes:
    """Write a list."""
    return msgspec.json.encode({"object": "list", "data": list(entries)})


def encode_entry(found: Entry) -> bytes:
    """Write one model."""
    return msgspec.json.encode(found)
