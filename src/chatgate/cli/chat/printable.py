"""Own what may reach a terminal: text of a model or a server must not move its cursor or reprogram it.

Called by whatever prints to one.
"""

from __future__ import annotations

from typing import Final

_CONTROLS: Final = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})


def printable(text: str) -> str:
    """Return the text without control characters, C0 and C1 alike; newlines and tabs stay.

    Each character is judged alone, so that a sequence cut between two parts of a stream does not slip through.
    """
    return text.translate(_CONTROLS)
