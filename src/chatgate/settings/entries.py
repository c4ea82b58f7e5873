"""Settings as they were found, and how they become typed values.

Owns the step from loose values to the types of `keys`, with a problem for each key that is unknown, missing or wrong.
Does no I/O. Called by `reading`, `environment` and `upstreams`.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping

import msgspec
from msgspec import Meta, Struct

from chatgate.settings.document import Document, KeyPath, Step
from chatgate.settings.problems import Place, Problems, nearest, shown


class Entry(Struct, frozen=True):
    """A value and where it was found. `is_text` says that numbers and flags are still spelled as text."""

    value: typing.Any
    place: Place
    is_text: bool = False


Entries = dict[str, Entry]


def read_entries(table: type[Struct], entries: Mapping[str, Entry], problems: Problems) -> Entries:
    """Return the entries whose values obey their key's rule, now of the key's type; the others become problems."""
    rules = {field.name: field.type for field in msgspec.structs.fields(table)}
    sound: Entries = {}
    for name, entry in entries.items():
        if name not in rules:
            problems.add(entry.place, "is not a known key", nearest(name, rules))
            continue
        try:
            value = msgspec.convert(entry.value, rules[name], strict=not entry.is_text)
            # Bytes of a variable that are no UTF-8 arrive as lone surrogates, which nothing could print or send.
            str(value).encode()
        except (msgspec.ValidationError, UnicodeEncodeError):
            problems.add(entry.place, *_broken(rules[name], entry.value))
        else:
            sound[name] = Entry(value, entry.place)
    return sound


TableType = typing.TypeVar("TableType", bound=Struct)


def fill(table: type[TableType], entries: Mapping[str, Entry]) -> TableType:
    """Return the table with these values, and defaults for the rest; every required key must be there."""
    return table(**{name: entry.value for name, entry in entries.items()})


class Item(Struct, typing.Generic[TableType], frozen=True):
    """One table of an array of tables: its keys, and the way back to where they stand."""

    keys: TableType
    path: KeyPath
    document: Document

    def place(self, *steps: Step) -> Place:
        """Return where a key of the item stands; without steps, where the item itself does."""
        return self.document.place((*self.path, *steps))


def read_table(table: type[TableType], document: Document, path: KeyPath, problems: Problems) -> Item[TableType] | None:
    """Read the table at `path` of the file; None when a key that it needs is missing or wrong."""
    found = document.at(path)
    if not isinstance(found, dict):
        problems.add(document.place(path), "must be a table")
        return None
    loose = {name: Entry(value, document.place((*path, name))) for name, value in found.items()}
    sound = read_entries(table, loose, problems)
    required = [field.name for field in msgspec.structs.fields(table) if field.required]
    for name in required:
        if name not in loose:
            problems.add(document.place((*path, name)), "is missing")
    # A table with a wrong key is dropped whole, so that the rules across keys do not add complaints of their own.
    known = loose.keys() & set(table.__struct_fields__)
    return Item(fill(table, sound), path, document) if sound.keys() >= known | set(required) else None


def read_items(table: type[TableType], document: Document, path: KeyPath, problems: Problems) -> list[Item[TableType]]:
    """Read the array of tables at `path`, in order, without the items that cannot be read; absent means empty."""
    found = document.at(path)
    if found is None:
        return []
    if not isinstance(found, list):
        problems.add(document.place(path), "must be a list of tables", f"write it as [[{path[-1]}]]")
        return []
    items = [read_table(table, document, (*path, index), problems) for index in range(len(found))]
    return [item for item in items if item is not None]


def is_list(table: type[Struct], name: str) -> bool:
    """Say whether a key takes a list of texts."""
    return typing.get_origin(_bare(dict(typing.get_type_hints(table))[name])) is list


def _bare(rule: object) -> object:
    return typing.get_args(rule)[0] if typing.get_origin(rule) is typing.Annotated else rule


def _parts(rule: object) -> list[object]:
    """Return a rule and, for an optional one (`Name | None`), the rules it is made of."""
    return [rule, *typing.get_args(rule)]


def _broken(rule: object, value: object) -> tuple[str, str]:
    """Say what a value should have been, and the value unless it is a secret; the hint names a similar choice."""
    meta = next(
        part for candidate in _parts(rule) for part in getattr(candidate, "__metadata__", ()) if isinstance(part, Meta)
    )
    is_secret = bool(meta.extra and meta.extra.get("secret"))
    choices = [choice for part in _parts(_bare(rule)) for choice in typing.get_args(part) if isinstance(choice, str)]
    return (
        f"must be {meta.description}{'' if is_secret else shown(value)}",
        nearest(value, choices) if isinstance(value, str) else "",
    )
