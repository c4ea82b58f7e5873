"""JSON values of a request, read with their paths, so that whoever sent something else learns where.

Owns the refusals of wrong types. Used by the translations of requests, in both directions.
"""

from __future__ import annotations

from typing import Any

from chatgate.vocabulary.errors import CallerError, Kind, Phrase

Json = dict[str, Any]


def wrong_type(path: str, expected: str) -> CallerError:
    """Return the refusal of a value of the wrong type; `expected` is JSON's name of the right one."""
    return CallerError(
        Kind.INVALID_VALUE,
        "wrong_type",
        param=path,
        parameters={"field": path, "expected": Phrase(f"type_{expected}")},
    )


def text(value: object, path: str) -> str:
    """Return a text. Raises `CallerError`."""
    if isinstance(value, str):
        return value
    raise wrong_type(path, "string")


def mapping(value: object, path: str) -> Json:
    """Return an object. Raises `CallerError`."""
    if isinstance(value, dict):
        return value
    raise wrong_type(path, "object")


def objects(value: object, path: str) -> list[tuple[Json, str]]:
    """Return the objects of a list, each with its path; absent and null mean none. Raises `CallerError`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(path, "array")
    return [(mapping(each, f"{path}[{index}]"), f"{path}[{index}]") for index, each in enumerate(value)]


def required(source: Json, name: str, path: str) -> str:
    """Return a text that has to be there. Raises `CallerError`."""
    where = f"{path}.{name}"
    if source.get(name) is None:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param=where, parameters={"field": where})
    return text(source[name], where)
