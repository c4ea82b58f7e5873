"""Objects that carry secrets do not show them, wherever they are printed."""

from __future__ import annotations

import pytest

from chatgate.vocabulary.chat import Asked, ChatCall
from chatgate.vocabulary.exchange import Envelope, OutboundRequest
from chatgate.vocabulary.identity import NO_KEY, NO_KEY_WORDS, Caller, Key, KeyKind, read_key
from chatgate.vocabulary.upstreams import Origin, Target, Timeouts, Upstream

SECRET = "sk-test-0123456789"
ORIGIN = Origin("https", "up.invalid", 443, proxy=f"http://user:{SECRET}@proxy.invalid")
UPSTREAM = Upstream("up", "openai", ORIGIN, "/v1", api_keys=(SECRET,))


@pytest.mark.parametrize(
    "holder",
    [
        read_key(SECRET),
        Caller("192.0.2.7", 1, read_key(SECRET)),
        ORIGIN,
        UPSTREAM,
        Target(UPSTREAM),
        Asked(ChatCall("gpt-x", stream=False), SECRET),
        Envelope("req_1", "POST", "/v1", f"key={SECRET}", {b"authorization": SECRET.encode()}, "192.0.2.7", 0.0),
        OutboundRequest(ORIGIN, f"Authorization: Bearer {SECRET}".encode(), SECRET.encode(), Timeouts()),
    ],
)
def test_secrets_are_not_printed(holder: object) -> None:
    """Neither in a representation nor in a text."""
    for text in (repr(holder), str(holder), f"{holder}", f"{holder!r}", repr([holder])):
        assert SECRET not in text


@pytest.mark.parametrize("word", [*NO_KEY_WORDS, *(word.upper() for word in NO_KEY_WORDS), "Empty"])
def test_words_for_no_key_are_none(word: str) -> None:
    """In any case."""
    assert read_key(word) is NO_KEY


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("sk-cg-", KeyKind.GATEWAY),
        ("sk-cg-x", KeyKind.GATEWAY),
        ("SK-CG-x", KeyKind.GATEWAY),
        ("sk-x", KeyKind.PROVIDER),
        ("nonempty", KeyKind.PROVIDER),
    ],
)
def test_the_prefix_tells_whose_key_it_is(secret: str, kind: KeyKind) -> None:
    """Keys of this gateway begin alike; everything else is a provider's."""
    assert read_key(secret) == Key(kind, secret)
