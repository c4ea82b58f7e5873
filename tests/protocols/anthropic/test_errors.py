"""Errors in Anthropic's shape, written and read."""

from __future__ import annotations

import json

import pytest

from chatgate.protocols import openai_errors
from chatgate.protocols.anthropic import errors
from chatgate.vocabulary.errors import CallerError, Kind
from fakes import messages
from fakes.vendor_schemas import check


@pytest.mark.parametrize("kind", Kind)
def test_every_situation_has_a_status_and_a_type(kind: Kind) -> None:
    """The body is what the vendor's schema says, whatever happened."""
    body = json.loads(errors.encode_error(CallerError(kind, "x"), "Words.", "req_1"))
    assert (body["error"]["message"], body["request_id"]) == ("Words.", "req_1")
    assert 400 <= errors.status_of(kind) < 600
    if body["error"]["type"] != "request_too_large":  # The vendor documents it, and its schema has forgotten it.
        check("anthropic", "ErrorResponse", body)


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        (Kind.INVALID_KEY, 401, "authentication_error"),
        (Kind.MISSING_KEY, 401, "authentication_error"),
        (Kind.INSUFFICIENT_QUOTA, 402, "billing_error"),
        (Kind.PERMISSION_DENIED, 403, "permission_error"),
        (Kind.MODEL_NOT_FOUND, 404, "not_found_error"),
        (Kind.REQUEST_TOO_LARGE, 413, "request_too_large"),
        (Kind.RATE_LIMIT_EXCEEDED, 429, "rate_limit_error"),
        (Kind.INTERNAL_ERROR, 500, "api_error"),
        (Kind.UPSTREAM_ERROR, 502, "api_error"),
        (Kind.UPSTREAM_TIMEOUT, 504, "timeout_error"),
        (Kind.OVERLOADED, 529, "overloaded_error"),
    ],
)
def test_situations_have_the_vendors_words(kind: Kind, status: int, word: str) -> None:
    """Client libraries choose their exception, and whether to try again, by these."""
    assert errors.status_of(kind) == status
    assert json.loads(errors.encode_error(CallerError(kind, "x"), "", ""))["error"]["type"] == word


@pytest.mark.parametrize(
    ("status", "word", "text", "read_status", "code"),
    [
        (402, "billing_error", "Pay", 402, "insufficient_quota"),
        (400, "invalid_request_error", "Your credit balance is too low to access", 402, "insufficient_quota"),
        (400, "invalid_request_error", "You have reached your specified API usage limits.", 402, "insufficient_quota"),
        (400, "invalid_request_error", "prompt is too long: 1 > 0", 400, None),
        (429, "rate_limit_error", "Slower", 429, "rate_limit_exceeded"),
        (529, "overloaded_error", "Overloaded", 529, "overloaded"),
        (401, "authentication_error", "invalid x-api-key", 401, None),
    ],
)
def test_a_providers_error_is_read(status: int, word: str, text: str, read_status: int, code: str | None) -> None:
    """Its message survives, and its code is one that the gateway judges failures by."""
    found, body = errors.to_openai_error(status, json.dumps(messages.error(word, text)).encode())
    said = openai_errors.read_error(body)
    assert (found, said.message, said.code) == (read_status, text, code)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {"message": "x"}}'])
def test_what_is_no_anthropic_error_stays(body: bytes) -> None:
    """A proxy in between speaks for itself."""
    assert errors.to_openai_error(502, body) == (502, body)


def test_a_stream_is_ended_by_a_named_event() -> None:
    """Readers drop events without a name."""
    (event,) = messages.read(errors.encode_event(CallerError(Kind.OVERLOADED, "x"), "Words.", "req_1"))
    assert event["error"] == {"type": "overloaded_error", "message": "Words."}
