"""Keys of the gateway are made, read and kept as they should be."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.admission.gateway_keys import GatewayKey, digest, display, make, parse
from chatgate.admission.keys import check_key
from chatgate.vocabulary.identity import KeyKind

KEY = make(lambda number: bytes(range(number)))
PEPPER = b"p" * 32

raw_bytes = st.binary(min_size=32, max_size=32)


def test_a_key_looks_as_it_is_described() -> None:
    """Its parts, their lengths, and a known one, so that those given out stay readable for ever."""
    assert KEY.text == "sk-cg-001IYT0XLWR-003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf10JJnc"
    assert len(KEY.text) == 67
    assert KEY.text.isascii()
    assert check_key(KEY.text).kind is KeyKind.GATEWAY
    assert KEY.display == display(KEY.id) == f"sk-cg-{KEY.id}-…"


@given(raw_bytes, raw_bytes)
def test_a_key_is_read_as_it_was_made(first: bytes, second: bytes) -> None:
    """Whatever the random bytes, the highest and the lowest included."""
    parts = iter((first[:8], second))
    key = make(lambda _: next(parts))
    assert parse(key.text) == key
    assert len(key.text) == 67


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_the_extremes_fit(byte: bytes) -> None:
    """The lengths hold for the smallest and the largest numbers."""
    key = make(lambda number: byte * number)
    assert parse(key.text) == key


def test_every_random_bit_counts() -> None:
    """Of 320 bits each makes another key: none is thrown away on the way to letters and digits."""

    def bit(at: int) -> str:
        parts = iter(((1 << at) >> 256, (1 << at) & ((1 << 256) - 1)))
        return make(lambda number: next(parts).to_bytes(number)).text

    assert len({bit(at) for at in range(320)}) == 320


def test_what_is_asked_of_chance() -> None:
    """64 bits for the id and 256 for the secret; a key that gets a new secret keeps its id."""
    asked: list[int] = []

    def random_bytes(number: int) -> bytes:
        asked.append(number)
        return secrets.token_bytes(number)

    key = make(random_bytes)
    assert asked == [8, 32]
    rotated = make(random_bytes, key.id)
    assert asked == [8, 32, 32]
    assert rotated.id == key.id
    assert rotated.text != key.text


@given(st.integers(6, 66), st.sampled_from("0123456789ABCXYZabcxyz-_."))
def test_a_slip_of_one_character_is_found(at: int, wrong: str) -> None:
    """Wherever it is."""
    changed = KEY.text[:at] + wrong + KEY.text[at + 1 :]
    assert (parse(changed) is None) is (changed != KEY.text)


@given(st.integers(6, 65))
def test_two_that_changed_places_are_found(at: int) -> None:
    """As when a key is typed from paper."""
    changed = KEY.text[:at] + KEY.text[at + 1] + KEY.text[at] + KEY.text[at + 2 :]
    assert (parse(changed) is None) is (changed != KEY.text)


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "sk-cg-",
        "sk-test-0123",
        KEY.text[:-1],
        KEY.text + "0",
        KEY.text + "\n",
        " " + KEY.text,
        KEY.text.upper(),
        KEY.text.lower(),
        KEY.text.replace("sk-cg-", "SK-CG-"),
        KEY.text.replace("-", "_"),
        KEY.text.replace("0", "\u0660"),
        KEY.text[:30] + "\0" + KEY.text[31:],
        KEY.text[:30] + "\ud800" + KEY.text[31:],
        KEY.text * 1000,
    ],
)
def test_what_is_no_key_of_ours_is_none(shown: str) -> None:
    """Other cases, other lengths, other alphabets."""
    assert parse(shown) is None


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(shown: str) -> None:
    """Whatever a caller sends."""
    assert parse(shown) is None
    assert parse(f"sk-cg-{shown}") is None


def test_a_digest_is_what_it_says() -> None:
    """HMAC-SHA-256 of the whole key under the pepper, in hexadecimal; another pepper or key gives another."""
    assert digest(PEPPER, KEY) == hmac.new(PEPPER, KEY.text.encode(), hashlib.sha256).hexdigest()
    assert len(digest(PEPPER, KEY)) == 64
    assert digest(b"q" * 32, KEY) != digest(PEPPER, KEY)
    assert digest(PEPPER, make(secrets.token_bytes, KEY.id)) != digest(PEPPER, KEY)


def test_a_key_hides_its_secret() -> None:
    """Wherever it ends up."""
    secret = KEY.text.split("-")[3]
    for shown in (repr(KEY), str(KEY), f"{KEY}", KEY.display, repr([KEY]), repr({"key": KEY})):
        assert secret not in shown
    assert isinstance(KEY, GatewayKey)


def test_ids_are_different() -> None:
    """As many as anybody makes."""
    numbers = count()
    assert len({make(lambda size: next(numbers).to_bytes(size)).id for _ in range(2000)}) == 2000
