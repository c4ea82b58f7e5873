"""What is wrong with a configuration, gathered so that one start shows all of it.

Owns how a problem is worded and rendered. Knows no setting and never holds a secret: whoever adds a problem about a
secret says what is wrong with it, not what it is. Used by every reader of this package; `SettingsError` is what leaves
the package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from msgspec import Struct

_SHOWN_CHARACTERS = 24
_KEY_PREFIX = "sk-"


class Place(Struct, frozen=True):
    """Where a setting was found.

    `source` is a file, the name of an environment variable or an option. `key` is the path in the settings tree
    (`upstreams[0].base_url`), equal to `source` for what has no path there. `line` counts from 1, None outside files.
    """

    source: str
    key: str
    line: int | None = None


class Problem(Struct, frozen=True):
    """One reason not to start. `problem` completes a sentence about the key; `hint` is "" or says how to mend it."""

    source: str
    line: int | None
    key: str
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        """Render one line in the form compilers use, and the hint below it."""
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        about = f"{self.key} {self.problem}" if self.key != self.source else self.problem
        text = printable(f"{where}: {about}")
        return f"{text}\n    hint: {printable(self.hint)}" if self.hint else text


class SettingsError(Exception):
    """The configuration does not allow a start; `problems` says why, in the order of reading, never empty."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep the problems."""
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def render(self) -> str:
        """Return the text for stderr, without a newline at its end and without any secret."""
        return "\n".join(str(problem) for problem in self.problems)

    def __str__(self) -> str:
        """Return what `render` returns."""
        return self.render()


class Refusal(ValueError):  # noqa: N818 - a refusal is no fault of the program
    """A value that cannot be used; raised by the readers of single values, which do not know where it stands."""

    def __init__(self, problem: str, hint: str = "") -> None:
        """`problem` completes a sentence about the key, and holds no secret."""
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


class Problems:
    """The problems found so far."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        """Begin with none."""
        self._found: list[Problem] = []

    def add(self, place: Place, problem: str, hint: str = "") -> None:
        """Note a problem with the setting found at `place`."""
        self._found.append(Problem(place.source, place.line, place.key, problem, hint))

    def about(self, place: Place) -> _About:
        """Turn a `Refusal` inside a `with` block into a problem of `place`, and go on after the block."""
        return _About(self, place)

    def stop_if_any(self) -> None:
        """Raise `SettingsError` unless there is none."""
        if self._found:
            raise SettingsError(self._found)


class _About:
    """What `Problems.about` enters."""

    __slots__ = ("_place", "_problems")

    def __init__(self, problems: Problems, place: Place) -> None:
        self._problems = problems
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Refusal):
            self._problems.add(self._place, error.problem, error.hint)
            return True
        return False


def printable(text: str) -> str:
    """Return `text` without anything that could move a terminal's cursor."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def shown(value: object) -> str:
    """Return `, not VALUE` for a value that is short and no key put in the wrong place, else nothing."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, (dict, list)) or len(text) > _SHOWN_CHARACTERS or text.lower().startswith(_KEY_PREFIX):
        return ""
    return f', not "{text}"' if isinstance(value, str) else f", not {text}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word which `word` resembles, or nothing."""
    similar = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {similar[0]}?" if similar else ""
