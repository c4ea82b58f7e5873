"""The items that a response answers, page by page, as `GET /v1/responses/{id}/input_items` tells them.

Pure.
Source: https://developers.openai.com/api/reference/resources/responses/subresources/input_items (read 2026-11-23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from chatgate.protocols.reading import Json

DEFAULT_LIMIT, HIGHEST_LIMIT = 20, 100

_ID_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_PART_TYPES = {"user": "input_text", "system": "input_text", "developer": "input_text", "assistant": "output_text"}


def page_of(items: list[Json], identity: str, query: str) -> Json:
    """Return the page of `items` that a query string asks for; `identity` is the response's id without its prefix.

    Raises `CallerError` for a limit or an order that there is not, and for an item that is none of them.
    """
    wished = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    limit, order = wished.get("limit", str(DEFAULT_LIMIT)), wished.get("order", "desc")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:4]) <= HIGHEST_LIMIT):
        raise _unfit("limit")
    if order not in ("asc", "desc"):
        raise _unfit("order")
    told = [_told(item, f"in{identity}{number:02x}") for number, item in enumerate(items)]
    if order == "desc":
        told.reverse()
    start = 0
    if "after" in wished:
        start = next((number for number, item in enumerate(told, 1) if item["id"] == wished["after"]), 0)
        if not start:
            raise _unfit("after")
    page = told[start : start + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(told) > start + len(page),
    }


def _told(item: Json, name: str) -> Json:
    """Return an item with what the vendor's have and callers need not send: a type, an id, parts, a status."""
    kind = item.get("type") or "message"
    told = {"type": kind, **item}
    if not isinstance(told.get("id"), str):
        told["id"] = f"{_ID_PREFIXES.get(kind, 'item')}_{name}"
    if kind == "message":
        if isinstance(told.get("content"), str):
            part: Json = {"type": _PART_TYPES.get(str(told.get("role")), "input_text"), "text": told["content"]}
            if part["type"] == "output_text":
                part |= {"annotations": [], "logprobs": []}
            told["content"] = [part]
        told.setdefault("status", "completed")
    return told


def _unfit(field: str) -> CallerError:
    return CallerError(Kind.INVALID_VALUE, "invalid_field", param=field, parameters={"field": field})
