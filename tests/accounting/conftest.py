"""What the tests of the journal share."""

from __future__ import annotations

import pytest

from accounting.journals import Clock


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()
