"""Errors in Anthropic's shape: written for callers, and read from upstreams as OpenAI's.

Source: https://platform.claude.com/docs/en/api/errors (read 2026-11-23).
"""

from __future__ import annotations

import re

import msgspec

from chatgate.vocabulary.errors import GateError, Kind

_WORDS: dict[Kind, tuple[int, str]] = {
    Kind.INVALID_JSON: (400, "invalid_request_error"),
    Kind.INVALID_VALUE: (400, "invalid_request_error"),
    Kind.MISSING_KEY: (401, "authentication_error"),
    Kind.INVALID_KEY: (401, "authentication_error"),
    Kind.INSUFFICIENT_QUOTA: (402, "billing_error"),
    Kind.PERMISSION_DENIED: (403, "permission_error"),
    Kind.MODEL_NOT_FOUND: (404, "not_found_error"),
    Kind.NOT_FOUND: (404, "not_found_error"),
    Kind.METHOD_NOT_ALLOWED: (405, "invalid_request_error"),
    Kind.REQUEST_TIMEOUT: (408, "timeout_error"),
    Kind.REQUEST_TOO_LARGE: (413, "request_too_large"),
    Kind.UNSUPPORTED_MEDIA_TYPE: (415, "invalid_request_error"),
    Kind.RATE_LIMIT_EXCEEDED: (429, "rate_limit_error"),
    Kind.INTERNAL_ERROR: (500, "api_error"),
    Kind.UPSTREAM_ERROR: (502, "api_error"),
    Kind.UPSTREAM_TIMEOUT: (504, "timeout_error"),
    Kind.OVERLOADED: (529, "overloaded_error"),
}

_CODES = {
    "billing_error": "insufficient_quota",
    "rate_limit_error": "rate_limit_exceeded",
    "overloaded_error": "overloaded",
    "request_too_large": "request_too_large",
}
"""Codes by which those who read OpenAI's errors know what to do next."""

_SPENT = re.compile(r"credit balance is too low|spend(ing)? limit|usage limits?\b", re.IGNORECASE)
"""How the vendor says with status 400 that there is no money left."""

_PAYMENT_REQUIRED = 402
_BAD_REQUEST = 400


def status_of(kind: Kind) -> int:
    """Return the HTTP status for a situation on this surface."""
    return _WORDS[kind][0]


def encode_error(error: GateError, message: str, request_id: str) -> bytes:
    """Write an error's body; `message` is its text in the caller's language."""
    inner = {"type": _WORDS[error.kind][1], "message": message}
    return msgspec.json.encode({"type": "error", "error": inner, "request_id": request_id})


def encode_event(error: GateError, message: str, request_id: str) -> bytes:
    """Write the event that ends a stream which broke."""
    return b"event: error\ndata: %b\n\n" % encode_error(error, message, request_id)


def to_openai_error(status: int, body: bytes) -> tuple[int, bytes]:
    """Return the status and the body that an OpenAI-compatible server would have refused with.

    What is no error in Anthropic's shape stays as it is.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return status, body
    inner = found.get("error") if isinstance(found, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("type"), str):
        return status, body
    kind, message = inner["type"], inner.get("message")
    if status == _BAD_REQUEST and isinstance(message, str) and _SPENT.search(message):
        status, kind = _PAYMENT_REQUIRED, "billing_error"
    told = {"message": message, "type": kind, "param": None, "code": _CODES.get(kind)}
    return status, msgspec.json.encode({"error": told})
