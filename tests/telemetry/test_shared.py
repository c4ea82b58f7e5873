"""What workers count together: every share is seen by all, nothing is lost with a process, and output stays whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from chatgate.telemetry import Metrics, Shared
from chatgate.telemetry.shared import GAUGES
from chatgate.vocabulary.exchange import Outcome, Settled

LABELS = ("chat", "openai", "gpt-x", "completed", "200")


@pytest.fixture
def shared() -> Shared:
    """Return the memory of three workers."""
    return Shared(3, share_bytes=4096)


def settled(**changes: Any) -> Settled:
    """Return the end of a call."""
    facts: dict[str, Any] = {
        "request_id": "req_1",
        "operation": "chat",
        "surface": "openai",
        "address": "192.0.2.7",
        "model": "gpt-x",
        "upstream": "openai",
        "status": 200,
        "outcome": Outcome.COMPLETED,
        "code": "",
        "stream": True,
        "duration_ms": 300.0,
        "first_token_ms": 100.0,
        "input_tokens": 9,
        "output_tokens": 12,
        "attempts": 3,
    }
    return Settled(**{**facts, **changes})


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return every sample of a scrape by its name and labels."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_new_memory_is_empty(shared: Shared) -> None:
    """Workers are numbered from 1, and begin with nothing."""
    assert [share.number for share in shared.shares] == [1, 2, 3]
    assert shared.share(2) is shared.shares[1]
    assert list(shared.share(1).everyones_series()) == []
    assert shared.share(1).everyones_gauges(2) == [0, 0]


def test_a_series_is_seen_by_all(shared: Shared) -> None:
    """What one worker adds to its cells, each of the others reads at once."""
    cells = shared.share(1).open(LABELS, 3)
    cells[2] += 1.5
    shared.share(3).open(("", "é", '"\n'), 1)[0] = 2
    seen = [(labels, list(cells)) for labels, cells in shared.share(2).everyones_series()]
    assert seen == [(LABELS, [0, 0, 1.5]), (("", "é", '"\n'), [2])]
    assert list(shared.share(2).series()) == []


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(st.tuples(_NAMES, _NAMES), st.integers(1, 5)), max_size=20))
def test_series_come_back_as_they_were_opened(opened: list[tuple[tuple[str, ...], int]]) -> None:
    """Whatever their labels and widths, in their order, and no cell belongs to two of them."""
    share = Shared(1, share_bytes=1 << 16).share(1)
    for number, (labels, width) in enumerate(opened, 1):
        cells = share.open(labels, width)
        for index in range(width):
            cells[index] = number
    expected = [(labels, [float(number)] * width) for number, (labels, width) in enumerate(opened, 1)]
    assert [(labels, list(cells)) for labels, cells in share.series()] == expected


def test_a_successor_goes_on(shared: Shared) -> None:
    """The metrics of a new process in the same place begin with what the one before had counted."""
    for number in (1, 2):
        metrics = Metrics({}, shared.share(1))
        metrics.know(["gpt-x"], list)
        metrics.count([settled()])
        assert samples(metrics)["chatgate_calls_total", tuple(sorted(LABELS))] == number
    assert len(list(shared.share(1).series())) == 1


def test_a_worker_that_is_killed_while_it_opens_a_series_leaves_nothing(shared: Shared) -> None:
    """Until its last step the series is not there, and the next one finds clean cells."""
    share = shared.share(1)
    share.open(LABELS, 4)[0] = 7
    share._cells[0] = 0
    assert list(share.series()) == []
    assert list(share.open(LABELS, 4)) == [0, 0, 0, 0]


def test_a_share_that_is_full_costs_only_the_view_of_others(shared: Shared) -> None:
    """Its worker counts on, and the shares beside it are not touched."""
    share, beside = shared.share(1), shared.share(2)
    beside.open(LABELS, 1)[0] = 5
    for number in range(100):
        share.open((str(number),), 20)[0] = 1
    cells = share.open(("more",), 20)
    cells[0] += 1
    assert cells[0] == 1
    assert 10 < len(list(share.series())) < 30
    assert [(labels, list(cells)) for labels, cells in beside.series()] == [(LABELS, [5])]


def test_gauges_are_added_up_and_end_with_their_worker(shared: Shared) -> None:
    """Each worker says its own readings; those of a dead one are cleared for it."""
    for number in (1, 2, 3):
        shared.share(number).publish([number, 10.0])
    assert shared.share(1).everyones_gauges(2) == [6, 30]
    shared.share(2).clear_gauges()
    assert shared.share(1).everyones_gauges(2) == [4, 20]
    shared.share(1).publish([0.5] * GAUGES)
    assert list(shared.share(1).series()) == []


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["gpt-x", "gpt-y"]), st.floats(0, 900)), max_size=30))
def test_every_worker_tells_the_sums_over_all(calls: list[tuple[int, str, float]]) -> None:
    """Counters, histograms and gauges are those of one process that had served every call."""
    shared = Shared(3, share_bytes=1 << 14)
    gauges = {"connections": ("Open connections.", lambda: 2.0)}
    alone = Metrics({"connections": ("Open connections.", lambda: 6.0)})
    workers = {share.number: Metrics(gauges, share) for share in shared.shares}
    for metrics in (alone, *workers.values()):
        metrics.know(["gpt-x"], list)
    for number, model, duration in calls:
        call = settled(model=model, duration_ms=duration * 1000, first_token_ms=duration * 500)
        workers[number].count([call])
        alone.count([call])
    for worker in workers.values():
        worker.publish()
    for worker in workers.values():
        assert samples(worker) == pytest.approx(samples(alone))


def test_own_gauges_are_told_as_they_are(shared: Shared) -> None:
    """A scrape reads the gauges of the worker that answers, and what the others last published."""
    readings = iter([1.0, 2.0, 3.0])
    first = Metrics({"connections": ("Connections.", lambda: next(readings))}, shared.share(1))
    second = Metrics({"connections": ("Connections.", lambda: 10.0)}, shared.share(2))
    second.publish()
    assert samples(first)["chatgate_connections", ()] == 11
    assert samples(first)["chatgate_connections", ()] == 12
    assert samples(second)["chatgate_connections", ()] == 12


# Two processes count the same series and write long batches to one pipe; the first one is killed while it has the lock.
PROGRAM = """
import os, signal, sys
from chatgate.telemetry import Shared
shared = Shared(2)
pids = []
for number in (1, 2):
    pid = os.fork()
    if pid == 0:
        share = shared.share(number)
        cells = share.open(("calls",), 1)
        write = share.alone(lambda batch: os.write(1, batch))
        for _ in range(20):
            cells[0] += 1
            write(b"%d" % number * 100_000 + b"\\n")
        if number == 1:
            shared.lock()
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    pids.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
shared.lock()
print(codes, [cells[0] for _, cells in shared.share(1).everyones_series()])
"""


def test_processes_count_and_write_without_disturbing_each_other() -> None:
    """Batches far longer than a pipe takes at once stay whole, and neither count nor lock dies with a process."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    *batches, told = done.stdout.splitlines()
    assert sorted(batches) == ["1" * 100_000] * 20 + ["2" * 100_000] * 20
    assert told == "[-9, 0] [20.0, 20.0]"


def holds_a_lock() -> bool:
    """Tell whether this process has a lock on some file, as proc_locks(5) says."""
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(str(os.getpid()) in lock and "POSIX" in lock for lock in locks)


def test_a_failed_write_gives_the_lock_back(shared: Shared) -> None:
    """An output that nobody reads any more is the log's to deal with."""
    seen: list[bool] = []

    def fail(batch: bytes) -> None:
        seen.append(holds_a_lock())
        raise BrokenPipeError(batch)

    with pytest.raises(BrokenPipeError):
        shared.share(1).alone(fail)(b"x")
    assert seen == [True]
    assert not holds_a_lock()
