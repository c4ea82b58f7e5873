"""The pepper is made once, belongs to its database, and can be changed."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chatgate.storage import keys, pepper
from chatgate.storage.database import Database
from chatgate.storage.errors import PepperError
from chatgate.vocabulary.keys import NewKey
from storage.conftest import NOW

OLD, NEW, OTHER = (letter * 32 for letter in (b"a", b"b", b"c"))


def test_a_pepper_is_made_once_and_its_owners_alone(tmp_path: Path) -> None:
    """The second start finds what the first made: 256 random bits that nobody else may read."""
    made = pepper.load_or_make(tmp_path / "data")
    assert pepper.load_or_make(tmp_path / "data") == made
    assert [len(bytes.fromhex(each.decode())) for each in made] == [32]
    file = tmp_path / "data" / pepper.FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [pepper.FILE_NAME]


def test_of_many_that_start_at_once_all_have_the_same(tmp_path: Path) -> None:
    """Whoever comes second takes what is there."""
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: pepper.load_or_make(tmp_path), range(8)))) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "unreadable"), (b"\n \n", "unreadable"), (b"short\n", "too_short"), (b"\xff" * 40, "unreadable")],
)
def test_a_file_without_a_pepper_is_never_replaced(content: bytes, code: str, tmp_path: Path) -> None:
    """It may be all that is left of the one the keys were made under."""
    file = tmp_path / pepper.FILE_NAME
    file.write_bytes(content)
    with pytest.raises(PepperError) as caught:
        pepper.load_or_make(tmp_path)
    assert caught.value.code == code
    assert file.read_bytes() == content


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where the directory should be: an error of ours, not the system's."""
    (tmp_path / "data").write_text("")
    with pytest.raises(PepperError):
        pepper.load_or_make(tmp_path / "data")


def test_a_line_is_a_pepper_the_current_one_first(tmp_path: Path) -> None:
    """Blank lines and blanks around do not count."""
    (tmp_path / pepper.FILE_NAME).write_bytes(b"\n " + NEW + b" \r\n\n" + OLD + b"\n")
    assert pepper.load_or_make(tmp_path) == (NEW, OLD)


def test_a_database_knows_its_pepper(database: Database) -> None:
    """Another one would make every key unknown, so it is refused as soon as there is a key."""
    database.write(pepper.recognise, (OLD,))
    database.write(keys.create, NewKey("a key"), "id", "digest", "", NOW)
    database.write(pepper.recognise, (OLD,))
    with pytest.raises(PepperError) as caught:
        database.write(pepper.recognise, (OTHER,))
    assert caught.value.code == "not_ours"
    assert "c" * 8 not in str(caught.value)
    database.write(pepper.recognise, (OLD,))


def test_a_pepper_is_changed_by_putting_a_new_one_first(database: Database) -> None:
    """From then on the database knows the new one, and the former can go once no key needs it."""
    database.write(pepper.recognise, (OLD,))
    database.write(keys.create, NewKey("a key"), "id", "digest", "", NOW)
    database.write(pepper.recognise, (NEW, OLD))
    database.write(pepper.recognise, (NEW,))
    with pytest.raises(PepperError):
        database.write(pepper.recognise, (OLD,))


def test_without_keys_any_pepper_will_do(database: Database) -> None:
    """Nothing was made under the one before."""
    database.write(pepper.recognise, (OLD,))
    database.write(pepper.recognise, (OTHER,))
    database.write(keys.create, NewKey("a key"), "id", "digest", "", NOW)
    with pytest.raises(PepperError):
        database.write(pepper.recognise, (OLD,))
