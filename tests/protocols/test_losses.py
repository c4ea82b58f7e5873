"""What a translation could not carry is refused or told, each kind of field once."""

from __future__ import annotations

import pytest

from chatgate.protocols.losses import Losses
from chatgate.vocabulary.errors import CallerError, Kind, Remedy


def test_hints_are_told_once() -> None:
    """Places in lists are left out of what is told."""
    losses = Losses()
    for index in range(3):
        losses.hint(f"tools[{index}].cache_control")
    losses.hint("seed")
    assert losses.dropped(drops_parts=False) == ("tools[].cache_control", "seed")


def test_the_first_part_is_refused_by_its_exact_place() -> None:
    """Unless parts may go missing; then they are told before the hints."""
    losses = Losses()
    losses.hint("seed")
    losses.part("messages[3].content[1]")
    losses.part("n")
    with pytest.raises(CallerError) as caught:
        losses.dropped(drops_parts=False)
    error = caught.value
    assert (error.kind, error.reason, error.param) == (Kind.INVALID_VALUE, "not_carried", "messages[3].content[1]")
    assert (error.remedy, error.parameters) == (Remedy.ANOTHER_TARGET, {"field": "messages[3].content[1]"})
    assert losses.dropped(drops_parts=True) == ("messages[].content[]", "n", "seed")
