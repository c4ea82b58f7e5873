"""How long to wait before the same target is tried again.

Pure arithmetic. Called by the attempts, who do the waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_CEILING_SECONDS: Final = 0.2
"""The longest wait before the first repetition; it doubles with each further one. Most failures that pass at all pass
at once, and a person is waiting."""

MAX_CEILING_SECONDS: Final = 2.0
"""Where doubling ends: longer waits are for a target that names one, or for the circuit."""

MIN_SECONDS: Final = 0.02
"""The shortest wait: a connection reset by a restarting process is not answered better in the same millisecond."""

FAILOVER_COST_SECONDS: Final = 5.0
"""What going to another model costs instead of waiting: it is not the one asked for, and has no prompt cache."""


def delay_seconds(attempt: int, random: Callable[[], float]) -> float:
    """Return the wait in seconds before a repetition, `attempt` counting them from 1.

    It is drawn evenly from 0 to a ceiling that doubles ("full jitter"), so that callers who failed together do not come
    back together. `random` returns a number of [0, 1).
    """
    ceiling = min(FIRST_CEILING_SECONDS * 2.0 ** (attempt - 1), MAX_CEILING_SECONDS)
    return max(ceiling * random(), MIN_SECONDS)


def honoured_wait(retry_after_seconds: float, left_seconds: float, *, can_fail_over: bool) -> float | None:
    """Return how long to wait when a target names a time, or None when it is not to be tried again for this call.

    `left_seconds` is what is left of the call's deadline: an answer that could only begin after it is none. With
    `can_fail_over` another target could be used instead, and is not worth waiting for longer than going there takes.
    """
    if retry_after_seconds < left_seconds and (not can_fail_over or retry_after_seconds <= FAILOVER_COST_SECONDS):
        return max(retry_after_seconds, 0.0)
    return None
