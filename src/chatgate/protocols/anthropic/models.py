"""Anthropic's list of models, written for callers from OpenAI's entries.

Source: https://platform.claude.com/docs/en/api/models-list (read 2026-11-23).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qs

import msgspec

from chatgate.protocols.openai_models import Entry
from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import CallerError, Kind

LIMIT_DEFAULT, LIMIT_HIGH = 20, 1000
"""How many models a page has, and may have."""


def encode_list(entries: Sequence[Entry], query: str) -> bytes:
    """Write a page of a list; `query` is the URL's: `limit`, `after_id`, `before_id`. Raises `CallerError`."""
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    limit = _limit(asked.get("limit"))
    names = [each["id"] for each in entries]
    first, last = 0, len(entries)
    if asked.get("after_id") in names:
        first = names.index(asked["after_id"]) + 1
    if asked.get("before_id") in names:
        last = names.index(asked["before_id"])
        first = max(first, last - limit)
    page = [_model(each) for each in entries[first:last][:limit]]
    has_more = first > 0 if "before_id" in asked else first + len(page) < last
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return msgspec.json.encode({"data": page, "has_more": has_more, **ends})


def encode_entry(found: Entry) -> bytes:
    """Write one model."""
    return msgspec.json.encode(_model(found))


def _model(entry: Entry) -> Json:
    created = entry.get("created")
    at = datetime.fromtimestamp(created if isinstance(created, int) and created >= 0 else 0, UTC)
    return {
        "type": "model",
        "id": entry["id"],
        "display_name": entry["id"],
        "created_at": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "lifecycle": "active",
        "capabilities": None,
        "max_input_tokens": None,
        "max_tokens": None,
    }


def _limit(asked: str | None) -> int:
    if asked is None:
        return LIMIT_DEFAULT
    if not asked.isascii() or not asked.isdigit() or not 1 <= int(asked) <= LIMIT_HIGH:
        parameters: dict[str, str | int] = {"field": "limit", "low": 1, "high": LIMIT_HIGH}
        raise CallerError(Kind.INVALID_VALUE, "out_of_range", param="limit", parameters=parameters)
    return int(asked)
