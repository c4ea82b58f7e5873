"""The list of models as Anthropic's clients read it."""

from __future__ import annotations

import json

import pytest

from chatgate.protocols import openai_models
from chatgate.protocols.anthropic import models
from chatgate.vocabulary.errors import CallerError
from fakes.vendor_schemas import check

ENTRIES = [openai_models.entry(name, "x", 1_700_000_000) for name in "abcde"]


def test_a_model_is_what_the_vendor_says() -> None:
    """Its time is written as a date."""
    model = json.loads(models.encode_entry(ENTRIES[0]))
    check("anthropic", "ModelInfo", model)
    assert (model["id"], model["created_at"], model["lifecycle"]) == ("a", "2023-11-14T22:13:20Z", "active")


@pytest.mark.parametrize(
    ("query", "names", "has_more"),
    [
        ("", "abcde", False),
        ("limit=1000", "abcde", False),
        ("limit=2", "ab", True),
        ("limit=2&after_id=b", "cd", True),
        ("limit=2&after_id=d", "e", False),
        ("limit=2&before_id=d", "bc", True),
        ("limit=2&before_id=b", "a", False),
        ("after_id=e", "", False),
    ],
)
def test_pages_follow_each_other(query: str, names: str, has_more: bool) -> None:  # noqa: FBT001 - a table's column
    """Clients ask for what comes after or before an id."""
    page = json.loads(models.encode_list(ENTRIES, query))
    check("anthropic", "ListResponse_ModelInfo_", page)
    assert ("".join(each["id"] for each in page["data"]), page["has_more"]) == (names, has_more)
    assert (page["first_id"], page["last_id"]) == ((names[0], names[-1]) if names else (None, None))


@pytest.mark.parametrize("limit", ["0", "1001", "x", "²"])
def test_a_page_has_bounds(limit: str) -> None:
    """As the vendor's own."""
    with pytest.raises(CallerError):
        models.encode_list(ENTRIES, f"limit={limit}")
