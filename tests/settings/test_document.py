"""The file: what can be wrong with it as a whole, and the line of each key."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from chatgate.settings import Settings, SettingsError
from chatgate.settings.document import KeyPath, Step, locate, read_document
from chatgate.settings.problems import Problems

Load = Callable[..., Settings]

TEXT = '''# a comment with a = 1 in it
top = 1
"quoted.key" = "a # b"

[server]            # line 5
host = "x"
text = """
[not.a.table]
port = 3
"""                 # line 10
raw = \'\'\'
it's = "
\'\'\'
a.b . c = 2.5
list = [ 1,         # line 15
  [ 2, { x = 1 } ],
  "]",
]
[[items]]
name = "first"      # line 20
[[items]]
name = 'second'
inline = { p = 1, q = [ { r = 1 },
  { r = 2 } ] }
[items.deep]        # line 25
key = 1979-05-27 07:32:00
[[items.list]]
z = """"quoted\\""""""
[[items.list]]
z = true            # line 30
'''

LINES: list[tuple[KeyPath, int]] = [
    (("top",), 2),
    (("quoted.key",), 3),
    (("server",), 5),
    (("server", "host"), 6),
    (("server", "text"), 7),
    (("server", "raw"), 11),
    (("server", "a"), 14),
    (("server", "a", "b", "c"), 14),
    (("server", "list"), 15),
    (("server", "list", 1), 16),
    (("server", "list", 1, 1, "x"), 16),
    (("server", "list", 2), 17),
    (("items",), 19),
    (("items", 0), 19),
    (("items", 0, "name"), 20),
    (("items", 1), 21),
    (("items", 1, "name"), 22),
    (("items", 1, "inline", "p"), 23),
    (("items", 1, "inline", "q", 0, "r"), 23),
    (("items", 1, "inline", "q", 1, "r"), 24),
    (("items", 1, "deep", "key"), 26),
    (("items", 1, "list", 0, "z"), 28),
    (("items", 1, "list", 1), 29),
    (("items", 1, "list", 1, "z"), 30),
]


@pytest.mark.parametrize(("path", "line"), LINES)
def test_the_line_of_a_key_is_found(path: KeyPath, line: int) -> None:
    """Strings over several lines, comments, dotted keys, arrays and inline tables do not mislead."""
    assert locate(TEXT)[path] == line


def paths(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of everything inside a parsed document."""
    steps: list[tuple[Step, object]] = []
    if isinstance(value, dict):
        steps = list(value.items())
    elif isinstance(value, list):
        steps = list(enumerate(value))
    for step, inner in steps:
        yield (*path, step)
        yield from paths(inner, (*path, step))


def test_every_key_has_a_line() -> None:
    """The lines cover exactly what tomllib reads."""
    assert set(locate(TEXT)) == set(paths(tomllib.loads(TEXT)))


@bounded(deadline=None)
@given(st.text("[]{}=,.\"'#\n\\ab1 "))
def test_locating_ends_for_any_text(text: str) -> None:
    """The sloppy pass ends on every text, and on a valid one it knows every key."""
    lines = locate_or_nothing(text)
    try:
        expected = set(paths(tomllib.loads(text)))
    except tomllib.TOMLDecodeError:
        return
    assert lines == expected


def locate_or_nothing(text: str) -> set[KeyPath]:
    """Locate, on texts that may be invalid too."""
    try:
        return set(locate(text))
    except tomllib.TOMLDecodeError:
        return set()


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        (b"[server]\nport = \n", 2, "TOML"),
        (b"[server]\nport = 1\nport = 2\n", 3, "TOML"),
        (b'[server]\nhost = "a\nb"', 2, "TOML"),
        (b"a = 1\n\n[server", 3, "TOML"),
        (b"# \xff", 1, "UTF-8"),
        (b'\n\nx = "\xe4"', 3, "UTF-8"),
        (b"a = " + b"[" * 3000 + b"]" * 3000, None, "nested"),
        (b"a = " + b"9" * 5000, None, "too long"),
        (b"#" * (1 << 20) + b"\n", None, "1 MiB"),
    ],
)
def test_a_file_that_is_no_toml_is_one_problem(load_text: Load, content: bytes, line: int | None, word: str) -> None:
    """The problem names the file and, where it is known, the line."""
    with pytest.raises(SettingsError, match=word) as caught:
        load_text(content)
    (problem,) = caught.value.problems
    assert (problem.source, problem.line) == ("chatgate.toml", line)


def test_editors_habits_do_no_harm(load_text: Load) -> None:
    """A byte order mark and line ends with carriage returns are read."""
    assert load_text(b"\xef\xbb\xbf[server]\r\nport = 1\r\n").server.port == 1


def test_a_bad_path_is_a_problem_like_any_other(tmp_path: Path) -> None:
    """A path that no system call takes is refused, not raised."""
    problems = Problems()
    read_document(tmp_path / "\0", "bad", problems)
    with pytest.raises(SettingsError, match="cannot be read"):
        problems.stop_if_any()
