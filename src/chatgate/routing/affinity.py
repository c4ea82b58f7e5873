"""Which candidate served a conversation, because providers keep the beginning of a prompt per key.

Owns the memory of conversations and the rule when one has to give way. Does not make the key of a conversation and does
not ask whether a candidate may be used. Called by the plan of a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatgate.routing.candidates import Candidate

MAX_CONVERSATIONS = 10_000
"""How many are remembered; the one that has been silent longest is forgotten first."""

CONVERSATION_SECONDS = 3600.0
"""How long a silent conversation is remembered: prompts are kept by providers for minutes, seldom for an hour."""

_SKEW_FACTOR, _SKEW_CALLS = 2.0, 4.0
"""A candidate may have twice its fair share of the calls under way, and four more so that a quiet model keeps all."""

_FORGOTTEN_AT_ONCE = 2
"""Looked at per newcomer: so silent ones leave faster than others come, and no call pays for all."""


class Conversations:
    """Remembers where conversations went, in bounded memory."""

    __slots__ = ("_entries", "_max_conversations")

    def __init__(self, max_conversations: int = MAX_CONVERSATIONS) -> None:
        """Start with none."""
        self._max_conversations = max_conversations
        # With the time when each is forgotten. Every use puts an entry at the end, so the first is the oldest.
        self._entries: dict[bytes | int, tuple[Candidate, float]] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._entries)

    def remembered(self, key: bytes | int, now: float) -> Candidate | None:
        """Return where a conversation went, None when that is not known (any more).

        The conversation is remembered for another hour. `now` is in seconds and never goes back.
        """
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        candidate, until = entry
        if until <= now:
            return None
        self._entries[key] = (candidate, now + CONVERSATION_SECONDS)
        return candidate

    def remember(self, key: bytes | int, candidate: Candidate, now: float) -> None:
        """Note where a conversation goes from now on."""
        entries = self._entries
        entries.pop(key, None)
        for _ in range(_FORGOTTEN_AT_ONCE):
            if not entries:
                break
            oldest = next(iter(entries))
            if len(entries) < self._max_conversations and now < entries[oldest][1]:
                break
            del entries[oldest]
        entries[key] = (candidate, now + CONVERSATION_SECONDS)


def may_follow(candidate: Candidate, candidates: Sequence[Candidate]) -> bool:
    """Tell whether a conversation may go on where it went, so that the load stays even enough.

    `candidates` are those that a new conversation would be spread over. False when the candidate is not among them, as
    after a change of the configuration or when the conversation has changed its model.
    """
    calls = 0
    weights = 0.0
    found = False
    for each in candidates:
        calls += each.in_flight
        weights += each.weight
        if each is candidate:
            found = True
    return found and candidate.in_flight <= _SKEW_FACTOR * calls * candidate.weight / weights + _SKEW_CALLS
