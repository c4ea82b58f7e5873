"""Errors in OpenAI's shape: read from providers, written for callers.

Source: https://platform.openai.com/docs/guides/error-codes (read 2026-11-23).
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from chatgate.vocabulary.errors import GateError, Kind

MAX_WAIT_SECONDS = 31 * 86400.0
"""A longer wait than any provider's quota period is a mistake."""

_MAX_CODE = 10**9


class ProviderError(Struct, frozen=True):
    """What a provider's error body says; every part is None when it does not. `kind` is the `type` of its error.

    `retry_after_seconds` is the wait that it asks for in the body.
    """

    message: str | None = None
    code: str | None = None
    param: str | None = None
    kind: str | None = None
    retry_after_seconds: float | None = None


def read_error(body: bytes) -> ProviderError:
    """Read an error body in any of the shapes that OpenAI-compatible servers answer. Never raises.

    Some keep their own code and message in `base_resp`, where 0 is success (MiniMax:
    https://platform.minimax.io/docs/api-reference/errorcode, read 2026-11-23).
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ProviderError()
    if isinstance(found, list) and found:
        found = found[0]
    inner = (found.get("error") or found.get("base_resp") or found) if isinstance(found, dict) else found
    if isinstance(inner, str):
        return ProviderError(inner)
    if not isinstance(inner, dict):
        return ProviderError()
    texts = (inner.get(name) for name in ("message", "msg", "detail", "error_msg", "status_msg"))
    message = next((text for text in texts if isinstance(text, str) and text), None)
    return ProviderError(
        message,
        _code(inner.get("code") or inner.get("status_code")),
        _text(inner.get("param")),
        _text(inner.get("type")),
        _seconds(inner.get("retry_after")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= MAX_WAIT_SECONDS else None


def _code(value: object) -> str | None:
    """Return a code as text; a number is one unless it says that nothing went wrong."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 0 < value < _MAX_CODE else None
    return _text(value)


def message_of(body: bytes) -> str | None:
    """Return the message of a provider's error body."""
    return read_error(body).message


_STATUSES = {
    Kind.INVALID_JSON: 400,
    Kind.INVALID_VALUE: 400,
    Kind.MISSING_KEY: 401,
    Kind.INVALID_KEY: 401,
    Kind.PERMISSION_DENIED: 403,
    Kind.MODEL_NOT_FOUND: 404,
    Kind.NOT_FOUND: 404,
    Kind.METHOD_NOT_ALLOWED: 405,
    Kind.REQUEST_TIMEOUT: 408,
    Kind.REQUEST_TOO_LARGE: 413,
    Kind.UNSUPPORTED_MEDIA_TYPE: 415,
    Kind.RATE_LIMIT_EXCEEDED: 429,
    Kind.INSUFFICIENT_QUOTA: 429,
    Kind.INTERNAL_ERROR: 500,
    Kind.UPSTREAM_ERROR: 502,
    Kind.OVERLOADED: 503,
    Kind.UPSTREAM_TIMEOUT: 504,
}


def status_of(kind: Kind) -> int:
    """Return the HTTP status for a situation on this surface."""
    return _STATUSES[kind]


def _type_of(kind: Kind) -> str:
    match kind:
        case Kind.RATE_LIMIT_EXCEEDED:
            return "rate_limit_error"
        case Kind.INSUFFICIENT_QUOTA:
            return "insufficient_quota"
        case Kind.PERMISSION_DENIED:
            return "permission_error"
        case Kind.UPSTREAM_ERROR | Kind.UPSTREAM_TIMEOUT:
            return "upstream_error"
        case Kind.OVERLOADED | Kind.INTERNAL_ERROR:
            return "server_error"
        case _:
            return "invalid_request_error"


def encode_error(error: GateError, message: str) -> bytes:
    """Write an error's body; `message` is its text in the caller's language."""
    kind = Kind.INVALID_KEY if error.kind is Kind.MISSING_KEY else error.kind
    body = {
        "message": message,
        "type": _type_of(kind),
        "param": error.param,
        "code": error.provider_code or kind.value,
    }
    return msgspec.json.encode({"error": body})
