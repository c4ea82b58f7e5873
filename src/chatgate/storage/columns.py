"""What is put into cells, the same on both databases: times, bounded text, lists.

Owns the three column types of `schema`. Times are whole microseconds since 1970 in UTC, because SQLite knows no time
zones and its text does not sort as PostgreSQL's timestamps do. Text is bounded by a CHECK as well, because SQLite takes
any length, except where that would cost too much.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import BigInteger, CheckConstraint, Column, String
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy.engine import Dialect

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MICROSECONDS_OF_DAY = 86_400_000_000
_NUL_PICTURE = "\u2400"


class UtcTime(TypeDecorator[datetime]):
    """An aware time, stored as whole microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - the same on both
        """Count the microseconds; a time without a zone raises TypeError, as it could mean anything."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the same
        """Return the time in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


class BoundedText(TypeDecorator[str]):
    """Text of so many characters at most, which no database refuses: see `storable`."""

    impl = String
    cache_ok = True

    def __init__(self, characters: int) -> None:
        """Bound it to `characters`."""
        super().__init__(characters)
        self.characters = characters

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the same on both
        """Make the text storable."""
        return None if value is None else storable(value, self.characters)


class JsonList(TypeDecorator[tuple[Any, ...]]):
    """A tuple of one kind of things, stored as JSON text of so many characters at most.

    Its users bound what they store: text that does not fit is refused by the database, never cut.
    """

    impl = String
    cache_ok = True

    def __init__(self, item: Any, characters: int) -> None:  # noqa: ANN401 - anything msgspec can decode to
        """Bound it; `item` is the type of one."""
        super().__init__(characters)
        self.item = item
        self.characters = characters
        self._decoder = msgspec.json.Decoder(tuple[item, ...])

    def process_bind_param(self, value: tuple[Any, ...] | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the same
        """Encode it."""
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[Any, ...] | None:  # noqa: ARG002 - the same
        """Decode it. Raises `msgspec.DecodeError` when somebody else wrote it, and wrongly."""
        return None if value is None else self._decoder.decode(value)


def microseconds(value: datetime) -> int:
    """Return an aware time as `UtcTime` stores it; one without a zone raises TypeError."""
    return (value - _EPOCH) // _MICROSECOND


def all_microseconds(values: Iterable[datetime | None]) -> list[int]:
    """Return what `microseconds` does for each, 0 for None; by parts, which takes half as long."""
    return [
        0
        if value is None
        else (since := value - _EPOCH).days * _MICROSECONDS_OF_DAY + since.seconds * 1_000_000 + since.microseconds
        for value in values
    ]


def storable(text: str, characters: int) -> str:
    r"""Return the text as any database takes it.

    NUL becomes U+2400 and a lone surrogate U+FFFD. What is longer than `characters` is cut and says by how much:
    `…truncated(1000000)` at its end is the length it had.
    """
    if text.isascii():
        if len(text) <= characters and "\0" not in text:
            return text
    else:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if "\0" in text:
        text = text.replace("\0", _NUL_PICTURE)
    if len(text) <= characters:
        return text
    mark = f"…truncated({len(text)})"
    return (text[: max(0, characters - len(mark))] + mark)[:characters]


def are_storable(texts: Collection[str], characters: int) -> bool:
    """Tell whether all are ASCII that `storable` would not change; other texts may be as they have to be, too."""
    joined = "".join(texts)
    return not joined or (joined.isascii() and "\0" not in joined and max(map(len, texts)) <= characters)


def text_column(name: str, characters: int, *, nullable: bool = False, primary_key: bool = False) -> Column[str]:
    """Return a column of bounded text."""
    return Column(name, BoundedText(characters), at_most(name, characters), nullable=nullable, primary_key=primary_key)


def free_text(name: str, characters: int, *, nullable: bool = False, primary_key: bool = False) -> Column[str]:
    """Return the same without a rule of the database, for texts that whoever writes them has bounded."""
    return Column(name, BoundedText(characters), nullable=nullable, primary_key=primary_key)


def list_column(name: str, item: Any, characters: int) -> Column[tuple[Any, ...]]:  # noqa: ANN401 - see JsonList
    """Return a column of a list."""
    return Column(name, JsonList(item, characters), at_most(name, characters), nullable=False)


def at_most(name: str, characters: int) -> CheckConstraint:
    """Return the rule that a column has no more characters."""
    return CheckConstraint(f"length({name}) <= {characters}", name=f"{name}_length")
