"""The journal on a disk that is full or fails: calls are refused, nothing is lost, and it goes on by itself."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from accounting.journals import Clock, damaged, dispatch, records
from chatgate.accounting.journal import RETRY_SECONDS, Journal, JournalUnavailable
from chatgate.accounting.syncing import Syncer

# --- A disk that is full or fails -------------------------------------------------------------------------------------

FULL = """
import resource, signal, sys
from datetime import datetime, UTC
from pathlib import Path
from chatgate.accounting.journal import Journal, JournalUnavailable
from chatgate.accounting.records import Settlement

now = 0.0
journal = Journal(Path(sys.argv[1]), lambda: now)
def settlement(name):
    return Settlement(name, 1, datetime(2026, 11, 23, tzinfo=UTC), "completed", 200)
def attempt(name):
    try:
        journal.write(settlement(name))
    except JournalUnavailable as error:
        print(name, "refused:", error)
    else:
        print(name, "written")
def allow(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
attempt("a")
allow(journal.position.offset + 30)
attempt("torn")
allow(60)
journal.keep(settlement("kept"))
attempt("soon")
now = 0.9
attempt("soon")
now = 1.1
attempt("still-full")
allow(resource.RLIM_INFINITY)
now = 2.0
attempt("too-soon")
now = 2.2
attempt("b")
print(repr(journal.trouble), journal.lost)
allow(60)
attempt("c")
for now, size in ((4.0, 1000), (6.0, resource.RLIM_INFINITY)):
    allow(size)
    journal.tick()
    print(repr(journal.trouble))
attempt("d")
journal.close()
"""


def test_a_full_disk_refuses_and_is_used_again_when_it_has_room(tmp_path: Path) -> None:
    """A short write tears a record: it is left behind, nothing is written for a second, what is kept comes first.

    Without a call, a look at the disk now and then finds out whether it has room again.
    """
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.splitlines() == [
        "a written",
        "torn refused: the disk is full",
        "soon refused: the disk is full",
        "soon refused: the disk is full",
        "still-full refused: the disk is full",
        "too-soon refused: the disk is full",
        "b written",
        "'' 0",
        "c refused: File too large",
        "'the disk is full'",
        "''",
        "d written",
    ], done.stderr
    assert [record.call_id for record in records(tmp_path)] == ["a", "kept", "b", "d"]
    assert [len(torn) for torn in damaged(tmp_path)] == [30]
    assert not list(tmp_path.glob("probe"))
    assert len(list(tmp_path.glob("*.journal"))) == 3


def test_a_full_file_system_refuses_and_is_used_again(tmp_path: Path) -> None:
    """The same on a real file system without any room left, filled and freed ten times."""
    program = """
import os, sys
from datetime import datetime, UTC
from pathlib import Path
from chatgate.accounting.journal import Journal, JournalUnavailable
from chatgate.accounting.records import Settlement
from chatgate.accounting.segments import replay

root = Path(sys.argv[1])
now = 0.0
journal = Journal(root / "journal", lambda: now)
written, refused = [], 0
for turn in range(10):
    with (root / "ballast").open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(4096)):
                pass
        except OSError:
            pass
    for number in range(10_000):
        name = f"{turn}-{number}"
        record = Settlement(name, 1, datetime(2026, 11, 23, tzinfo=UTC), "completed", 200)
        try:
            journal.write(record)
        except JournalUnavailable:
            refused += 1
            break
        written.append(name)
    name = f"{turn}-kept"
    journal.keep(Settlement(name, 1, datetime(2026, 11, 23, tzinfo=UTC), "completed", 200))
    written.append(name)
    (root / "ballast").unlink()
    now += 5
    journal.tick()
    assert not journal.trouble
    for entry in replay(root / "journal"):
        position = entry.position
    assert position == journal.position
journal.close()
assert [entry.record.call_id for entry in replay(root / "journal") if entry.record] == written
print(refused, "refused")
"""
    mount = 'mount -t tmpfs -o size=512k tmpfs "$1" && exec "$0" -c "$2" "$1"'
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run(
            [unshare, "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a small file system cannot be mounted here: `unshare -rm` and tmpfs are needed")
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", mount, sys.executable, tmp_path, program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "10 refused\n", done.stderr


def test_a_journal_that_nobody_folds_is_full_at_its_bound(tmp_path: Path, clock: Clock) -> None:
    """It refuses instead of filling the disk, and goes on once what was folded is dropped."""
    journal = Journal(tmp_path, clock, segment_bytes=500, max_bytes=3000)
    refused = 0
    for number in range(100):
        try:
            journal.write(dispatch(f"c{number}"))
        except JournalUnavailable:
            refused += 1
    assert journal.trouble == "the journal is full"
    assert len(records(tmp_path)) == 100 - refused
    assert 10 < refused < 90
    journal.drop(journal.position)
    clock.now += RETRY_SECONDS
    journal.write(dispatch("again"))
    assert journal.trouble == ""
    journal.close()


def test_what_is_kept_is_bounded_and_what_is_lost_is_counted(tmp_path: Path, clock: Clock) -> None:
    """Memory has an end as well; the first ones stay, in order, and are written before anything new."""
    journal = Journal(tmp_path, clock, segment_bytes=1, max_bytes=1, max_kept=3)
    journal.write(dispatch("c0"))
    for number in range(1, 6):
        journal.keep(dispatch(f"c{number}"))
    assert journal.lost == 2
    clock.now += RETRY_SECONDS
    journal.tick()
    assert records(tmp_path) == [dispatch("c0")]
    (tmp_path / "0000000001.journal").unlink()
    clock.now += RETRY_SECONDS
    journal.tick()
    assert [record.call_id for record in records(tmp_path)] == ["c1", "c2", "c3"]
    assert journal.position.segment == 2
    journal.close()


# --- Safe from a loss of power ----------------------------------------------------------------------------------------


class Disk:
    """What brings data to the disk: it counts, waits when told, and fails when told."""

    def __init__(self) -> None:
        """Work at once, and well."""
        self.synced: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.fails = False

    def __call__(self, file: int) -> None:
        """Sync a file."""
        self.entered.set()
        self.open.wait(30)
        if self.fails and stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(file)
        self.synced.append(file)


@pytest.fixture
def disk() -> Disk:
    """Return a disk."""
    return Disk()


@pytest.fixture
def durable(tmp_path: Path, clock: Clock, disk: Disk) -> Iterator[Journal]:
    """Return a journal that outlives the power."""
    journal = Journal(tmp_path, clock, durability="power", sync=disk)
    yield journal
    disk.open.set()
    journal.close()


def test_nobody_waits_for_the_disk_who_did_not_ask(tmp_path: Path, clock: Clock) -> None:
    """Outliving the process takes no sync, and no thread."""
    threads = threading.active_count()
    journal = Journal(tmp_path, clock)
    journal.write(dispatch("c1"))
    assert journal.synced() is None
    assert threading.active_count() == threads
    journal.close()


def test_records_are_on_the_disk_when_their_future_is_done(durable: Journal, disk: Disk) -> None:
    """The file was synced after the record was written, and so was the directory that names it."""
    durable.write(dispatch("c1"))
    future = durable.synced()
    assert future is not None
    assert future.result(10) is None
    assert len(disk.synced) == 2


def test_those_who_wait_at_once_share_a_sync(durable: Journal, disk: Disk) -> None:
    """A hundred calls that come while the disk is busy cost one more sync, not a hundred."""
    durable.write(dispatch("c0"))
    first = durable.synced()
    assert first is not None
    first.result(10)
    disk.open.clear()
    disk.entered.clear()
    futures = [durable.synced()]
    assert disk.entered.wait(10)
    before = len(disk.synced)
    for number in range(1, 100):
        durable.write(dispatch(f"c{number}"))
        futures.append(durable.synced())
    assert not any(future is None or future.done() for future in futures)
    disk.open.set()
    for future in futures:
        assert future is not None
        future.result(10)
    assert len(disk.synced) - before == 2


def test_a_failed_sync_is_told_and_the_next_record_goes_elsewhere(durable: Journal, disk: Disk, tmp_path: Path) -> None:
    """The kernel says only once that it lost something, so the file is not trusted again; kept again, all is there."""
    disk.fails = True
    durable.write(dispatch("c1"))
    future = durable.synced()
    assert future is not None
    with pytest.raises(OSError, match="Input/output"):
        future.result(10)
    disk.fails = False
    late = durable.synced()
    assert late is not None
    with pytest.raises(OSError, match="did not take"):
        late.result(10)
    assert durable.trouble
    durable.keep(dispatch("c1"))
    again = durable.synced()
    assert again is not None
    again.result(10)
    assert not durable.trouble
    assert durable.position.segment == 2
    assert records(tmp_path) == [dispatch("c1"), dispatch("c1")]


def test_a_file_that_failed_once_keeps_failing(tmp_path: Path, disk: Disk) -> None:
    """The next sync would report success for what the kernel has dropped."""
    syncer = Syncer(disk)
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    disk.fails = True
    first = syncer.ask(file)
    with pytest.raises(OSError, match="Input/output"):
        first.result(10)
    disk.fails = False
    second = syncer.ask(file)
    with pytest.raises(OSError, match="Input/output"):
        second.result(10)
    assert disk.synced == []
    syncer.retire(file)
    syncer.close()


def test_every_segment_is_synced_before_it_is_left(tmp_path: Path, clock: Clock, disk: Disk) -> None:
    """A future covers what was written before a change of segments as well, and all files are closed in the end."""
    files = len(list(Path("/proc/self/fd").iterdir()))
    journal = Journal(tmp_path, clock, durability="power", segment_bytes=300, sync=disk)
    for number in range(20):
        journal.write(dispatch(f"c{number}"))
    future = journal.synced()
    assert future is not None
    future.result(10)
    segments = len(list(tmp_path.glob("*.journal")))
    assert len(disk.synced) >= segments
    journal.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
