"""A call's way: which target first, which next, after what wait, and when there is nothing left to try."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.routing.backoff import FAILOVER_COST_SECONDS, MIN_SECONDS
from chatgate.routing.budget import FREE_RETRIES, RetryBudget
from chatgate.routing.candidates import SOON_SECONDS, Candidate
from chatgate.routing.circuit import COOLDOWN_SECONDS, FAILURES_TO_OPEN, Circuit, CircuitState
from chatgate.routing.plan import Plan
from chatgate.routing.states import States
from chatgate.routing.table import ModelSpec, Routing
from chatgate.vocabulary.errors import Blame, CallerError, GateError, Kind, Overloaded, Remedy, UpstreamError
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

NOW = 1000.0
TOTAL_SECONDS = 100.0


def upstream(name: str, *, keys: int = 0, max_in_flight: int = 0) -> Upstream:
    """Return an account at a provider of that name."""
    api_keys = tuple(f"sk-test-{name}-{number}" for number in range(1, keys + 1))
    origin = Origin("https", f"{name}.invalid", 443)
    return Upstream(name, "openai", origin, "/v1", api_keys, max_in_flight=max_in_flight)


A, B, C = upstream("a"), upstream("b"), upstream("c")


def target(at: Upstream, *, key: int = 1, priority: int = 0, context_tokens: int | None = None) -> Target:
    """Return a target that is sent the model's own name."""
    api_key = at.api_keys[key - 1] if at.api_keys else ""
    return Target(at, None, api_key, key, priority=priority, context_tokens=context_tokens)


def model(name: str, *targets: Target, fallbacks: tuple[str, ...] = ()) -> ModelSpec:
    """Return a model."""
    return ModelSpec(name, targets, fallbacks=fallbacks)


class World:
    """Models and what is known of their targets."""

    def __init__(self, *models: ModelSpec) -> None:
        """Begin with everything well."""
        states = States(lambda _: Circuit(lambda: 0.5), lambda _: RetryBudget())
        self.routing = Routing(models, default_targets=(Target(A),), reserved_prefix="demo/", states=states)
        self.first = models[0].name

    def plan(self, *, max_retries: int = 2, remembered: Candidate | None = None, now: float = NOW) -> Plan:
        """Begin a call for the first model."""
        return Plan.begin(
            self.routing.find(self.first),
            now,
            max_retries=max_retries,
            give_up_at=NOW + TOTAL_SECONDS,
            random=lambda: 0.5,
            remembered=remembered,
        )

    def candidate(self, name: str) -> Candidate:
        """Return a target by the name that the log has for it."""
        routes = [self.routing.find(each) for each in self.routing.names]
        return next(each for route in routes for each in route.candidates if each.target.name == name)

    def open(self, name: str, *, now: float = NOW) -> None:
        """Have a target fail until its circuit opens."""
        for _ in range(FAILURES_TO_OPEN):
            self.candidate(name).circuit.failed(now)


def failure() -> UpstreamError:
    """Return a failure that may pass."""
    return UpstreamError("upstream_failed")


def silence() -> UpstreamError:
    """Return the failure of a target that said nothing for too long."""
    error = UpstreamError("upstream_silent", kind=Kind.UPSTREAM_TIMEOUT)
    error.remedy = Remedy.ANOTHER_TARGET
    return error


def busy(seconds: float | None = None) -> CallerError:
    """Return "too many calls"."""
    return judged(Remedy.RETRY, Blame.PACE, seconds)


def judged(remedy: Remedy, blame: Blame, retry_after_seconds: float | None = None) -> CallerError:
    """Return a refusal that has been judged."""
    error = CallerError(Kind.INVALID_VALUE, "provider_refused", retry_after_seconds=retry_after_seconds)
    error.remedy, error.blame = remedy, blame
    return error


def after(plan: Plan, error: GateError, now: float = NOW) -> float:
    """Tell the candidate and the plan of a failure, as the attempts do; return the wait."""
    number = plan.candidate.enter(now)
    plan.candidate.failed(error, now, number)
    plan.candidate.leave()
    return plan.after(error, now)


def name_of(plan: Plan) -> str:
    """Return where a call goes now."""
    return plan.candidate.target.name


def give_up(plan: Plan, error: GateError, now: float = NOW) -> None:
    """Check that nothing is left to try."""
    with pytest.raises(GateError) as raised:
        after(plan, error, now)
    assert raised.value is error


def way(world: World, error: Callable[[], GateError], *, max_retries: int = 2) -> list[str]:
    """Return where a call goes until it gives up, every try of it failing in the same way."""
    plan = world.plan(max_retries=max_retries)
    went = [name_of(plan)]
    try:
        while True:
            after(plan, error())
            went.append(name_of(plan))
    except GateError:
        assert plan.attempts == len(went)
        return went


def test_the_first_tier_comes_first() -> None:
    """Of targets that are well, those of the lowest priority number are chosen from."""
    world = World(model("m", target(B, priority=2), target(A, priority=1), target(C, priority=2)))
    assert name_of(world.plan()) == "a/m"


def test_a_call_goes_through_every_target_then_back_then_to_the_fallbacks() -> None:
    """Another target of the model, of the next tier too, comes before the same one, and that before another model."""
    world = World(
        model("m", target(A), target(B, priority=1), fallbacks=("n", "o")), model("n", target(C)), model("o", target(A))
    )
    assert way(world, failure) == ["a/m", "b/m", "b/m", "b/m", "c/n", "c/n", "c/n", "a/o", "a/o", "a/o"]


def test_no_retries_means_each_target_once() -> None:
    """Going elsewhere is no retry."""
    world = World(model("m", target(A), target(B, priority=1), fallbacks=("n",)), model("n", target(C)))
    assert way(world, failure, max_retries=0) == ["a/m", "b/m", "c/n"]


def test_a_silent_target_is_not_tried_again() -> None:
    """Whoever was silent would keep the caller waiting once more."""
    world = World(model("m", target(A), target(B, priority=1), fallbacks=("n",)), model("n", target(C)))
    assert way(world, silence) == ["a/m", "b/m", "c/n"]


def test_a_target_that_two_models_share_is_one_target() -> None:
    """A fallback that leads to the same place once more does not make a silent target worth another wait."""
    same = Target(A, "x")
    world = World(model("m", same, fallbacks=("n",)), model("n", same, Target(B, "x", priority=1)))
    assert way(world, silence) == ["a/x", "b/x"]


@pytest.mark.parametrize("remedy", [Remedy.PASS_ON, Remedy.LARGER_WINDOW])
def test_what_the_caller_has_to_know_ends_it(remedy: Remedy) -> None:
    """Nothing is routed around that the caller can mend, and no window is larger when none is known."""
    world = World(model("m", target(A), target(B, priority=1), fallbacks=("n",)), model("n", target(C)))
    give_up(world.plan(), judged(remedy, Blame.NOTHING))


def test_a_longer_window_is_looked_for_in_the_model_first() -> None:
    """Of those that take in more than the one that could not, the model's own come first, then the next fallback."""
    world = World(
        model("m", target(A, context_tokens=10), target(B, priority=1, context_tokens=20), fallbacks=("n", "o")),
        model("n", target(C, context_tokens=20)),
        model("o", target(C, context_tokens=30), target(A)),
    )
    plan = world.plan()
    too_long = judged(Remedy.LARGER_WINDOW, Blame.NOTHING)
    assert after(plan, too_long) == 0.0
    assert name_of(plan) == "b/m"
    assert after(plan, too_long) == 0.0
    assert name_of(plan) == "c/o"
    give_up(plan, too_long)


def test_a_longer_window_that_may_not_be_used_is_passed_over() -> None:
    """An open circuit counts here as well."""
    world = World(
        model("m", target(A, context_tokens=10), fallbacks=("n", "o")),
        model("n", target(B, context_tokens=20)),
        model("o", target(C, context_tokens=30)),
    )
    world.open("b/n")
    plan = world.plan()
    after(plan, judged(Remedy.LARGER_WINDOW, Blame.NOTHING))
    assert name_of(plan) == "c/o"


def test_a_failure_there_stays_in_the_model_that_was_entered() -> None:
    """After a longer window was found in a fallback, its own other targets come next."""
    world = World(
        model("m", target(A, context_tokens=10), fallbacks=("n",)),
        model("n", target(B, context_tokens=20), target(C, priority=1)),
    )
    plan = world.plan()
    after(plan, judged(Remedy.LARGER_WINDOW, Blame.NOTHING))
    after(plan, failure())
    assert name_of(plan) == "c/n"


def test_waits_grow_and_begin_anew_with_a_fallback() -> None:
    """The second wait is twice the first; a fallback has its own retries and their waits."""
    world = World(model("m", target(A), fallbacks=("n",)), model("n", target(B)))
    plan = world.plan()
    waits = [after(plan, failure()) for _ in range(5)]
    assert waits == pytest.approx([0.1, 0.2, 0.0, 0.1, 0.2])


def test_a_wait_is_never_nothing() -> None:
    """Luck does not make a repetition immediate."""
    world = World(model("m", target(A)))
    plan = Plan.begin(world.routing.find("m"), NOW, max_retries=1, give_up_at=NOW + TOTAL_SECONDS, random=lambda: 0.0)
    assert after(plan, failure()) == MIN_SECONDS


@pytest.mark.parametrize("error", [busy, lambda seconds: UpstreamError("x", retry_after_seconds=seconds)])
def test_a_wait_that_is_named_is_honoured_where_nothing_else_is_left(error: Callable[[float], GateError]) -> None:
    """As long as an answer may still come in time."""
    plan = World(model("m", target(A))).plan()
    assert after(plan, error(TOTAL_SECONDS - 1)) == TOTAL_SECONDS - 1
    give_up(plan, error(TOTAL_SECONDS + 1))


def test_a_wait_that_is_named_is_not_waited_where_another_target_is() -> None:
    """Another target of the same model costs next to nothing."""
    plan = World(model("m", target(A), target(B, priority=1))).plan()
    assert after(plan, busy(0.1)) == 0.0
    assert name_of(plan) == "b/m"


def test_a_fallback_is_worth_a_short_wait_only() -> None:
    """Another model is not what was asked for, so that a wait below its cost is preferred."""
    world = World(model("m", target(A), fallbacks=("n",)), model("n", target(B)))
    plan = world.plan()
    assert after(plan, busy(FAILOVER_COST_SECONDS)) == FAILOVER_COST_SECONDS
    assert name_of(plan) == "a/m"
    assert after(plan, busy(FAILOVER_COST_SECONDS + 0.1)) == 0.0
    assert name_of(plan) == "b/n"


def test_a_fallback_that_is_down_is_no_reason_not_to_wait() -> None:
    """Only where a call could really go counts."""
    world = World(model("m", target(A), fallbacks=("n",)), model("n", target(B)))
    world.open("b/n")
    plan = world.plan()
    assert not plan.can_go_elsewhere(NOW)
    assert after(plan, busy(30.0)) == 30.0
    assert name_of(plan) == "a/m"


def test_a_target_whose_circuit_opened_is_not_tried_again() -> None:
    """The failure that opened it was the last one."""
    world = World(model("m", target(A), fallbacks=("n",)), model("n", target(B)))
    for _ in range(FAILURES_TO_OPEN - 1):
        world.candidate("a/m").circuit.failed(NOW)
    plan = world.plan()
    assert after(plan, failure()) == 0.0
    assert name_of(plan) == "b/n"


def test_a_target_that_is_too_fast_is_tried_again_after_its_wait() -> None:
    """Being left alone for a time is no reason to give up a call that waits exactly that long."""
    plan = World(model("m", target(A))).plan()
    assert after(plan, busy(3.0)) == 3.0
    assert name_of(plan) == "a/m"


def test_nothing_is_tried_after_the_end() -> None:
    """Neither at once nor after a wait."""
    world = World(model("m", target(A), target(B, priority=1)))
    plan = world.plan()
    assert plan.left_seconds(NOW) == TOTAL_SECONDS
    give_up(plan, failure(), NOW + TOTAL_SECONDS)
    alone = World(model("m", target(A))).plan()
    give_up(alone, failure(), NOW + TOTAL_SECONDS - 0.05)


def test_another_key_of_the_same_upstream_costs_nothing_when_it_is_the_keys_fault() -> None:
    """Neither a refused key nor one that is too fast takes from the budget, and both leave no trace on the upstream."""
    keyed = upstream("keyed", keys=40)
    world = World(model("m", *(target(keyed, key=number) for number in range(1, 41))))
    plan = world.plan()
    for number in range(39):
        error = busy(30.0) if number % 2 else judged(Remedy.ANOTHER_TARGET, Blame.CREDENTIAL)
        assert after(plan, error) == 0.0
    assert plan.attempts == 40
    assert not plan.budget_spent
    give_up(plan, judged(Remedy.ANOTHER_TARGET, Blame.CREDENTIAL))


def test_another_target_of_the_same_upstream_costs_what_a_retry_does() -> None:
    """Its trouble is likely to be the upstream's; when there was too much of it, another upstream is next."""
    keyed = upstream("keyed", keys=2)
    world = World(model("m", target(keyed, key=1), target(keyed, key=2), fallbacks=("n",)), model("n", target(B)))
    for _ in range(FREE_RETRIES):
        assert world.candidate("keyed/m#1").upstream.budget.try_take(NOW)
    plan = world.plan()
    after(plan, failure())
    assert name_of(plan) == "b/n"
    assert plan.budget_spent


def test_another_upstream_is_free() -> None:
    """A first call there earns what a first call earns."""
    world = World(model("m", target(A), target(B, priority=1)))
    budget = world.candidate("b/m").upstream.budget
    for _ in range(FREE_RETRIES):
        assert budget.try_take(NOW)
    assert not budget.try_take(NOW)
    plan = world.plan()
    after(plan, failure())
    assert name_of(plan) == "b/m"
    give_up(plan, failure())
    assert plan.budget_spent
    for _ in range(4):
        assert not budget.try_take(NOW)
        after(world.plan(), failure())
    assert budget.try_take(NOW)


def test_a_spent_budget_ends_the_retries() -> None:
    """The caller is told, and the fallbacks are still tried."""
    world = World(model("m", target(A)))
    went = [len(way(world, failure)) for _ in range(20)]
    plan = world.plan()
    assert sum(went) <= 20 + FREE_RETRIES + 20 // 5
    give_up(plan, failure())


def test_a_conversation_goes_where_it_went() -> None:
    """As long as that target is in the tier that is used now, well, and not overloaded."""
    world = World(model("m", target(A), target(B), target(C, priority=1)))
    for name in ("a/m", "b/m"):
        assert [name_of(world.plan(remembered=world.candidate(name))) for _ in range(3)] == [name] * 3
    assert name_of(world.plan(remembered=world.candidate("c/m"))) in {"a/m", "b/m"}
    world.open("a/m")
    assert name_of(world.plan(remembered=world.candidate("a/m"))) == "b/m"


def test_a_conversation_gives_way_when_its_target_has_far_more_than_its_share() -> None:
    """Others are used then."""
    world = World(model("m", target(A), target(B)))
    remembered = world.candidate("a/m")
    for _ in range(5):
        remembered.enter(NOW)
    assert name_of(world.plan(remembered=remembered)) == "a/m"
    world.candidate("b/m").credential.refuse()
    for _ in range(20):
        remembered.enter(NOW)
    assert name_of(world.plan(remembered=remembered)) == "a/m"


def test_a_model_without_a_target_that_is_well_is_not_asked() -> None:
    """The first call goes to a fallback at once, and counts as the first there."""
    world = World(model("m", target(A), fallbacks=("n", "o")), model("n", target(B)), model("o", target(C)))
    world.open("a/m")
    world.candidate("b/n").credential.refuse()
    plan = world.plan()
    assert (name_of(plan), plan.attempts) == ("c/o", 1)
    assert way(world, failure) == ["c/o", "c/o", "c/o"]


def test_the_last_target_is_always_tried_once() -> None:
    """When none is well, the one that will be soonest is; it gets one try."""
    world = World(model("m", target(A), target(B)))
    world.open("a/m", now=NOW + 1)
    world.open("b/m")
    assert way(world, failure) == ["b/m"]


def test_a_refused_key_is_tried_last_of_all() -> None:
    """One that was accepted last is preferred, even behind an open circuit."""
    keyed = upstream("keyed", keys=2)
    world = World(model("m", target(keyed, key=1), target(keyed, key=2)))
    world.candidate("keyed/m#1").credential.refuse()
    world.open("keyed/m#2")
    assert name_of(world.plan()) == "keyed/m#2"
    world.candidate("keyed/m#2").credential.refuse()
    assert name_of(world.plan()) == "keyed/m#1"


def test_where_nobody_has_room_the_call_is_refused() -> None:
    """The caller is told to come back soon."""
    world = World(model("m", target(upstream("small", max_in_flight=1))))
    candidate = world.candidate("small/m")
    number = candidate.enter(NOW)
    with pytest.raises(Overloaded) as raised:
        world.plan()
    assert (raised.value.reason, raised.value.retry_after_seconds) == ("upstream_busy", SOON_SECONDS)
    candidate.succeeded(number)
    candidate.leave()
    assert name_of(world.plan()) == "small/m"


def test_room_elsewhere_is_used() -> None:
    """In another target or in a fallback."""
    small = upstream("small", max_in_flight=1)
    world = World(model("m", target(small), fallbacks=("n",)), model("n", target(B)))
    world.candidate("small/m").enter(NOW)
    assert name_of(world.plan()) == "b/n"


def silent_world() -> World:
    """Return a world whose only target has been silent until its circuit opened."""
    world = World(model("m", target(A)))
    for _ in range(FAILURES_TO_OPEN):
        give_up(world.plan(), silence())
    return world


def test_who_goes_to_a_silent_target_as_the_last_one_is_told_that_it_is_down() -> None:
    """And when it may be better; what was given no time is no verdict about the target."""
    world = silent_world()
    plan = world.plan(now=NOW + 1)
    number = plan.candidate.enter(NOW + 1)
    assert plan.candidate.is_last_resort(number)
    plan.candidate.failed(silence(), NOW + 1, number)
    with pytest.raises(Overloaded) as raised:
        plan.after(silence(), NOW + 1)
    assert raised.value.reason == "upstream_down"
    assert raised.value.retry_after_seconds == pytest.approx(COOLDOWN_SECONDS - 1, rel=0.11)
    plan.candidate.leave()
    assert name_of(world.plan(now=NOW + 2)) == "a/m"


def test_one_call_has_all_its_time_to_show_whether_a_target_is_still_silent() -> None:
    """The others meanwhile do not, and cannot condemn it by that; when it answers them, it is well."""
    world, later = silent_world(), NOW + 2 * COOLDOWN_SECONDS
    probe, other = world.plan(now=later), world.plan(now=later)
    candidate = probe.candidate
    first, second = candidate.enter(later), candidate.enter(later)
    assert (candidate.is_last_resort(first), candidate.is_last_resort(second)) == (False, True)
    candidate.failed(silence(), later, second)
    assert candidate.circuit.state is CircuitState.HALF_OPEN
    candidate.succeeded(candidate.enter(later))
    assert world.plan(now=later).candidate.circuit.state is CircuitState.CLOSED
    assert not candidate.is_last_resort(candidate.enter(later))
    assert name_of(other) == "a/m"


def test_a_target_that_fails_loudly_may_be_asked_by_many() -> None:
    """They learn of it as fast as it fails."""
    world = World(model("m", target(A)))
    world.open("a/m")
    for _ in range(3):
        world.plan().candidate.enter(NOW)


def test_a_second_call_goes_beside_the_first() -> None:
    """It counts as an attempt, and the next one goes to neither."""
    world = World(model("m", target(A), target(B, priority=1), target(C, priority=2)))
    plan = world.plan()
    other = plan.other(NOW)
    assert other is world.candidate("b/m")
    plan.go_besides(other)
    assert (plan.attempts, name_of(plan)) == (2, "b/m")
    after(plan, silence())
    assert name_of(plan) == "c/m"
    assert plan.other(NOW) is None


def test_whether_a_call_can_go_elsewhere() -> None:
    """It can as long as some target of the model or of a fallback is well and was not tried."""
    world = World(model("m", target(A), target(B, priority=1), fallbacks=("n",)), model("n", target(C)))
    plan = world.plan()
    assert plan.can_go_elsewhere(NOW)
    after(plan, silence())
    assert plan.can_go_elsewhere(NOW)
    after(plan, silence())
    assert not plan.can_go_elsewhere(NOW)


def test_plans_do_not_share_what_they_tried() -> None:
    """Each call finds all targets new."""
    world = World(model("m", target(A), target(B, priority=1)))
    for _ in range(3):
        plan = world.plan()
        assert name_of(plan) == "a/m"
        after(plan, judged(Remedy.RETRY, Blame.NOTHING))
        assert name_of(plan) == "b/m"


ERRORS: list[Callable[[], GateError]] = [
    failure,
    silence,
    busy,
    lambda: busy(0.5),
    lambda: busy(3600.0),
    lambda: judged(Remedy.ANOTHER_TARGET, Blame.CREDENTIAL),
    lambda: judged(Remedy.ANOTHER_TARGET, Blame.NOTHING),
    lambda: judged(Remedy.LARGER_WINDOW, Blame.NOTHING),
]


@given(st.lists(st.sampled_from(ERRORS), min_size=60, max_size=60), st.integers(0, 3), st.integers(1, 3))
def test_every_call_comes_to_an_end(errors: list[Callable[[], GateError]], max_retries: int, keys: int) -> None:
    """Whatever goes wrong: each target is tried at most once and a few times more, in bounded time."""
    keyed = upstream("keyed", keys=keys)
    world = World(
        model(
            "m", *(target(keyed, key=number) for number in range(1, keys + 1)), target(A, priority=1), fallbacks=("n",)
        ),
        model("n", target(B, context_tokens=100), fallbacks=("o",)),
        model("o", target(C, context_tokens=200), target(A)),
    )
    now, plan = NOW, world.plan(max_retries=max_retries)
    went = [plan.candidate]
    for make in errors:
        before = plan.candidate
        error = make()
        try:
            wait = after(plan, error, now)
        except GateError:
            break
        now += wait
        assert now < NOW + TOTAL_SECONDS
        assert plan.candidate is not before or error.remedy is Remedy.RETRY
        assert wait == 0.0 or plan.candidate is before
        went.append(plan.candidate)
    else:
        pytest.fail("there is always another try")
    assert plan.attempts == len(went) <= (keys + 4) + 3 * max_retries
