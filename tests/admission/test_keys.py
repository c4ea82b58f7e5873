"""A key is found in every place where clients put it, opens what it should, and is never repeated."""

from __future__ import annotations

import itertools
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.admission.keys import MAX_KEY_CHARACTERS, Door, check_key, key_of_head
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.identity import NO_KEY, NO_KEY_WORDS, Key, KeyKind

PLACES = ("bearer", "x-api-key", "api-key", "x-goog-api-key", "query")
"""Where a key may be, the place that counts most first."""


def shown(places: dict[str, str]) -> Key:
    """Return the key of a head that shows keys in some places."""
    headers = {}
    query = "alt=sse"
    for place, secret in places.items():
        if place == "query":
            query = f"alt=sse&key={quote(secret, safe='')}&x=y"
        elif place == "bearer":
            headers[b"authorization"] = b"Bearer " + secret.encode("latin-1")
        else:
            headers[place.encode()] = secret.encode("latin-1")
    return key_of_head(headers, query)


def provider(secret: str) -> Key:
    """Return a provider's key."""
    return Key(KeyKind.PROVIDER, secret)


@pytest.mark.parametrize("place", PLACES)
def test_a_key_is_found_in_every_place(place: str) -> None:
    """Every protocol's clients have their own header."""
    assert shown({place: "sk-test-0123"}) == provider("sk-test-0123")
    assert shown({place: "sk-cg-0123"}) == Key(KeyKind.GATEWAY, "sk-cg-0123")
    assert shown({place: " sk-test-0123 \t"}) == provider("sk-test-0123")


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(PLACES, 2)))
def test_of_two_keys_the_one_in_the_better_place_counts(first: str, second: str) -> None:
    """Bearer goes first and the query last; a word for no key gives way."""
    assert shown({first: "sk-test-1", second: "sk-test-2"}) == provider("sk-test-1")
    assert shown({second: "sk-test-2", first: "sk-test-1"}) == provider("sk-test-1")
    assert shown({first: "none", second: "sk-test-2"}) == provider("sk-test-2")


@pytest.mark.parametrize("word", sorted({*NO_KEY_WORDS, "NONE", "Empty", "ChatGate", " - "}))
@pytest.mark.parametrize("place", PLACES)
def test_some_words_are_no_key(place: str, word: str) -> None:
    """SDKs insist on a key; what people then write means none, in any case."""
    assert shown({place: word}) == NO_KEY


@pytest.mark.parametrize(
    "authorization",
    [b"", b"Bearer", b"Bearer ", b"bearer  ", b"Basic dXNlcjpwYXNz", b"sk-test-0123", b"Token sk-test-0123"],
)
def test_other_schemes_show_no_key(authorization: bytes) -> None:
    """Only Bearer is understood; a password for a proxy in front is none of our business."""
    assert key_of_head({b"authorization": authorization}, "") == NO_KEY
    assert key_of_head({b"authorization": authorization, b"api-key": b"sk-test-1"}, "") == provider("sk-test-1")


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_the_scheme_is_read_in_any_case(scheme: bytes) -> None:
    """RFC 9110 section 11.1: the name of a scheme is case-insensitive."""
    assert key_of_head({b"authorization": scheme + b" sk-test-0123"}, "") == provider("sk-test-0123")


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("", NO_KEY),
        ("key", NO_KEY),
        ("key=", NO_KEY),
        ("monkey=sk-test-1", NO_KEY),
        ("Key=sk-test-1", NO_KEY),
        ("a=key=sk-test-1", NO_KEY),
        ("key=sk-test-1", provider("sk-test-1")),
        ("a=b&key=sk-test-1&key=sk-test-2", provider("sk-test-1")),
        ("key=sk%2Dtest%2D1", provider("sk-test-1")),
        ("key=a+b", provider("a+b")),
        ("key=a=b", provider("a=b")),
    ],
)
def test_the_query_is_read_as_clients_write_it(query: str, key: Key) -> None:
    """Only a parameter called exactly `key` counts, the first of them, percent-decoded."""
    assert key_of_head({}, query) == key


MALFORMED = [
    "sk-test 0123",
    "sk-test\r\nx-evil: 1",
    "sk-test\x00",
    "sk-test\x7f",
    "sk-tést",
    "sk\u00a0test",
    "sk-test-1, sk-test-2",
    "x" * (MAX_KEY_CHARACTERS + 1),
    "x" * 65536,
]


@pytest.mark.parametrize("secret", MALFORMED, ids=lambda secret: secret[:12])
@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_a_key_is_refused_unread(place: str, secret: str) -> None:
    """Blanks, control characters, other alphabets and great lengths never go further, and are not repeated."""
    with pytest.raises(CallerError) as caught:
        shown({place: secret})
    error = caught.value
    assert (error.kind, error.reason) == (Kind.INVALID_KEY, "malformed_key")
    assert "test" not in repr((error.args, error.parameters, error.param, error.provider_message))


@pytest.mark.parametrize("secret", ["№", "ключ", "“sk-test”", "\u2028", "\udcff"])
def test_a_key_from_a_body_may_be_any_text(secret: str) -> None:
    """JSON can say what no header can."""
    with pytest.raises(CallerError) as caught:
        check_key(secret)
    assert caught.value.reason == "malformed_key"


def test_a_key_may_be_long() -> None:
    """Up to the bound it is taken."""
    assert check_key("x" * MAX_KEY_CHARACTERS).kind is KeyKind.PROVIDER


@given(st.binary(max_size=40), st.sampled_from([b"", b"Bearer ", b"Basic "]), st.text(max_size=20))
@example(b"\xff", b"Bearer ", "key=%ff")
@example(b"", b"", "key=%")
def test_no_head_breaks_the_reader(secret: bytes, scheme: bytes, query: str) -> None:
    """Any bytes are a key of printable ASCII, no key, or refused."""
    for headers in ({b"authorization": scheme + secret}, {b"x-api-key": secret}, {}):
        try:
            key = key_of_head(headers, f"key={query}")
        except CallerError:
            continue
        assert key.secret.isascii()
        assert not key.secret or key.secret.isprintable()
        assert bool(key.secret) is (key.kind is not KeyKind.NONE)


# --- The door ---------------------------------------------------------------------------------------------------------


def test_an_open_door_lets_everybody_in_who_shows_no_key_of_ours() -> None:
    """Without a key or with a provider's, whose worth only the provider knows."""
    Door(anonymous=True).check(NO_KEY)
    Door(anonymous=True).check(provider("sk-test-0123"))


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize(
    ("key", "kind", "reason"),
    [
        (NO_KEY, Kind.MISSING_KEY, "missing_key"),
        (provider("sk-test-0123"), Kind.INVALID_KEY, "provider_key_not_accepted"),
    ],
)
def test_a_closed_door_wants_a_key_of_ours(key: Key, kind: Kind, reason: str, *, anonymous: bool) -> None:
    """Nobody comes in without one; no refusal repeats what was shown."""
    if anonymous:
        return
    with pytest.raises(CallerError) as caught:
        Door(anonymous=anonymous).check(key)
    assert (caught.value.kind, caught.value.reason) == (kind, reason)
    assert "0123" not in repr((caught.value.args, caught.value.parameters))
