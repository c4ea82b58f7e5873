"""The text that providers of the drill say, and how it is cut."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from chatgate.drill import answers
from chatgate.drill.answers import OTHER_WORDS, TEXT, WORDS


def test_no_word_can_take_the_place_of_another() -> None:
    """A lost, doubled or exchanged word changes the text."""
    assert len(set(WORDS)) == len(WORDS) == 60
    assert not set(WORDS) & set(OTHER_WORDS)
    assert len(TEXT.encode()) > len(TEXT)


@given(st.integers(0, len(TEXT)))
def test_what_was_said_and_what_is_left_are_the_text(cut: int) -> None:
    """A text continues at whatever character it stopped."""
    left = answers.left_after(TEXT[:cut], WORDS)
    assert left is not None
    assert TEXT[:cut] + "".join(left) == TEXT
    assert all(left)


@given(st.text(min_size=1).filter(lambda text: not TEXT.startswith(text)))
def test_nothing_follows_what_was_not_said(said: str) -> None:
    """Another text is not continued."""
    assert answers.left_after(said, WORDS) is None


def test_both_forms_say_the_same() -> None:
    """The pieces of a stream and a whole answer are the text."""
    said = answers.pieces(WORDS)
    assert json.loads(answers.completion("m", said))["choices"][0]["message"]["content"] == TEXT
    chunks = [json.loads(event) for event in answers.events("m", said, usage=True)]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == TEXT
    assert chunks[-1]["usage"]["completion_tokens"] == 60
    assert {chunk["model"] for chunk in chunks} == {"m"}
