"""Messages of Gemini's protocol by the names of their fields.

The protocol is protobuf's JSON: `systemInstruction` may be written `system_instruction`, too, and null means absent.
Source: https://protobuf.dev/programming-guides/json/ (read 2026-11-23).
"""

from __future__ import annotations

import re

from chatgate.protocols.reading import Json, mapping, wrong_type
from chatgate.vocabulary.errors import CallerError, Kind

_UNDERSCORED = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")


def camel(name: str) -> str:
    """Return a field's name as the vendor writes it."""
    return _UNDERSCORED.sub(lambda found: found[1].upper(), name) if "_" in name else name


def fields(value: object, path: str) -> Json:
    """Return the fields of a message that say something, by the vendor's names. Raises `CallerError`."""
    found: Json = {}
    for name, each in mapping(value, path).items():
        told = camel(name)
        if told in found:
            raise CallerError(Kind.INVALID_VALUE, "duplicate_field", param=told, parameters={"field": told[:64]})
        if each is not None:
            found[told] = each
    return found


def listed(value: object, path: str) -> list[tuple[Json, str]]:
    """Return the messages of a list by their names, each with its path; absent means none. Raises `CallerError`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(path, "array")
    return [(fields(each, f"{path}[{index}]"), f"{path}[{index}]") for index, each in enumerate(value)]
