"""The circuit of a target: the same as its definition, whatever happens in whatever order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Struct

from chatgate.routing.circuit import Circuit, CircuitState

# No cool-down of a stateful test ends on a quarter of a second, as its clock does: there rounding would decide.
DRAWN = (0.13, 0.41, 0.77)


def draw() -> Callable[[], float]:
    """Return a source of the numbers above, again and again."""
    numbers = itertools.cycle(DRAWN)
    return lambda: next(numbers)


class Event(Struct, frozen=True):
    """What happened to a call: `begin`, then one of `ok`, `fail`, `abandon`, `cool`."""

    what: str
    call: int
    now: float
    seconds: float | None = None


class Era(Struct, frozen=True):
    """A time in one state. Events from `start` on belong to it; an open one has `until` as its end."""

    state: CircuitState
    start: int
    until: float = 0.0


class Reference:
    """The same by the definition: a list of all events, gone through anew for each question."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.events: list[Event] = []
        self.begins: dict[int, int] = {}

    def happened(self, event: Event) -> None:
        """Record an event."""
        if event.what == "begin":
            self.begins[event.call] = len(self.events)
        self.events.append(event)

    def began_since(self, call: int, start: int) -> bool:
        """Tell whether a call began at or after an event."""
        return self.begins[call] >= start

    def eras(self) -> list[Era]:
        """Return all times in one state, the present one last."""
        eras = [Era(CircuitState.CLOSED, 0)]
        for index, event in enumerate(self.events):
            era = eras[-1]
            counts = self.began_since(event.call, era.start)
            if event.what == "begin" and era.state is CircuitState.OPEN and event.now >= era.until:
                eras.append(Era(CircuitState.HALF_OPEN, index))
            elif event.what == "ok" and counts and era.state is not CircuitState.CLOSED:
                eras.append(Era(CircuitState.CLOSED, index + 1))
            elif event.what == "fail" and counts and self.is_too_much(era, index):
                eras.append(Era(CircuitState.OPEN, index + 1, event.now + self.cooldown(eras)))
        return eras

    def is_too_much(self, era: Era, index: int) -> bool:
        """Tell whether a failure that counts ends an era."""
        verdicts = [
            event.what
            for event in self.events[era.start : index + 1]
            if event.what in {"ok", "fail"} and self.began_since(event.call, era.start)
        ]
        return era.state is CircuitState.HALF_OPEN or (
            era.state is CircuitState.CLOSED and verdicts[-5:] == ["fail"] * 5
        )

    def cooldown(self, eras: list[Era]) -> float:
        """Return the length of the cool-down that follows these eras."""
        states = [era.state for era in eras]
        since_closed = states[len(states) - 1 - states[::-1].index(CircuitState.CLOSED) :]
        jitter = DRAWN[states.count(CircuitState.OPEN) % len(DRAWN)]
        return min(5 * 2.0 ** since_closed.count(CircuitState.OPEN), 12) * (0.9 + 0.2 * jitter)

    def shut_until(self) -> float:
        """Return when the circuit lets a call in."""
        era = self.eras()[-1]
        if era.state is not CircuitState.HALF_OPEN:
            return era.until
        probe: Event | None = None
        for event in self.events[era.start :]:
            if event.what == "begin" and (probe is None or event.now >= probe.now + 60):
                probe = event
            elif probe is not None and event.call == probe.call and event.what in {"abandon", "cool"}:
                probe = None
        return probe.now + 60 if probe else 0.0

    def paced_until(self) -> float:
        """Return when "too many calls" is over."""
        until, row = 0.0, list[int]()  # the events of a row of them, each of a call that began after the one before
        for index, event in enumerate(self.events):
            is_later = not row or self.began_since(event.call, row[-1])
            if event.what == "ok" and is_later:
                until, row = 0.0, []
            elif event.what == "cool":
                if is_later:
                    row.append(index)
                seconds = min(2.0 ** (len(row) - 1), 60.0) if event.seconds is None else min(event.seconds, 300.0)
                until = max(until, event.now + seconds)
        return until


class CircuitMachine(RuleBasedStateMachine):
    """Does to a circuit what calls do, in any order, and asks the reference what should come of it."""

    def __init__(self) -> None:
        """Start in the middle of an uptime."""
        super().__init__()
        self.now = 1000.0
        self.changes: list[tuple[CircuitState, CircuitState]] = []
        self.circuit = Circuit(draw(), lambda before, after: self.changes.append((before, after)))
        self.reference = Reference()
        self.under_way: list[tuple[int, int]] = []

    def end(self, which: int, what: str, seconds: float | None = None) -> int:
        """Record how one of the calls under way ended."""
        call, number = self.under_way.pop(which % len(self.under_way))
        self.reference.happened(Event(what, call, self.now, seconds))
        return number

    @rule()
    def begin(self) -> None:
        """Begin a call, allowed or not."""
        call = len(self.reference.begins)
        self.reference.happened(Event("begin", call, self.now))
        self.under_way.append((call, self.circuit.begin(self.now)))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 9), tells=st.booleans())
    def ok(self, which: int, *, tells: bool) -> None:
        """Let a call be answered, which a calm circuit need not be told."""
        number = self.end(which, "ok")
        if tells or not self.circuit.is_calm:
            self.circuit.succeeded(number)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 9))
    def fail(self, which: int) -> None:
        """Let a call fail."""
        self.circuit.failed(self.now, self.end(which, "fail"))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 9))
    def abandon(self, which: int) -> None:
        """Let a caller leave."""
        self.circuit.abandoned(self.now, self.end(which, "abandon"))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 9), seconds=st.sampled_from([None, None, 0.0, 0.25, 20.0, 90.0, 3600.0]))
    def cool(self, which: int, seconds: float | None) -> None:
        """Let a call be one too many."""
        self.circuit.cooled(self.now, seconds, self.end(which, "cool", seconds))

    @rule(count=st.integers(4, 6))
    def fail_in_a_row(self, count: int) -> None:
        """Begin several calls that fail, while others are under way."""
        for _ in range(count):
            self.begin()
            self.fail(len(self.under_way) - 1)

    @rule(seconds=st.sampled_from([0.25, 1.0, 4.75, 12.0, 60.0, 300.0]))
    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def wait(self) -> None:
        """Let time pass until a call may begin, and no longer than to the next quarter of a second."""
        self.now = max(self.now, -(-self.circuit.retry_at // 0.25) * 0.25)

    @invariant()
    def is_as_defined(self) -> None:
        """Be in the state, and be usable at the time, that the events give; and have told every change once."""
        eras = self.reference.eras()
        retry_at = max(self.reference.shut_until(), self.reference.paced_until())
        assert self.circuit.state is eras[-1].state
        assert self.circuit.retry_at == pytest.approx(retry_at, abs=1e-6)
        assert self.circuit.allows(self.now) is (self.now >= retry_at)
        assert self.changes == [(before.state, after.state) for before, after in itertools.pairwise(eras)]


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class Clock:
    """A circuit without jitter and a clock that stands until it is moved."""

    def __init__(self) -> None:
        """Start closed."""
        self.now = 1000.0
        self.changes: list[str] = []
        self.circuit = Circuit(lambda: 0.5, lambda before, after: self.changes.append(f"{before} → {after}"))

    def fail(self, calls: int = 1) -> None:
        """Let calls begin and fail at once."""
        for _ in range(calls):
            self.circuit.failed(self.now, self.circuit.begin(self.now))

    def state(self) -> CircuitState:
        """Return the state."""
        return self.circuit.state

    def open_seconds(self) -> float:
        """Return how long no call may go there yet."""
        return self.circuit.retry_at - self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Return a closed circuit, and check at the end that it never told a change that was none."""
    clock = Clock()
    yield clock
    assert all(before != after for before, _, after in (change.partition(" → ") for change in clock.changes))


def test_five_failures_in_a_row_open_it_for_five_seconds(clock: Clock) -> None:
    """Four do not, nor do five with a success between them; the fifth does, and the moment it ends is exact."""
    clock.fail(4)
    clock.circuit.succeeded(clock.circuit.begin(clock.now))
    clock.fail(4)
    assert clock.circuit.allows(clock.now)
    clock.fail()
    assert not clock.circuit.allows(clock.now + 4.999)
    assert clock.circuit.allows(clock.now + 5)
    assert clock.changes == ["closed → open"]


def test_one_probe_at_a_time(clock: Clock) -> None:
    """After the cool-down the first call is let in, the next when its caller left, and any when it answered."""
    clock.fail(5)
    clock.now = clock.circuit.retry_at
    assert clock.circuit.allows(clock.now)
    first = clock.circuit.begin(clock.now)
    assert not clock.circuit.allows(clock.now)
    clock.circuit.abandoned(clock.now, first)
    assert clock.circuit.allows(clock.now)
    second = clock.circuit.begin(clock.now)
    clock.circuit.abandoned(clock.now, first)
    assert not clock.circuit.allows(clock.now)
    clock.circuit.succeeded(second)
    assert clock.circuit.allows(clock.now)
    assert clock.changes == ["closed → open", "open → half_open", "half_open → closed"]


def test_a_probe_that_is_never_heard_of_again_keeps_others_out_for_a_minute(clock: Clock) -> None:
    """Then another is let in; and when the lost one fails after all, it counts."""
    clock.fail(5)
    clock.now = clock.circuit.retry_at
    lost = clock.circuit.begin(clock.now)
    assert not clock.circuit.allows(clock.now + 59.999)
    clock.now += 60
    assert clock.circuit.allows(clock.now)
    clock.circuit.begin(clock.now)
    assert not clock.circuit.allows(clock.now)
    clock.circuit.failed(clock.now, lost)
    assert clock.state() is CircuitState.OPEN


def test_cooldowns_double_to_a_ceiling_and_a_success_forgets_them(clock: Clock) -> None:
    """Each failed probe opens it for twice as long; after an answer it is half a minute again."""
    clock.fail(5)
    lengths = []
    for _ in range(6):
        lengths.append(clock.open_seconds())
        clock.now = clock.circuit.retry_at
        clock.fail()
    assert lengths == pytest.approx([5, 10, 12, 12, 12, 12])
    clock.now = clock.circuit.retry_at
    clock.circuit.succeeded(clock.circuit.begin(clock.now))
    clock.fail(5)
    assert clock.open_seconds() == pytest.approx(5)


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 4.5), (0.5, 5.0), (0.999999, 5.5)])
def test_cooldowns_stray_by_a_tenth(drawn: float, seconds: float) -> None:
    """Several gateways that lost the same target do not probe it in step."""
    circuit = Circuit(lambda: drawn)
    for _ in range(5):
        circuit.failed(0.0, circuit.begin(0.0))
    assert circuit.retry_at == pytest.approx(seconds, abs=0.001)


def test_late_failures_of_an_outage_change_nothing(clock: Clock) -> None:
    """A hundred calls that were under way fail one by one: the cool-down stays, and so does the probe."""
    under_way = [clock.circuit.begin(clock.now) for _ in range(100)]
    clock.fail(5)
    end = clock.circuit.retry_at
    for number in under_way[:50]:
        clock.now += 0.1
        clock.circuit.failed(clock.now, number)
    assert clock.circuit.retry_at == end
    clock.now = end
    probe = clock.circuit.begin(clock.now)
    for number in under_way[50:]:
        clock.circuit.failed(clock.now, number)
    assert clock.state() is CircuitState.HALF_OPEN
    clock.circuit.succeeded(probe)
    assert clock.state() is CircuitState.CLOSED


def test_a_stream_from_before_does_not_close_it_but_a_call_let_in_all_the_same_does(clock: Clock) -> None:
    """The last target of a model is tried while its circuit is open, and then its answer is news."""
    stream = clock.circuit.begin(clock.now)
    clock.fail(5)
    clock.circuit.succeeded(stream)
    assert clock.state() is CircuitState.OPEN
    end = clock.circuit.retry_at
    clock.fail(7)
    assert clock.circuit.retry_at == end
    clock.circuit.succeeded(clock.circuit.begin(clock.now))
    assert clock.changes == ["closed → open", "open → closed"]


def test_too_many_calls_is_no_failure(clock: Clock) -> None:
    """However often it is heard, the circuit stays closed; the target is only left alone for a while."""
    for _ in range(20):
        clock.circuit.cooled(clock.now, None, clock.circuit.begin(clock.now))
    assert clock.changes == []
    assert not clock.circuit.allows(clock.now)


def test_a_target_that_names_a_time_is_left_alone_for_it(clock: Clock) -> None:
    """A longer one counts of several, but none for more than five minutes; an answer ends it."""
    clock.circuit.cooled(clock.now, 20, clock.circuit.begin(clock.now))
    clock.circuit.cooled(clock.now, 5, clock.circuit.begin(clock.now))
    assert clock.open_seconds() == 20
    clock.circuit.cooled(clock.now, 86_400, clock.circuit.begin(clock.now))
    assert clock.open_seconds() == 300
    clock.circuit.succeeded(clock.circuit.begin(clock.now))
    assert clock.circuit.allows(clock.now)


def test_without_a_time_the_wait_doubles_from_a_second_to_a_minute(clock: Clock) -> None:
    """Each further one in a row doubles it, and an answer begins anew."""
    waits = []
    for _ in range(8):
        clock.circuit.cooled(clock.now, None, clock.circuit.begin(clock.now))
        waits.append(clock.open_seconds())
        clock.now = clock.circuit.retry_at
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    clock.circuit.succeeded(clock.circuit.begin(clock.now))
    clock.circuit.cooled(clock.now, None, clock.circuit.begin(clock.now))
    assert clock.open_seconds() == 1


def test_a_burst_of_too_many_calls_counts_once(clock: Clock) -> None:
    """Two hundred calls of the same moment wait a second, not a minute; and an answer among them does not end it."""
    numbers = [clock.circuit.begin(clock.now) for _ in range(200)]
    for number in numbers[:-1]:
        clock.circuit.cooled(clock.now, None, number)
    clock.circuit.succeeded(numbers[-1])
    assert clock.open_seconds() == 1


def test_after_an_answer_too_many_calls_begins_anew_for_old_calls_too(clock: Clock) -> None:
    """A call from before the last row of them that hears it late is the first of the next row."""
    late = clock.circuit.begin(clock.now)
    clock.circuit.cooled(clock.now, None, clock.circuit.begin(clock.now))
    clock.circuit.succeeded(clock.circuit.begin(clock.now))
    clock.circuit.cooled(clock.now, None, late)
    assert clock.open_seconds() == 1


def test_a_probe_that_is_one_too_many_leaves_the_question_open(clock: Clock) -> None:
    """The next probe is let in when the named time is over."""
    clock.fail(5)
    clock.now = clock.circuit.retry_at
    clock.circuit.cooled(clock.now, 7, clock.circuit.begin(clock.now))
    assert clock.state() is CircuitState.HALF_OPEN
    assert clock.open_seconds() == 7
    clock.now += 7
    clock.fail()
    assert clock.state() is CircuitState.OPEN
    assert clock.open_seconds() == pytest.approx(10)


def test_without_numbers_every_end_counts(clock: Clock) -> None:
    """Who does not keep the number of a call may still tell how it ended."""
    for _ in range(5):
        clock.circuit.failed(clock.now)
    assert clock.state() is CircuitState.OPEN
    clock.circuit.abandoned(clock.now)
    clock.circuit.cooled(clock.now, 1)
    assert clock.open_seconds() == pytest.approx(5)
    clock.now = clock.circuit.retry_at
    clock.circuit.begin(clock.now)
    clock.circuit.abandoned(clock.now)
    assert clock.circuit.allows(clock.now)
    clock.circuit.begin(clock.now)
    clock.circuit.succeeded()
    clock.circuit.cooled(clock.now, None)
    assert clock.open_seconds() == 1
    clock.circuit.cooled(clock.now, None)
    assert clock.open_seconds() == 2
    clock.circuit.succeeded()
    assert clock.circuit.allows(clock.now)
