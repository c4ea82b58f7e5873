"""A JSON object as it arrived from a caller: checked strictly, read partly, changed by splicing.

A body is decoded no further than its top level: what is only passed on stays bytes. Still everything that would make
two parsers disagree is refused: invalid UTF-8, duplicate top-level keys, numbers that no double or 64-bit integer
holds, nesting deeper than `MAX_DEPTH`. The checks that need to look at every byte in Python run only when a cheap look
says that they could fail.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

import msgspec

from chatgate.vocabulary.document import Document, locate
from chatgate.vocabulary.errors import CallerError, Kind, Phrase

MAX_DEPTH = 64
"""How deep objects and arrays may be nested, the outermost counting as one."""

MAX_FIELDS = 1000
"""How many fields the outermost object may have; no protocol knows a tenth of that."""

MAX_NESTED = 200_000
"""How many objects and arrays a body may hold; to check more would hold up other calls."""

MAX_SHOWN_CHARACTERS = 64
"""As much of an unknown field's name is told."""

MAX_NUMBER_CHARACTERS = 400
"""A longer number has no honest use, and converting it would cost time."""

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_UNREADABLE = (msgspec.DecodeError, RecursionError)
_STRING_OF_BRACKETS = re.compile(rb'"[^"]*"')
_ALIKE = bytes.maketrans(b"123456789E{", b"000000000e[")
_TELLING_NOTHING = bytes(set(range(256)) - set(b'0123456789eE+[{,:"'))
_LONG_NUMBER = b"0" * 19
_HARMLESS_BYTES = 4
"""A value as short as this is no number that is out of range, and not deep."""

_TWICE_BYTES = 5
_QUOTE = ord('"')
_STRING_OR_NUMBER = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(-?\d[\d.eE+-]{3,}+)')
_BRACKETS_ALIKE = bytes.maketrans(b"{}", b"[]")
_NEITHER_BRACKETS_NOR_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))
_INTEGERS = range(-(2**63), 2**63)
_UNKNOWN = re.compile(r"unknown field `(?P<field>.*?)`(?: - at `\$[^`]*`)?\Z", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")
_WRONG_TYPE = re.compile(r"Expected `(?P<expected>\w+)[^`]*`, got ")
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`")
_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "array": "array"}


def parse(body: bytes, left_out: frozenset[str] = frozenset()) -> Document:
    """Check and open a JSON object.

    The fields `left_out` are not looked into: who calls does that by `check`, or by decoding them as something that can
    hold no nesting, and no number that is out of range or longer than `MAX_NUMBER_CHARACTERS`. Raises `CallerError` of
    kind `INVALID_JSON`.
    """
    if not body.isascii():
        _check_utf8(body)
    try:
        fields = _decode_fields(body)
    except _UNREADABLE as error:
        raise _refusal_of_all(error) from None
    if not fields.keys() <= left_out:
        _check_fields(fields, left_out)
    terse = _encode(fields)
    # What is there beside the fields, written as tersely as can be, are spaces, escapes, or a key that is there twice;
    # that takes two quotes, a colon, a comma, its own characters, and a value.
    if body != terse and (
        not fields or len(body) - len(terse) >= _TWICE_BYTES + min(map(len, fields)) or body.find(b"\\") >= 0
    ):
        body = _without_doubt(body, fields)
    return Document(body, fields)


def check(values: Sequence[bytes | msgspec.Raw], depth: int) -> None:
    """Refuse valid JSON that other parsers may not take, or would take their time over.

    `depth` is that of the values. Raises `CallerError` of kind `INVALID_JSON`.
    """
    values = [value for value in values if memoryview(value)[0] != _QUOTE]
    if not values:
        return
    text = b" ".join(values)
    # What is left of it are the beginnings of its nesting and the shapes of its numbers, or more than these.
    shape = text.translate(_ALIKE, _TELLING_NOTHING)
    nested = shape.count(b"[")
    if nested > MAX_NESTED:
        raise _refusal("invalid_json", detail=f"over {MAX_NESTED} objects and arrays")
    if nested > MAX_DEPTH - depth and _too_deep(text, MAX_DEPTH + 1 - depth):
        raise _refusal("body_too_deep", limit=MAX_DEPTH)
    # For bytes `in` costs several times as much as `find`: it tries them as a number first.
    if shape.find(b"000") >= 0 and (b"0e000" in shape or b"0e+000" in shape or _LONG_NUMBER in shape):
        _check_numbers(text)


def _check_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError:
        raise _refusal("body_not_utf8") from None


def _check_fields(fields: dict[str, msgspec.Raw], left_out: frozenset[str]) -> None:
    if len(fields) > MAX_FIELDS:
        raise _refusal("invalid_json", detail=f"over {MAX_FIELDS} fields")
    check([raw for name, raw in fields.items() if len(raw) > _HARMLESS_BYTES and name not in left_out], depth=2)


def _without_doubt(body: bytes, fields: dict[str, msgspec.Raw]) -> bytes:
    """Return a body in which each key is there once and is written without escapes; refuse one that has a key twice."""
    if body == _spaced(fields) or locate(body, fields) is not None:
        return body
    _refuse_duplicates(body)
    return _encode(fields)


def _refusal_of_all(error: Exception) -> CallerError:
    """Return what the caller is told of a body that is no JSON object."""
    if isinstance(error, msgspec.ValidationError):
        return _refusal("body_not_object")
    if isinstance(error, msgspec.DecodeError):
        return _refusal("invalid_json", detail=str(error))
    return _refusal("body_too_deep", limit=MAX_DEPTH)


def refusal_of(error: msgspec.ValidationError) -> CallerError:
    """Turn msgspec's refusal of a field into what the caller is told: the field's path and what it should be."""
    text = str(error)
    at = _PATH.search(text)
    path = at["path"] if at else ""
    if unknown := _UNKNOWN.search(text):
        field = unknown["field"][:MAX_SHOWN_CHARACTERS]
        path = f"{path}.{field}" if path else field
        return CallerError(Kind.INVALID_VALUE, "unknown_field", param=path, parameters={"field": path})
    if missing := _MISSING.search(text):
        path = f"{path}.{missing['field']}" if path else missing["field"]
        return CallerError(Kind.INVALID_VALUE, "missing_field", param=path, parameters={"field": path})
    if wrong := _WRONG_TYPE.search(text):
        expected = Phrase(f"type_{_JSON_TYPES.get(wrong['expected'], 'object')}")
        return CallerError(
            Kind.INVALID_VALUE, "wrong_type", param=path, parameters={"field": path, "expected": expected}
        )
    return CallerError(Kind.INVALID_VALUE, "invalid_field", param=path, parameters={"field": path})


def _refusal(reason: str, **parameters: str | int) -> CallerError:
    return CallerError(Kind.INVALID_JSON, reason, parameters=parameters)


def _too_deep(body: bytes, most: int) -> bool:
    """Tell whether valid JSON is nested more than `most` levels deep.

    What is left of it are brackets and the quotes around those in strings; a pair of quotes with nothing in between can
    go, whichever strings they belong to. Then each round takes the innermost brackets away.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = body.translate(_BRACKETS_ALIKE, _NEITHER_BRACKETS_NOR_QUOTES).replace(b'""', b"")
    if b'"' in brackets:
        brackets = _STRING_OF_BRACKETS.sub(b"", brackets)
    for _ in range(most):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _check_numbers(body: bytes) -> None:
    for match in _STRING_OR_NUMBER.finditer(body):
        text = match[1]
        if text is None:
            continue
        if len(text) > MAX_NUMBER_CHARACTERS:
            raise _refusal("body_number_out_of_range")
        whole = text.lstrip(b"-").isdigit()
        if (int(text) not in _INTEGERS) if whole else not math.isfinite(float(text)):
            raise _refusal("body_number_out_of_range")


def _spaced(fields: dict[str, msgspec.Raw]) -> bytes:
    return b"{%b}" % b", ".join([b'"%b": %b' % (field.encode(), raw) for field, raw in fields.items()])


def _refuse_duplicates(body: bytes) -> None:
    outermost: list[tuple[str, object]] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        outermost[:] = pairs

    json.loads(body, object_pairs_hook=note, parse_int=len, parse_float=len)
    seen: set[str] = set()
    for name, _ in outermost:
        if name in seen:
            raise _refusal("duplicate_field", field=name[:MAX_SHOWN_CHARACTERS])
        seen.add(name)
