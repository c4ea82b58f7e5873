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

import msgspec

from chatgate.vocabulary.chat import Document
from chatgate.vocabulary.errors import CallerError, Kind, Phrase

MAX_DEPTH = 64
"""How deep objects and arrays may be nested, the outermost counting as one."""

MAX_NUMBER_CHARACTERS = 400
"""A longer number has no honest use, and converting it would cost time."""

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_MEMBER = re.compile(rb'\s*([{,])\s*"([^"\\]*)"\s*:\s*')
_STRING_OF_BRACKETS = re.compile(rb'"[^"]*"')
_DIGITS_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_EXTREME_NUMBERS = (b"0e000", b"0e+000", b"0" * 19)
_STRING_OR_NUMBER = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(-?\d[\d.eE+-]{3,}+)')
_BRACKETS_ALIKE = bytes.maketrans(b"{}", b"[]")
_NEITHER_BRACKETS_NOR_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))
_INTEGERS = range(-(2**63), 2**63)
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")
_WRONG_TYPE = re.compile(r"Expected `(?P<expected>\w+)[^`]*`, got ")
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`")
_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "array": "array"}


def parse(body: bytes) -> Document:
    """Check and open a JSON object.

    Raises `CallerError` of kind `INVALID_JSON`.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise _refusal("body_not_utf8") from None
    try:
        fields = _decode_fields(body)
    except msgspec.ValidationError:
        raise _refusal("body_not_object") from None
    except msgspec.DecodeError as error:
        raise _refusal("invalid_json", detail=str(error)) from None
    except RecursionError:
        raise _refusal("body_too_deep", limit=MAX_DEPTH) from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _too_deep(body):
        raise _refusal("body_too_deep", limit=MAX_DEPTH)
    digits = body.translate(_DIGITS_ALIKE)
    if any(shape in digits for shape in _EXTREME_NUMBERS):
        _check_numbers(body)
    spans = _locate(body, fields)
    if spans is None:
        body, spans = _rebuild(body, fields)
    return Document(body, spans)


def refusal_of(error: msgspec.ValidationError) -> CallerError:
    """Turn msgspec's refusal of a field into what the caller is told: the field's path and what it should be."""
    text = str(error)
    at = _PATH.search(text)
    path = at["path"] if at else ""
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


def _too_deep(body: bytes) -> bool:
    """Tell whether valid JSON is nested too deep.

    What is left of it are brackets and the quotes around those in strings; a pair of quotes with nothing in between can
    go, whichever strings they belong to. Then each round takes the innermost brackets away.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = body.translate(_BRACKETS_ALIKE, _NEITHER_BRACKETS_NOR_QUOTES).replace(b'""', b"")
    if b'"' in brackets:
        brackets = _STRING_OF_BRACKETS.sub(b"", brackets)
    for _ in range(MAX_DEPTH):
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


def _locate(body: bytes, fields: dict[str, msgspec.Raw]) -> dict[str, tuple[int, int]] | None:
    """Find each value's offsets by reading the object along its decoded fields.

    None when the text is not exactly these fields in this order: a key is there twice, or is written with escapes.
    """
    spans: dict[str, tuple[int, int]] = {}
    at = 0
    before = b"{"
    for field, raw in fields.items():
        member = _MEMBER.match(body, at)
        value = bytes(raw)
        if member is None or member[1] != before or member[2] != field.encode():
            return None
        start = member.end()
        if not body.startswith(value, start):
            return None
        at = start + len(value)
        spans[field] = (start, at)
        before = b","
    return spans if not spans or body[at:].strip() == b"}" else None


def _rebuild(body: bytes, fields: dict[str, msgspec.Raw]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Refuse duplicate keys; else write the object anew with plain keys, so that offsets are known."""
    outermost: list[tuple[str, object]] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        outermost[:] = pairs

    json.loads(body, object_pairs_hook=note, parse_int=len, parse_float=len)
    seen: set[str] = set()
    for name, _ in outermost:
        if name in seen:
            raise _refusal("duplicate_field", field=name[:64])
        seen.add(name)
    pieces = [b"{"]
    spans: dict[str, tuple[int, int]] = {}
    at = 1
    for field, raw in fields.items():
        member = (b"," if spans else b"") + msgspec.json.encode(field) + b":"
        value = bytes(raw)
        spans[field] = (at + len(member), at + len(member) + len(value))
        at += len(member) + len(value)
        pieces += (member, value)
    return b"".join([*pieces, b"}"]), spans
