"""The items that a response answers are told page by page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols.responses.pages import page_of
from chatgate.vocabulary.errors import CallerError
from fakes.vendor_schemas import check

ITEMS = [
    {"role": "user", "content": "Look"},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}", "status": "completed"},
    {"type": "function_call_output", "call_id": "c1", "output": "Sea", "status": "completed"},
    {"type": "message", "id": "msg_7", "role": "assistant", "content": "Blue"},
]


def test_items_have_what_the_vendors_have() -> None:
    """An id, a type, parts and a status; the last is the first, unless the other order is asked for."""
    page = page_of(ITEMS, "one", "")
    check("openai", "ResponseItemList", page)
    assert [item["type"] for item in page["data"]] == ["message", "function_call_output", "function_call", "message"]
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("msg_7", page["data"][3]["id"], False)
    assert page["data"][3]["content"] == [{"type": "input_text", "text": "Look"}]
    assert page_of(ITEMS, "one", "order=asc")["data"] == page["data"][::-1]
    assert page_of([], "one", "")["first_id"] is None


@given(st.integers(0, 12), st.integers(1, 5), st.sampled_from(["asc", "desc"]))
def test_pages_follow_each_other(items: int, limit: int, order: str) -> None:
    """Together they are all items, each once."""
    said = [{"role": "user", "content": f"{number}"} for number in range(items)]
    told: list[str] = []
    after = ""
    for _ in range(items + 1):
        page = page_of(said, "one", f"limit={limit}&order={order}{after}")
        told += [item["content"][0]["text"] for item in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert told == [f"{number}" for number in (range(items) if order == "asc" else reversed(range(items)))]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=", "order=up", "after=msg_none", "limit=²"]
)
def test_what_makes_no_page_is_refused(query: str) -> None:
    """By its name."""
    with pytest.raises(CallerError) as caught:
        page_of(ITEMS, "one", query)
    assert caught.value.param == query.partition("=")[0]
