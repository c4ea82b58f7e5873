"""Calls are spread by weight, exactly and at every moment, or go to whoever has the fewest under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.routing.balance import Balancer, LeastLoaded, SmoothWeighted
from chatgate.routing.budget import RetryBudget
from chatgate.routing.candidates import Candidate, CredentialState, UpstreamState
from chatgate.routing.circuit import Circuit
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

UPSTREAM = Upstream("first", "openai", Origin("https", "first.invalid", 443), "/v1")

weights = st.lists(st.integers(1, 9) | st.integers(1, 1000), min_size=1, max_size=12)
balancers = pytest.mark.parametrize("balancer", [SmoothWeighted(), LeastLoaded()])


def candidates(shares: Sequence[int]) -> list[Candidate]:
    """Return candidates of these weights, with no call under way."""
    state = UpstreamState("first", 0, RetryBudget())
    return [
        Candidate(Target(UPSTREAM, f"m{number}"), Circuit(lambda: 0.0), CredentialState(), state, float(share))
        for number, share in enumerate(shares)
    ]


def models(balancer: Balancer, among: Sequence[Candidate], calls: int) -> list[str]:
    """Return which models the next calls go to."""
    return [str(balancer.choose(among).target.sent_model) for _ in range(calls)]


@balancers
@given(shares=weights, calls=st.integers(1, 400))
def test_everybody_has_its_share_at_every_moment(balancer: Balancer, shares: list[int], calls: int) -> None:
    """After any number of calls nobody is a whole call ahead or behind."""
    everyone = candidates(shares)
    counts: Counter[int] = Counter()
    for call in range(1, calls + 1):
        counts[everyone.index(balancer.choose(everyone))] += 1
        assert all(abs(counts[at] * sum(shares) - share * call) < sum(shares) for at, share in enumerate(shares))


def test_the_share_holds_where_serving_the_most_owed_does_not_keep_it() -> None:
    """Weights for which nginx's rule leaves a candidate a whole call behind."""
    shares = [10, 1, 1, 3, 1, 3, 98, 3, 3, 3, 98]
    everyone = candidates(shares)
    counts: Counter[int] = Counter()
    for call in range(1, 4 * sum(shares) + 1):
        counts[everyone.index(SmoothWeighted().choose(everyone))] += 1
        assert all(abs(counts[at] * sum(shares) - share * call) < sum(shares) for at, share in enumerate(shares))


@balancers
def test_calls_are_spread_out_not_bunched(balancer: Balancer) -> None:
    """The order of a round, of equals the first one first; the next round is the same."""
    assert models(balancer, candidates([1, 1, 1]), 6) == ["m0", "m1", "m2"] * 2
    assert models(balancer, candidates([2, 1, 1]), 8) == ["m0", "m1", "m0", "m2"] * 2
    assert models(balancer, candidates([3, 2]), 10) == ["m0", "m1", "m0", "m0", "m1"] * 2


@given(shares=weights, data=st.data())
def test_whoever_may_be_used_is_chosen_from(shares: list[int], data: st.DataObject) -> None:
    """Whatever comes and goes, the choice is a usable one, and nobody is owed more than a few calls."""
    everyone = candidates(shares)
    some = st.lists(st.sampled_from(everyone), min_size=1, unique_by=id)
    for usable in data.draw(st.lists(some, max_size=50)):
        assert SmoothWeighted().choose(usable) in usable
        assert sum(each.current_weight for each in everyone) == 0
        assert all(abs(each.current_weight) <= len(shares) * sum(shares) for each in everyone)


def test_an_absence_is_neither_punished_nor_made_up_for() -> None:
    """Whoever comes back gets its share from then on, not what it missed."""
    everyone = candidates([1, 1])
    models(SmoothWeighted(), everyone, 3)
    models(SmoothWeighted(), everyone[1:], 1000)
    assert Counter(models(SmoothWeighted(), everyone, 101)) == {"m0": 50, "m1": 51}


def test_when_those_who_are_owed_are_away_the_others_share() -> None:
    """Candidates that have all had more than their share go on by weight."""
    everyone = candidates([1, 1, 1, 1])
    models(SmoothWeighted(), everyone, 2)
    first_two = everyone[:2]
    assert all(each.current_weight < 0 for each in first_two)
    assert Counter(models(SmoothWeighted(), first_two, 100)) == {"m0": 50, "m1": 50}


@given(loads=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=8))
def test_the_least_loaded_has_the_fewest_calls_for_its_weight(loads: list[tuple[int, int]]) -> None:
    """Nobody has a smaller load than the chosen one."""
    everyone = candidates([share for share, _ in loads])
    for candidate, (_, calls) in zip(everyone, loads, strict=True):
        candidate.in_flight = calls
    chosen = LeastLoaded().choose(everyone)
    least = min(Fraction(calls, share) for share, calls in loads)
    assert Fraction(chosen.in_flight, int(chosen.weight)) == least


def test_long_calls_keep_others_away() -> None:
    """Calls under way count in relation to the weight; what a busy one missed is not made up for."""
    slow, fast = everyone = candidates([2, 1])
    slow.in_flight = 3
    assert models(LeastLoaded(), everyone, 100) == ["m1"] * 100
    fast.in_flight = 2
    assert models(LeastLoaded(), everyone, 1) == ["m0"]
    slow.in_flight = fast.in_flight = 0
    assert Counter(models(LeastLoaded(), everyone, 300)) == {"m0": 200, "m1": 100}


@balancers
def test_the_only_one_is_chosen(balancer: Balancer) -> None:
    """And owes nothing for it."""
    (only,) = candidates([7])
    assert balancer.choose([only]) is only
    assert only.current_weight == 0
