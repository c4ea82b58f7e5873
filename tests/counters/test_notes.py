"""The notes of the owner of the counters, as its successor reads them."""

from __future__ import annotations

import copy
import errno
import os
import random
from collections.abc import Iterator

import pytest

from chatgate.admission.limits import Bound, Facts, Limits, Rule, Ticket
from chatgate.counters.notes import Notes

RULES = (
    Rule(50, 60.0, "minute"),
    Rule(40, 60.0, "minute", ("global",)),
    Rule(9000, 60.0, "minute", ("key", "model"), "tokens"),
)
KEY_RULES = (Rule(30, 60.0, "minute", ("key",)),)
LEAST_BYTES = 2000


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now_ns = 10**12

    def __call__(self) -> int:
        """Tell the time."""
        return self.now_ns


@pytest.fixture
def notes() -> Iterator[Notes]:
    """Return empty notes that are begun anew soon."""
    made = Notes(LEAST_BYTES)
    yield made
    made.close()


def owner(notes: Notes, clock: Clock, rules: tuple[Rule, ...] = RULES) -> tuple[Notes, Limits]:
    """Return the notes as an owner has them that was started now, and what it counts by."""
    inherited = copy.deepcopy(notes)
    before, _ = inherited.read(clock)
    limits = Limits(rules, clock, predecessor=before, seed=inherited.seed)
    inherited.follow(limits)
    inherited.write()
    return inherited, limits


def admit(limits: Limits, notes: Notes, facts: Facts, tokens: int = 1) -> Ticket | None:
    """Take a call, and note what it has taken."""
    ticket = limits.admit(facts, Bound(tokens, 0, 0), KEY_RULES if facts.key else ()).ticket
    if ticket is not None:
        notes.took(ticket)
        notes.write()
    return ticket


def facts(chance: random.Random) -> Facts:
    """Return some caller."""
    address = chance.choice([7, 8, (1 << 64) | 5])
    return Facts(address, chance.choice([None, "k1", "k2"]), chance.choice(["m", "другая"]))


def size(notes: Notes) -> int:
    """Return how much memory they take."""
    return sum(os.fstat(file).st_size for file in notes._files)


def test_they_stay_short_however_much_is_noted(notes: Notes) -> None:
    """They are begun anew with what counts, and a successor knows all of it."""
    clock, chance = Clock(), random.Random(1)
    written, limits = owner(notes, clock)
    most = 0
    for _ in range(6000):
        clock.now_ns += chance.randrange(10**9)
        if chance.random() < 0.01:
            written, limits = owner(notes, clock)
        who, tokens = facts(chance), chance.randrange(500)
        ticket = admit(limits, written, who, tokens)
        if ticket is not None and chance.random() < 0.5:
            used = Bound(chance.randrange(600), 0, 0) if chance.random() < 0.8 else None
            written.ended(ticket, used, clock.now_ns)
            if used is None:
                limits.release(ticket)
            else:
                limits.settle(ticket, used)
            written.write()
        most = max(most, size(notes))
        heir = owner(copy.deepcopy(notes), clock)[1] if chance.random() < 0.05 else limits
        rules = KEY_RULES if who.key else ()
        assert heir.standing(who, rules) == limits.standing(who, rules)
    assert most < 5 * LEAST_BYTES


@pytest.mark.parametrize("cut", [1, 3, 9])
def test_what_was_not_written_whole_was_not_told_to_anybody(notes: Notes, cut: int) -> None:
    """It is left out, and what is noted next takes its place."""
    clock = Clock()
    written, limits = owner(notes, clock)
    for _ in range(3):
        admit(limits, written, Facts(7))
    (file,) = [file for file in written._files if os.fstat(file).st_size]
    os.ftruncate(file, os.fstat(file).st_size - cut)
    written, limits = owner(notes, clock)
    assert limits.standing(Facts(7)).remaining == 38
    admit(limits, written, Facts(7))
    _, limits = owner(notes, clock)
    assert limits.standing(Facts(7)).remaining == 37


def test_what_cannot_be_written_is_written_later(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is refused for it, the log says it once, and what was counted meanwhile is noted as soon as it can be."""
    clock = Clock()
    written, limits = owner(notes, clock)
    admit(limits, written, Facts(7))

    def full(*_: object) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        for _ in range(3):
            admit(limits, written, Facts(7))
    assert caplog.text.count("cannot be noted") == 1
    assert owner(copy.deepcopy(notes), clock)[1].standing(Facts(7)).remaining == 39
    admit(limits, written, Facts(7))
    assert owner(notes, clock)[1].standing(Facts(7)).remaining == 35


def test_what_cannot_be_read_counts_as_nothing(notes: Notes, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, and the next owner counts from zero."""
    clock = Clock()
    written, limits = owner(notes, clock)
    admit(limits, written, Facts(7))
    (file,) = [file for file in written._files if os.fstat(file).st_size]
    os.pwrite(file, b"\xff" * 20, os.fstat(file).st_size - 20)
    written, limits = owner(notes, clock)
    assert "begin anew" in caplog.text
    assert limits.standing(Facts(7)).remaining == 40
    admit(limits, written, Facts(7))
    assert owner(notes, clock)[1].standing(Facts(7)).remaining == 39


def test_rules_that_change_count_as_they_would_have(notes: Notes) -> None:
    """Another amount goes on with what was counted; other rules on addresses begin with nothing."""
    clock = Clock()
    written, limits = owner(notes, clock)
    for _ in range(5):
        admit(limits, written, Facts(7))
    more = (Rule(60, 60.0, "minute"), Rule(45, 60.0, "minute", ("global",)))
    limits = Limits(more, clock, predecessor=limits, seed=written.seed)
    written.follow(limits)
    admit(limits, written, Facts(7))
    _, heir = owner(notes, clock, more)
    assert heir.standing(Facts(7)) == limits.standing(Facts(7))
    assert heir.standing(Facts(7)).remaining == 39


def test_without_an_owner_before_there_is_nothing(notes: Notes) -> None:
    """Nor is anybody waited for."""
    assert notes.read(Clock()) == (None, frozenset())
