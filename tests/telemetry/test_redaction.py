"""Secrets do not leave: known ones in any form, others by their shape; ordinary words stay as they are."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.telemetry import Redaction
from chatgate.telemetry.redaction import MASK, MIN_SECRET_CHARACTERS

SECRET = "0d9f7c1e.a+b/c=d&e"  # A key with every character that the forms write differently.
NOBODY = Redaction([])


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"key={SECRET}, sorry",
        f"{SECRET}{SECRET}",
        quote(SECRET, safe=""),
        urlencode({"key": SECRET}),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_a_known_secret_is_taken_out_in_every_form(text: str) -> None:
    """As it is, as part of a URL, and in base64, whether it was configured or belongs to the call."""
    for cleaned in (Redaction(["other-secret", SECRET]).text(text), NOBODY.text(text, "other-secret", SECRET)):
        assert SECRET not in cleaned
        assert MASK in cleaned
        assert "0d9f7c1e" not in cleaned


@given(st.text(st.characters(codec="ascii"), min_size=8, max_size=20), st.binary(max_size=5), st.binary(max_size=5))
def test_a_secret_inside_of_base64_is_found(secret: str, before: bytes, after: bytes) -> None:
    """`user:secret` in base64 has other letters than the secret alone; what can be decoded of it is less than it."""
    encoded = base64.b64encode(before + secret.encode() + after).decode()
    cleaned = Redaction([secret]).known(encoded.encode()).decode()
    assert MASK in cleaned
    left, _, right = cleaned.partition(MASK)
    assert len(left) <= -(-len(before) * 4 // 3) + 1
    assert len(right) <= -(-(len(after) + 2) * 4 // 3) + 2


@given(st.text(min_size=MIN_SECRET_CHARACTERS), st.text(), st.text())
def test_a_log_line_never_holds_a_known_secret(secret: str, before: str, after: str) -> None:
    """Also where JSON wrote its characters in another way."""
    line = json.dumps({"message": before + secret + after})
    cleaned = Redaction([secret]).known(line.encode()).decode()
    assert json.dumps(secret)[1:-1] not in cleaned.replace(MASK, "\x00")


def test_the_longest_secret_goes_first() -> None:
    """A secret that begins like another leaves nothing behind."""
    cleaned = Redaction(["abcdef1", "abcdef1-and-more"]).text("<abcdef1-and-more> <abcdef1>")
    assert cleaned == f"<{MASK}> <{MASK}>"


@pytest.mark.parametrize("secret", ["", "a", "demo", "12345"])
def test_a_short_secret_would_match_ordinary_words(secret: str) -> None:
    """What is too short to be a key is not looked for."""
    assert Redaction([secret]).text("a demo of 12345 words", secret) == "a demo of 12345 words"


@pytest.mark.parametrize(
    "key",
    [
        "sk-test-abcdefgh",
        "sk-proj-ABC_def-123.456",
        "sk-ab********************wxyz",
        "gsk_0123456789abcdef",
        "xai-0123456789abcdef",
        "hf_0123456789abcdefXYZ",
        "nvapi-0123456789abcdef",
        "key-0123456789abcdef",
        "AIzaSyA0123456789-_abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "Bearer 0123456789abcdef.0123",
        "bearer abc123456",
    ],
)
@pytest.mark.parametrize("around", ["%s", "Incorrect API key provided: %s.", "(%s)", '{"k":"%s"}', "a=%s&b"])
def test_what_looks_like_a_key_is_taken_out(key: str, around: str) -> None:
    """Nobody told us of these keys, and still they do not go out."""
    cleaned = NOBODY.text(around % key)
    assert key not in cleaned
    assert MASK in cleaned
    for part in key.removeprefix("Bearer ").removeprefix("bearer ").split("."):
        assert part not in cleaned


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5:8080/v1?key=abc",
        "https://internal.invalid/path",
        "HTTPS://Internal.invalid",
        "wss://internal.invalid/x",
        "socks5h://user:password@proxy.invalid:1080",
        "http://[::1]:11434/api",
    ],
)
@pytest.mark.parametrize("around", ["%s", "Cannot reach %s", "(see %s)", 'at "%s"', "<%s>"])
def test_urls_are_taken_out(url: str, around: str) -> None:
    """Where an upstream lives is nobody's business, and credentials may stand in its address."""
    cleaned = NOBODY.text(around % url)
    for part in ("10.0.0.5", "internal", "Internal", "password", "proxy", "11434", "key="):
        assert part not in cleaned
    assert cleaned.startswith(around.partition("%s")[0])


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided.",
        "You didn't provide an API key. You need to provide your API key in an Authorization header.",
        "api version 2024-10-21 is not supported; use the key authentication",
        "The Bearer token is missing; bearer authentication is required",
        "Unknown parameter: 'api_version'. Did you mean 'key-value-store' or 'tok_limits'?",
        "The model `meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8` does not exist",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130512 tokens.",
        "Rate limit reached for gpt-5-mini in organization org-abc on tokens per min (TPM): Limit 200000, Used 199000.",
        "task-management, risk-averse, disk-usage, ask-me-anything-1234567",
        "Request req_0123456789abcdef failed at 12:30:45 (status 502)",
        "Überprüfe den Schlüssel. 请检查密钥。 Проверьте ключ.",
        "messages[0].content: expected a string, got 5",
        "hf_hub_download is not available",
        "",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    """A provider's explanation is worth nothing when its words are masked."""
    assert NOBODY.text(text) == text
    assert Redaction([SECRET]).text(text, "sk-test-0123456789") == text


BEGINNINGS = ["sk-", "sk-a.", "key-", "key-a ", "https://", "http://[", "eyJ", "eyJaaaaaaaa.", "eyJaaaaaaaa-", "AIza"]


@pytest.mark.parametrize("beginning", [*BEGINNINGS, "bearer ", "bearer" + " " * 99, "Bearer x."])
def test_texts_full_of_beginnings_are_read_in_one_go(beginning: str) -> None:
    """A megabyte of what could become a key comes back; patterns that look ahead again and again would not end."""
    NOBODY.text(beginning * (1_000_000 // len(beginning)))
