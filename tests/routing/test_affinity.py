"""Conversations stay where they were, in bounded memory, and give way when that would overload somebody."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from chatgate.routing.affinity import CONVERSATION_SECONDS, MAX_CONVERSATIONS, Conversations, may_follow
from chatgate.routing.budget import RetryBudget
from chatgate.routing.candidates import Candidate, CredentialState, UpstreamState
from chatgate.routing.circuit import Circuit
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

UPSTREAM = Upstream("first", "openai", Origin("https", "first.invalid", 443), "/v1")


def candidates(loads: Sequence[tuple[int, int]]) -> list[Candidate]:
    """Return candidates of these weights, with so many calls under way."""
    state = UpstreamState("first", 0, RetryBudget())
    found = []
    for number, (weight, in_flight) in enumerate(loads):
        target = Target(UPSTREAM, f"m{number}")
        found.append(Candidate(target, Circuit(lambda: 0.0), CredentialState(), state, float(weight)))
        found[-1].in_flight = in_flight
    return found


A, B, C = candidates([(1, 0), (1, 0), (1, 0)])


def test_a_conversation_is_remembered_where_it_went_last() -> None:
    """By its own key, until it goes elsewhere."""
    conversations = Conversations()
    assert conversations.remembered(b"one", 0.0) is None
    conversations.remember(b"one", A, 0.0)
    conversations.remember(2, B, 0.0)
    assert conversations.remembered(b"one", 1.0) is A
    assert conversations.remembered(2, 1.0) is B
    conversations.remember(b"one", C, 2.0)
    assert conversations.remembered(b"one", 3.0) is C


def test_a_silent_conversation_is_forgotten_after_an_hour() -> None:
    """And one that goes on is not."""
    conversations = Conversations()
    conversations.remember(b"busy", A, 0.0)
    conversations.remember(b"silent", A, 0.0)
    assert conversations.remembered(b"busy", CONVERSATION_SECONDS - 1) is A
    assert conversations.remembered(b"silent", CONVERSATION_SECONDS) is None
    assert conversations.remembered(b"busy", 2 * CONVERSATION_SECONDS - 2) is A
    assert conversations.remembered(b"busy", 3 * CONVERSATION_SECONDS) is None
    assert len(conversations) == 0


def test_silent_conversations_leave_as_others_come() -> None:
    """The memory is given back before it is full, and sooner than it is taken."""
    conversations = Conversations()
    for number in range(100):
        conversations.remember(number, A, 0.0)
    for number in range(100, 160):
        conversations.remember(number, A, CONVERSATION_SECONDS)
    assert len(conversations) == 60
    assert conversations.remembered(100, CONVERSATION_SECONDS) is A


def test_there_is_room_for_so_many() -> None:
    """The one that was silent longest makes room."""
    conversations = Conversations()
    for number in range(MAX_CONVERSATIONS):
        conversations.remember(number, A, 0.0)
    assert conversations.remembered(0, 1.0) is A
    conversations.remember(MAX_CONVERSATIONS, A, 1.0)
    assert len(conversations) == MAX_CONVERSATIONS
    assert conversations.remembered(0, 1.0) is A
    assert conversations.remembered(1, 1.0) is None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, A, B]), st.integers(0, 2000)), max_size=80),
    st.integers(1, 6),
)
def test_it_remembers_as_its_description_says(
    events: list[tuple[int, Candidate | None, int]], max_conversations: int
) -> None:
    """A list of the latest uses, cut to size, gives the same answers; None stands for a question."""
    conversations = Conversations(max_conversations)
    latest: OrderedDict[int, tuple[Candidate, float]] = OrderedDict()
    now = 0.0
    for key, candidate, seconds in events:
        now += seconds
        latest = OrderedDict((each, use) for each, use in latest.items() if now < use[1] + CONVERSATION_SECONDS)
        use = latest.pop(key, None)
        if candidate is not None:
            conversations.remember(key, candidate, now)
            latest[key] = (candidate, now)
        else:
            assert conversations.remembered(key, now) is (use[0] if use else None)
            if use is not None:
                latest[key] = (use[0], now)
        while len(latest) > max_conversations:
            latest.popitem(last=False)
        assert len(conversations) <= max_conversations


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), min_size=1, max_size=6), st.data())
def test_the_skew_is_bounded(loads: list[tuple[int, int]], data: st.DataObject) -> None:
    """A conversation may follow while its candidate has at most twice its fair share and four calls more."""
    everyone = candidates(loads)
    at = data.draw(st.integers(0, len(loads) - 1))
    weight, in_flight = loads[at]
    fair = Fraction(sum(calls for _, calls in loads) * weight, sum(each for each, _ in loads))
    # Not at the border itself, where a quotient may be rounded to either side.
    if in_flight != 2 * fair + 4:
        assert may_follow(everyone[at], everyone) is (in_flight < 2 * fair + 4)


def test_a_quiet_model_keeps_its_conversations() -> None:
    """Up to four calls at one candidate are nobody's overload, and the only one is never overloaded."""
    lone, _ = everyone = candidates([(1, 4), (100, 0)])
    assert may_follow(lone, everyone)
    lone.in_flight = 5
    assert not may_follow(lone, everyone)
    assert may_follow(lone, [lone])


def test_nobody_follows_to_where_the_model_is_no_longer_served() -> None:
    """After a reload a conversation may remember a candidate of the past."""
    assert not may_follow(A, [B, C])
    assert not may_follow(A, [])
