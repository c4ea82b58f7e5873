"""The configuration file: its tables, and the line on which each of its keys stands.

Owns reading and parsing of TOML; knows no setting. `tomllib` keeps no positions, so a second, sloppy pass over the text
that it has already found valid notes them. Called by `reading`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from chatgate.settings.problems import Place, Problems

_LIMIT_BYTES = 1 << 20

Step = str | int
KeyPath = tuple[Step, ...]


class Document(Struct, frozen=True):
    """A parsed file. `source` is the path as the operator wrote it; relative paths inside start at `directory`."""

    source: str
    directory: Path
    tables: Mapping[str, object] = {}
    lines: Mapping[KeyPath, int] = {}

    def at(self, path: KeyPath) -> object:
        """Return the value at `path`, None when there is none."""
        value: object = self.tables
        for step in path:
            if isinstance(value, list) and isinstance(step, int):
                value = value[step]
            elif isinstance(value, Mapping):
                value = value.get(step)
            else:
                return None
        return value

    def names(self, array: str) -> list[str]:
        """Return the names that the tables of an array give themselves, of tables with other faults too.

        Whoever refers to a table that cannot be read has not made a mistake of his own.
        """
        tables = self.at((array,))
        named = [table.get("name") for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
        return [name for name in named if isinstance(name, str)]

    def place(self, path: KeyPath) -> Place:
        """Return where the key at `path` stands; a missing key stands where the table that lacks it begins."""
        line = next((self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines), None)
        return Place(self.source, _spell(path), line)


def read_document(path: Path, source: str, problems: Problems) -> Document:
    """Read the file at `path`; one that cannot be read or parsed is a problem, and then has no tables."""
    empty = Document(source, path.parent)
    whole = Place(source, source)
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT_BYTES + 1)
        # Some editors begin a file with a byte order mark, which is no TOML.
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        problems.add(Place(source, source, content.count(b"\n", 0, error.start) + 1), "is not UTF-8 text")
        return empty
    except (OSError, ValueError) as error:
        problems.add(whole, f"cannot be read: {getattr(error, 'strerror', None) or 'bad path'}")
        return empty
    if len(content) > _LIMIT_BYTES:
        problems.add(whole, "is larger than 1 MiB", "this does not look like a configuration")
        return empty
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, line = _syntax_problem(str(error), text)
        problems.add(Place(source, source, line), f"is not valid TOML: {problem}")
        return empty
    except (ValueError, RecursionError):
        problems.add(whole, "is not valid TOML: a number is too long or a value too deeply nested")
        return empty
    return Document(source, path.parent, tables, locate(text))


def _syntax_problem(message: str, text: str) -> tuple[str, int]:
    """Split tomllib's message into what it says and the line it names."""
    problem, _, position = message.rpartition(" (at ")
    stated = re.match(r"line (\d+)", position)
    return problem, int(stated[1]) if stated else text.rstrip("\n").count("\n") + 1


def _spell(path: KeyPath) -> str:
    """Write a path as people do: `upstreams[0].name`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


# The tokens of TOML 1.0 (https://toml.io/en/v1.0.0, read 2026-11-23) as far as they matter for finding keys.
_TOKEN = re.compile(
    r"""
      \"{3} (?: \\. | [^\\] )*? \"{3} (?!\")
    | '{3} .*? '{3} (?!')
    | \" (?: \\. | [^\"\\] )* \"
    | ' [^']* '
    | \# [^\n]*
    | \n
    | [\[\]{},=.]
    | [^\s\[\]{},=.\#\"']+
    """,
    re.DOTALL | re.VERBOSE,
)


def locate(text: str) -> dict[KeyPath, int]:
    """Return the line of every table, key and array item of a valid document."""
    return _Locator(text).lines


class _Locator:
    """One pass over the tokens of a valid document."""

    __slots__ = ("_index", "_tokens", "lines")

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._tokens: list[tuple[str, int]] = []
        self._index = 0
        line = 1
        for match in _TOKEN.finditer(text):
            token = match[0]
            if not token.startswith("#"):
                self._tokens.append((token, line))
            line += token.count("\n")
        self._read_document()

    @property
    def _symbol(self) -> str:
        return self._tokens[self._index][0] if self._index < len(self._tokens) else ""

    def _note(self, path: KeyPath) -> None:
        line = self._tokens[self._index][1] if self._index < len(self._tokens) else 1
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], line)

    def _after_gap(self) -> str:
        """Go past line ends and commas, and return what comes then."""
        while self._symbol in {"\n", ","}:
            self._index += 1
        return self._symbol

    def _read_document(self) -> None:
        table: KeyPath = ()
        lengths: dict[KeyPath, int] = {}
        while symbol := self._after_gap():
            if symbol != "[":
                self._read_pair(table)
                continue
            self._index += 1
            is_array = self._symbol == "["
            self._index += is_array
            table = self._read_header(lengths, is_array=is_array)
            self._index += 1 + is_array

    def _read_header(self, lengths: dict[KeyPath, int], *, is_array: bool) -> KeyPath:
        """Read `a.b` of `[a.b]` or `[[a.b]]`; steps through an array of tables go to its newest item."""
        path: KeyPath = ()
        names = self._read_names("]")
        for position, name in enumerate(names, 1):
            path = (*path, name)
            if is_array and position == len(names):
                lengths[path] = lengths.get(path, 0) + 1
            if path in lengths:
                path = (*path, lengths[path] - 1)
        self._note(path)
        return path

    def _read_names(self, end: str) -> list[str]:
        names = []
        while self._symbol not in {end, ""}:
            if self._symbol != ".":
                names.append(_unquote(self._symbol))
            self._index += 1
        return names

    def _read_pair(self, table: KeyPath) -> None:
        start = self._index
        path = (*table, *self._read_names("="))
        after, self._index = self._index, start
        self._note(path)
        self._index = after + 1
        self._read_value(path)

    def _read_value(self, path: KeyPath) -> None:
        opening = self._symbol
        if opening == "[":
            self._index += 1
            item = 0
            while self._after_gap() not in {"]", "}", ""}:
                self._note((*path, item))
                self._read_value((*path, item))
                item += 1
            self._index += 1
        elif opening == "{":
            self._index += 1
            while self._after_gap() not in {"}", ""}:
                self._read_pair(path)
            self._index += 1
        else:
            while self._symbol not in {"\n", ",", "]", "}", ""}:
                self._index += 1


def _unquote(name: str) -> str:
    """Return the key that `name` writes; escapes inside basic strings are read by tomllib itself."""
    if name[0] not in "\"'":
        return name
    return next(iter(tomllib.loads(f"{name} = 0")))
