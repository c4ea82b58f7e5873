"""The journal: what was written is read back, once and in order, whatever happens to process, disk and text."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounting.journals import NOON, RECORDS, Clock, damaged, dispatch, records, settlement, write
from chatgate.accounting.frames import HEADER_BYTES, MAX_TEXT_CHARACTERS, encode_frame, frame_end
from chatgate.accounting.journal import Journal, JournalUnavailable
from chatgate.accounting.records import Dispatch, Settlement, decode
from chatgate.accounting.segments import START, Entry, Position, replay

# --- What is written is read back -------------------------------------------------------------------------------------


def test_records_are_read_back_as_they_were(tmp_path: Path, clock: Clock) -> None:
    """All kinds, all fields, in order, and again from any place between them."""
    write(tmp_path, clock, *RECORDS)
    entries = list(replay(tmp_path))
    assert [entry.record for entry in entries] == RECORDS
    for index, entry in enumerate(entries, 1):
        assert records(tmp_path, entry.position) == RECORDS[index:]


def test_a_record_is_on_disk_when_write_returns(tmp_path: Path, clock: Clock) -> None:
    """A reader of another process sees it at once: nothing waits in this one."""
    journal = Journal(tmp_path, clock)
    for index, record in enumerate(RECORDS, 1):
        journal.write(record)
        assert records(tmp_path) == RECORDS[:index]
        assert list(replay(tmp_path))[-1].position == journal.position
    journal.close()


def test_a_reader_goes_on_where_it_was(tmp_path: Path, clock: Clock) -> None:
    """Reading bit by bit, while segments change, gives each record once."""
    journal = Journal(tmp_path, clock, segment_bytes=600)
    position, seen = START, []
    wanted = [dispatch(f"c{number}") for number in range(50)]
    for record in wanted:
        journal.write(record)
        for entry in replay(tmp_path, position):
            position = entry.position
            seen.append(entry.record)
    assert seen == wanted
    assert position.segment > 5
    journal.close()


def test_a_missing_directory_holds_nothing(tmp_path: Path) -> None:
    """Before the first start there is nothing to read."""
    assert list(replay(tmp_path / "none")) == []


def test_only_its_owner_can_read_a_journal(tmp_path: Path, clock: Clock) -> None:
    """It tells who called from where."""
    directory = tmp_path / "journal" / "worker-1"
    write(directory, clock, *RECORDS)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_every_start_begins_a_segment(tmp_path: Path, clock: Clock) -> None:
    """Nothing is appended to what a predecessor left."""
    for record in RECORDS:
        write(tmp_path, clock, record)
    assert len(list(tmp_path.glob("*.journal"))) == len(RECORDS)
    assert records(tmp_path) == RECORDS


def test_a_directory_has_one_writer(tmp_path: Path, clock: Clock) -> None:
    """A second one is told so, and may come when the first has left."""
    first = Journal(tmp_path, clock)
    with pytest.raises(JournalUnavailable, match="another"):
        Journal(tmp_path, clock)
    first.close()
    first.close()
    Journal(tmp_path, clock).close()


def test_an_unusable_directory_is_told_at_the_start(tmp_path: Path, clock: Clock) -> None:
    """A file in its place is an error of the operator's."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalUnavailable):
        Journal(tmp_path / "file" / "journal", clock)


def test_what_is_folded_can_be_dropped_but_numbers_count_on(tmp_path: Path, clock: Clock) -> None:
    """A place that a reader remembers never means something else later."""
    journal = Journal(tmp_path, clock, segment_bytes=600)
    for number in range(20):
        journal.write(dispatch(f"c{number}"))
    end = journal.position
    journal.drop(end)
    assert [path.stem for path in tmp_path.glob("*.journal")] == [f"{end.segment:010d}"]
    journal.close()
    write(tmp_path, clock, dispatch("later"))
    assert records(tmp_path, end) == [dispatch("later")]
    journal = Journal(tmp_path, clock)
    journal.drop(Position(10**6, 0))
    journal.write(dispatch("last"))
    assert journal.position.segment == end.segment + 2
    journal.close()


def test_an_entry_tells_where_to_go_on(tmp_path: Path, clock: Clock) -> None:
    """Positions are comparable, so that whoever reads knows which of two is further."""
    write(tmp_path, clock, *RECORDS[:2])
    write(tmp_path, clock, RECORDS[2])
    positions = [entry.position for entry in replay(tmp_path)]
    assert positions == sorted(positions)
    assert positions[0] > START
    assert list(replay(tmp_path, positions[-1])) == []
    assert list(replay(tmp_path, positions[1])) == [Entry(positions[2], RECORDS[2])]


# --- Torn and damaged -------------------------------------------------------------------------------------------------


def test_a_torn_record_is_recognised_at_every_byte(tmp_path: Path, clock: Clock) -> None:
    """Cut anywhere, the records before the cut are there, the next start goes on, and what was torn is told."""
    write(tmp_path, clock, *RECORDS[:2])
    path = next(tmp_path.glob("*.journal"))
    whole = path.read_bytes()
    first = len(encode_frame(RECORDS[0])[0])
    for cut in range(len(whole)):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        path.write_bytes(whole[:cut])
        survivors = RECORDS[: int(cut >= first)]
        assert records(tmp_path) == survivors
        assert damaged(tmp_path) == []
        write(tmp_path, clock, RECORDS[2])
        assert records(tmp_path) == [*survivors, RECORDS[2]]
        torn = whole[first * (cut >= first) : cut]
        assert damaged(tmp_path) == ([torn] if torn else [])


@given(st.data())
def test_damage_costs_the_records_it_touches_and_no_others(tmp_path_factory: object, data: st.DataObject) -> None:
    """Bytes that the disk changed are told as damaged; every record outside of them is read."""
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    directory = tmp_path_factory.mktemp("damage")
    frames = [encode_frame(dispatch(f"c{number}"))[0] for number in range(8)]
    content = bytearray(b"".join(frames))
    start = data.draw(st.integers(0, len(content) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=min(40, len(content) - start)))
    original = bytes(content[start : start + len(patch)])
    content[start : start + len(patch)] = patch
    (directory / "0000000001.journal").write_bytes(content)
    (directory / "0000000002.journal").write_bytes(encode_frame(dispatch("next"))[0])
    size = len(frames[0])
    hit = {(start + index) // size for index in range(len(patch)) if patch[index] != original[index]}
    found = records(directory)
    assert found == [*(dispatch(f"c{number}") for number in range(8) if number not in hit), dispatch("next")]
    assert bool(damaged(directory)) == bool(hit)


def test_a_damaged_length_does_not_skip_the_neighbour(tmp_path: Path) -> None:
    """A length that happens to lead to a later frame hides none of those between."""
    frames = [encode_frame(dispatch(f"c{number}"))[0] for number in range(4)]
    size = len(frames[0])
    wrong = (2 * size - HEADER_BYTES).to_bytes(4, "little") + frames[0][4:]
    (tmp_path / "0000000001.journal").write_bytes(b"".join([wrong, *frames[1:]]))
    assert records(tmp_path) == [dispatch(f"c{number}") for number in range(1, 4)]
    assert damaged(tmp_path) == [wrong]


def test_zeros_at_the_end_are_no_records(tmp_path: Path, clock: Clock) -> None:
    """What a file system shows after a loss of power is not taken for anything."""
    write(tmp_path, clock, *RECORDS)
    with next(tmp_path.glob("*.journal")).open("ab") as file:
        file.write(bytes(4096))
    assert [entry.record for entry in replay(tmp_path)] == RECORDS
    write(tmp_path, clock, settlement("c2"))
    assert records(tmp_path) == [*RECORDS, settlement("c2")]
    assert damaged(tmp_path) == [bytes(4096)]


def test_a_record_of_a_newer_program_is_passed_over_and_told(tmp_path: Path) -> None:
    """Its neighbours are read, and it can be kept for whoever understands it."""
    newer = encode_frame(dispatch("c1"))[0].replace(b'"dispatch"', b'"audition"')
    line = newer[HEADER_BYTES:]
    (tmp_path / "0000000001.journal").write_bytes(
        encode_frame(dispatch("a"))[0]
        + encode_frame(dispatch("b"))[0]
        + _reframed(line)
        + encode_frame(dispatch("c"))[0]
    )
    assert records(tmp_path) == [dispatch("a"), dispatch("b"), dispatch("c")]
    assert damaged(tmp_path) == [line]


def _reframed(line: bytes) -> bytes:
    return len(line).to_bytes(4, "little") + crc32(line).to_bytes(4, "little") + line


def test_records_with_more_or_fewer_fields_are_understood() -> None:
    """A program one version older or newer reads them: fields are added at the end, with defaults."""
    line = encode_frame(dispatch("c1"))[0][HEADER_BYTES:]
    assert decode(line.replace(b"]\n", b',"new"]\n')) == dispatch("c1")
    assert decode(line.replace(b",0,[]]", b"]")) == dispatch("c1")


# --- Poison -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "stored"),
    [
        ("a\0b", "a\u2400b"),
        ("a\ud800b\udfff", "a\ufffdb\ufffd"),
        ("\\u0000", "\\u0000"),
        ("\\\0", "\\\u2400"),
        ("x" * MAX_TEXT_CHARACTERS, "x" * MAX_TEXT_CHARACTERS),
        ("\u202e\u2028\x7f\x1b[2J\n", "\u202e\u2028\x7f\x1b[2J\n"),
    ],
)
def test_poison_is_normalised_when_it_is_written(tmp_path: Path, clock: Clock, poison: str, stored: str) -> None:
    """NUL and lone surrogates become signs that every database takes; all else stays."""
    write(tmp_path, clock, dispatch("before"), dispatch(poison, poison), dispatch("after"))
    assert records(tmp_path) == [dispatch("before"), dispatch(stored, stored), dispatch("after")]


def test_a_text_of_a_megabyte_is_cut_and_says_so(tmp_path: Path, clock: Clock) -> None:
    """The record stays small, and tells how long the text was."""
    write(tmp_path, clock, dispatch("c1", "y" * (1 << 20)))
    (record,) = records(tmp_path)
    assert isinstance(record, Dispatch)
    assert len(record.asked_model) == MAX_TEXT_CHARACTERS
    assert record.asked_model.endswith("yyy…truncated(1048576)")


def test_poison_in_lists_is_normalised_too(tmp_path: Path, clock: Clock) -> None:
    """The names of accounts, and of flaws, are texts as well."""
    record = Settlement("c1", 1, NOON, "completed", 200, flaws=("fine", "a\0", "\ud800"))
    write(tmp_path, clock, record)
    (stored,) = records(tmp_path)
    assert isinstance(stored, Settlement)
    assert stored.flaws == ("fine", "a\u2400", "\ufffd")


def test_one_percent_of_poison_costs_no_row(tmp_path: Path, clock: Clock) -> None:
    """Ten thousand records, a hundred of them poisoned in three ways: ten thousand are read."""
    poisons = ("\0", "\ud83d", "z" * 100_000)
    journal = Journal(tmp_path, clock, segment_bytes=200_000)
    for number in range(10_000):
        journal.write(dispatch(f"c{number}", poisons[number % 3] if number % 100 == 7 else "m"))
    journal.close()
    found = records(tmp_path)
    assert [record.call_id for record in found] == [f"c{number}" for number in range(10_000)]
    assert damaged(tmp_path) == []


TEXTS = st.text(st.characters(exclude_categories=()), max_size=700)


@given(TEXTS, TEXTS)
def test_whatever_a_text_holds_its_frame_is_whole(call_id: str, model: str) -> None:
    """Any text at all gives a frame that is read back, as something that can be stored."""
    frame = encode_frame(Settlement(call_id, 1, NOON, "completed", 200, "", model))[0]
    assert frame_end(frame, 0) == len(frame)
    record = decode(frame[HEADER_BYTES:])
    assert isinstance(record, Settlement)
    for text, kept in ((call_id, record.call_id), (model, record.answered_model)):
        assert len(kept) <= MAX_TEXT_CHARACTERS
        assert "\0" not in kept
        kept.encode()
        if text.isprintable() and len(text) <= MAX_TEXT_CHARACTERS:
            assert kept == text
