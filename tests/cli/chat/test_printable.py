"""What may reach a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from chatgate.cli.chat.printable import printable


def test_an_escape_sequence_loses_its_escape() -> None:
    """Colour, title and cursor sequences are left without the character that makes them one, in C0 and in C1."""
    assert printable("a\x1b[31mb\x07\x9b2Jc\r\n\td") == "a[31mb2Jc\n\td"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(min_value=0))
def test_a_cut_does_not_matter(text: str, cut: int) -> None:
    """Cleaning two parts is cleaning the whole, and no control character but newline and tab is left."""
    cut = min(cut, len(text))
    clean = printable(text)
    assert clean == printable(text[:cut]) + printable(text[cut:])
    assert {character for character in clean if unicodedata.category(character) == "Cc"} <= {"\n", "\t"}
