"""Tokens are estimated near what a tokenizer counts, and nothing makes the estimate fail or take long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols import token_estimate

ENGLISH = (
    "At the edge of a small town stood a gate, and beside it sat a keeper who knew every road behind it. Travellers "
    "came with questions in all the languages of the world. Some wanted the shortest way, some the cheapest, and some "
    "did not know where they wanted to go, only that they had to start somewhere."
)
CHINESE = "小镇边上有一扇门，门旁坐着一位守门人，她认识门后的每一条路。旅人们带着各种语言的问题来到这里。"  # noqa: RUF001 - it is Chinese
RUSSIAN = "На краю маленького города стояли ворота, а рядом сидела хранительница, знавшая каждую дорогу за ними."  # noqa: RUF001 - it is Russian
CODE = """\
def find(self, method: str, path: str) -> Endpoint:
    methods = self._paths.get(path)
    return methods[method]
"""


# Counted with o200k_base by toktok-rs 0.3.0 on 2026-11-23.
@pytest.mark.parametrize(("text", "counted"), [(ENGLISH, 66), (CHINESE, 39), (RUSSIAN, 29), (CODE, 30)])
def test_an_estimate_is_near_the_count(text: str, counted: int) -> None:
    """Within a fifth, which is what short texts allow."""
    assert token_estimate.estimated(text * 3) == pytest.approx(3 * counted, rel=0.2)
    assert token_estimate.of_text(text) == counted


def test_without_the_extra_there_is_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for what the tokenizer does not take."""
    assert token_estimate.of_text("half \ud800 of it") == token_estimate.estimated("half \ud800 of it")
    monkeypatch.setattr(token_estimate, "_count", None)
    assert token_estimate.of_text(ENGLISH) == token_estimate.estimated(ENGLISH) != 66


def test_only_what_a_model_reads_is_counted() -> None:
    """The data of an image or a file is no text."""
    text: Any = {"type": "text", "text": ENGLISH, "cache_control": {"type": "ephemeral"}}
    assert 60 <= token_estimate.of_json(text) <= 75
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1_000_000}}
    assert token_estimate.of_json([text, image]) == token_estimate.of_json(text) + token_estimate.IMAGE_TOKENS
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 120_000}}
    assert 1500 <= token_estimate.of_json(pdf) <= 3000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_anything_has_an_estimate(value: Any) -> None:
    """Never below nothing."""
    assert token_estimate.of_json(value) >= 0


@given(st.text(), st.text())
def test_more_text_never_has_fewer_tokens(first: str, second: str) -> None:
    """A space between two texts only adds them up."""
    both = token_estimate.estimated(f"{first} {second}")
    assert both >= max(token_estimate.estimated(first), token_estimate.estimated(second)) - 1
