"""A JSON object is taken exactly when no two parsers could disagree about it, and is changed only where it is asked."""

from __future__ import annotations

import json
import math
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.protocols import document
from chatgate.vocabulary.errors import CallerError, Kind

# --- What is taken ----------------------------------------------------------------------------------------------------


class _NotTakenError(ValueError):
    """The reference refuses."""


def _refuse(_: str) -> Any:
    raise _NotTakenError


def _integer(text: str) -> int:
    if len(text) > document.MAX_NUMBER_CHARACTERS or not -(2**63) <= int(text) < 2**63:
        raise _NotTakenError
    return int(text)


def _float(text: str) -> float:
    if len(text) > document.MAX_NUMBER_CHARACTERS or not math.isfinite(float(text)):
        raise _NotTakenError
    return float(text)


def _depth(value: Any) -> int:
    if isinstance(value, _Pairs):
        return 1 + max((_depth(child) for _, child in value), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


class _Pairs(tuple[tuple[str, Any], ...]):
    """An object's members, as they stand there."""

    __slots__ = ()


def reference(body: bytes) -> dict[str, Any] | None:
    """Read an object with the standard library, made strict; None when it must be refused."""
    try:
        text = body.decode()
        found = json.loads(
            text, parse_constant=_refuse, parse_int=_integer, parse_float=_float, object_pairs_hook=_Pairs
        )
        json.dumps(found, ensure_ascii=False).encode()  # Raises for a lone surrogate.
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, _Pairs) or _depth(found) > document.MAX_DEPTH:
        return None
    if len({name for name, _ in found}) != len(found):
        return None
    return {name: _plain(value) for name, value in found}


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(child) for name, child in value}
    return [_plain(child) for child in value] if isinstance(value, list) else value


def read(body: bytes) -> dict[str, Any] | None:
    """Read an object with the module under test; None when it refuses."""
    try:
        found = document.parse(body)
    except CallerError as error:
        if error.kind is not Kind.INVALID_JSON:
            raise
        return None
    return {name: found.value(name) for name in found.fields}


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON: 1 and 1.0 and true differ."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# Pieces that are likely to make a parser stumble, put together in any order.
_PIECES = st.sampled_from(
    [
        *(b'{}[]:,"\\ \n\t' + b"-+.eE019").decode(),
        *('"a"', '"model"', '"\\u0061"', "true", "false", "null", "NaN", "Infinity", "1e400", "1E+308", "-0", "\x00"),
        *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "0.1e-400"),
        *('"\\ud800"', '"\\ud83d\\ude00"', '"\\udc00\\ud800"', '"é"', '"\\\\"', '"\\""', "\ufeff", "\u2028", '"[{"'),
    ]
)
_SOUP = st.lists(_PIECES, max_size=12).map("".join)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
_NAMES = st.text(string.ascii_letters + '"\\é\n/', max_size=4)
_SPACES = st.sampled_from(["", " ", "\n\t", "  "])


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[Any] = _VALUES) -> bytes:
    """Write an object as any of many serialisers could: spaces, escapes, repeated names."""
    members = []
    for name, value in draw(st.lists(st.tuples(_NAMES, values), max_size=5)):
        ascii_only = draw(st.booleans())
        key = json.dumps(name, ensure_ascii=ascii_only)
        written = json.dumps(value, ensure_ascii=ascii_only)
        members.append(f"{draw(_SPACES)}{key}{draw(_SPACES)}:{draw(_SPACES)}{written}{draw(_SPACES)}")
    return f"{draw(_SPACES)}{{{','.join(members)}}}{draw(_SPACES)}".encode("utf-8", "surrogatepass")


@given(objects())
def test_written_objects_are_read_as_the_reference_reads_them(body: bytes) -> None:
    """An object is taken exactly when the strict reference takes it, and means the same."""
    assert _same(read(body), reference(body))


@given(_SOUP, _SOUP)
@example("", "")
@example('"a":1,"a":1', "")
@example('"a":12,"a":1', "")
@example('"a":1,"\\u0061":2', "")
@example('"a": 1e400', "")
@example('"a": 1E0400', "")
@example('"a":"\\ud800"', "")
def test_soup_is_read_as_the_reference_reads_it(inside: str, after: str) -> None:
    """Anything between brackets, broken or not, is taken exactly when the strict reference takes it."""
    for body in (f"{{{inside}}}{after}", f'{{"a":{inside}}}{after}', f'{{"a":[{inside}],"b":1}}{after}', inside):
        assert _same(read(body.encode()), reference(body.encode())), body


@given(st.binary(max_size=30), st.sampled_from([b"%b", b'{"a":"%b"}', b'{"%b":1}', b'{"a":{"%b":[]}}']))
@example(b"\xff", b'{"a":"%b"}')
@example(b"\xc0\xaf", b'{"a":"%b"}')
@example(b"\xed\xa0\x80", b'{"a":"%b"}')
@example(b"\xe2\x82", b'{"a":"%b"}')
def test_bytes_are_read_as_the_reference_reads_them(inside: bytes, around: bytes) -> None:
    """Bytes that are no UTF-8, or no JSON, are refused wherever they stand."""
    body = around % inside
    assert _same(read(body), reference(body))


@pytest.mark.parametrize("depth", [1, 2, 63, 64, 65, 66, 300, 5000, 200_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_objects_may_be_nested_to_a_limit(depth: int, opening: bytes) -> None:
    """Sixty-four levels are taken and sixty-five are not, whatever they are made of."""
    closing = opening.replace(b'"a":', b"")[::-1].translate(bytes.maketrans(b"[{", b"]}"))
    levels = opening.count(b"[") + opening.count(b"{")
    body = b'{"x":' + opening * depth + b"1" + closing * depth + b"}"
    assert (read(body) is not None) is (depth * levels + 1 <= document.MAX_DEPTH)


@pytest.mark.parametrize(
    "text",
    [b"[" * 99, b"]{" * 99, b'\\"[' * 99, b"\\\\" * 5 + b"[[" * 99, b'\\\\\\"' + b"{" * 99, b'\\"' * 99, b"[]" * 99],
    ids=lambda text: text[:6].decode(),
)
def test_brackets_in_strings_are_no_nesting(text: bytes) -> None:
    """A string may be full of brackets, quotes and backslashes."""
    body = b'{"x":["' + text + b'","","' + text + b'"],"y":"]","z":[' + b"[]," * 99 + b"{}]}"
    found = read(body)
    assert found is not None
    assert _same(found, json.loads(body))


@given(st.lists(st.sampled_from(['"', "\\\\", '\\"', "[", "]", "{", "x", "\\n"]), max_size=12), st.integers(60, 66))
def test_depth_is_measured_beside_any_string(pieces: list[str], depth: int) -> None:
    """What stands in a string changes nothing about the depth that is found."""
    text = "".join(piece for piece in pieces if piece != '"')
    body = f'{{"s":"{text}","k{text}":["{text}",""],"d":{"[" * depth}"{text}"{"]" * depth}}}'.encode()
    assert (read(body) is not None) is (depth < document.MAX_DEPTH)


@pytest.mark.parametrize(
    ("number", "is_taken"),
    [
        ("9223372036854775807", True),
        ("9223372036854775808", False),
        ("-9223372036854775808", True),
        ("-9223372036854775809", False),
        ("9" * 400, False),
        ("9" * 5000, False),
        ("1e308", True),
        ("1e309", False),
        ("-1e309", False),
        ("1e+999", False),
        ("1e-999", True),
        ("123456789e301", False),
        ("0." + "1" * 300, True),
        ("0." + "1" * 399, False),
        ("-0", True),
        ("0123", False),
        ("+1", False),
        (".5", False),
        ("1.", False),
        ("0x10", False),
        ("NaN", False),
        ("-Infinity", False),
    ],
)
@pytest.mark.parametrize("around", ['{"a":%s}', '{"a":[%s]}', '{"a":{"b":[0, %s ]},"c":1}'])
def test_numbers_are_taken_when_they_can_be_held(number: str, *, is_taken: bool, around: str) -> None:
    """Integers need 64 bits, others a double; nothing is rounded in silence to something else."""
    body = (around % number).encode()
    assert (read(body) is not None) is is_taken
    assert (reference(body) is not None) is is_taken


def test_digits_in_strings_are_no_numbers() -> None:
    """Long rows of digits and exponents may stand in any text."""
    body = b'{"9e9999":"1e9999","a":["' + b"9" * 500 + b'","\\"1e999\\""]}'
    assert read(body) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "invalid_json"),
        (b"null", "body_not_object"),
        (b"[]", "body_not_object"),
        (b'"x"', "body_not_object"),
        (b"0", "body_not_object"),
        (b"true", "body_not_object"),
        (b"{'a': 1}", "invalid_json"),
        (b'{"a":1,}', "invalid_json"),
        (b'{"a":1} x', "invalid_json"),
        (b'{"a":1 /* why */}', "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        ('{"a":1}'.encode("utf-16"), "body_not_utf8"),
        (b'{"a":"\xff"}', "body_not_utf8"),
        (b'{"a":1,"a":2}', "duplicate_field"),
        (b'{"a":1e999}', "body_number_out_of_range"),
        (b'{"a":' + b"[" * 90 + b"]" * 90 + b"}", "body_too_deep"),
        (b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}", "body_too_deep"),
    ],
)
def test_a_refusal_says_what_is_wrong(body: bytes, reason: str) -> None:
    """Each refusal has the message that fits."""
    with pytest.raises(CallerError) as caught:
        document.parse(body)
    assert caught.value.kind is Kind.INVALID_JSON
    assert caught.value.reason == reason


def test_nested_duplicates_are_passed_on() -> None:
    """Only the top level decides anything here, so only there a name must be unique."""
    assert read(b'{"a":{"b":1,"b":2}}') == {"a": {"b": 2}}


# --- How it is changed ------------------------------------------------------------------------------------------------


_CHANGES = st.dictionaries(st.sampled_from(["model", "stream_options", "a", "b", "é"]), _VALUES, max_size=3)


@given(objects(), _CHANGES)
def test_splicing_changes_exactly_the_named_fields(body: bytes, changes: dict[str, Any]) -> None:
    """The changed object reads as the old one with the new values, and means nothing else."""
    original = reference(body)
    if original is None:
        return
    written = {name: json.dumps(value).encode() for name, value in changes.items()}
    spliced = document.parse(body).splice(written)
    assert _same(json.loads(spliced), {**original, **changes})


@given(st.lists(st.tuples(_SPACES, _SPACES, _SPACES), min_size=1, max_size=4), _SPACES, st.data())
def test_splicing_leaves_every_other_byte(spaces: list[tuple[str, str, str]], end: str, data: st.DataObject) -> None:
    """Around a changed value all bytes stay, down to the spaces and the order."""
    names = [f"n{index}" for index in range(len(spaces))]
    changed = data.draw(st.sets(st.sampled_from(names)))

    def write(values: dict[str, str]) -> bytes:
        members = (
            f'{first}"{name}"{second}:{third}{values.get(name, "[1, 2.50, 1e2]")}'
            for name, (first, second, third) in zip(names, spaces, strict=True)
        )
        return f"{end}{{{','.join(members)}{end}}}{end}".encode()

    spliced = document.parse(write({})).splice(dict.fromkeys(changed, b'"new"'))
    assert spliced == write(dict.fromkeys(changed, '"new"'))


@pytest.mark.parametrize(
    ("body", "spliced"),
    [
        (b"{}", b'{"model":"m"}'),
        (b" { } ", b' { "model":"m"} '),
        (b'{"a":1}', b'{"a":1,"model":"m"}'),
        (b'{"a":"}"}\n', b'{"a":"}","model":"m"}\n'),
        (b'{"model" : null , "a":1}', b'{"model" : "m" , "a":1}'),
    ],
)
def test_a_missing_field_is_added_at_the_end(body: bytes, spliced: bytes) -> None:
    """What is not there comes last; nothing before it moves."""
    assert document.parse(body).splice({"model": b'"m"'}) == spliced


@pytest.mark.parametrize("body", [b'{"a":1}', b'{"a":"}"}\n', b' {"a" : {"b":2} }  ', b'{"\\u0061":"}","b":1} '])
def test_members_that_are_surely_new_are_added_without_a_search(body: bytes) -> None:
    """They come to stand where a missing field would."""
    checked = document.parse(body)
    assert checked.extended(b'"model":"m"') == checked.splice({"model": b'"m"'})


def test_no_changes_change_nothing() -> None:
    """An object with nothing to change stays byte for byte."""
    body = b' {"a" : 1.50,\n"b":"\\u00e9"}  '
    assert document.parse(body).splice({}) == body


@pytest.mark.parametrize(
    "body",
    [
        b"{%b}" % b",".join(b'"f%d":0' % number for number in range(document.MAX_FIELDS + 1)),
        b'{"a":[%b]}' % b",".join([b"[]"] * document.MAX_NESTED),
    ],
)
def test_what_would_take_long_to_check_is_refused(body: bytes) -> None:
    """More fields or more nesting than any protocol needs is refused before it is looked at closely."""
    with pytest.raises(CallerError) as refused:
        document.parse(body)
    assert refused.value.reason == "invalid_json"
