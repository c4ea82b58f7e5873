"""Errors in Google's shape: written for callers, and read from upstreams as OpenAI's.

Sources (read 2026-11-23): https://cloud.google.com/apis/design/errors,
https://ai.google.dev/gemini-api/docs/troubleshooting.
"""

from __future__ import annotations

import re

import msgspec

from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import GateError, Kind

_WORDS: dict[Kind, tuple[int, str]] = {
    Kind.INVALID_JSON: (400, "INVALID_ARGUMENT"),
    Kind.INVALID_VALUE: (400, "INVALID_ARGUMENT"),
    Kind.MISSING_KEY: (401, "UNAUTHENTICATED"),
    Kind.INVALID_KEY: (401, "UNAUTHENTICATED"),
    Kind.PERMISSION_DENIED: (403, "PERMISSION_DENIED"),
    Kind.MODEL_NOT_FOUND: (404, "NOT_FOUND"),
    Kind.NOT_FOUND: (404, "NOT_FOUND"),
    Kind.METHOD_NOT_ALLOWED: (405, "UNIMPLEMENTED"),
    Kind.REQUEST_TIMEOUT: (408, "DEADLINE_EXCEEDED"),
    Kind.REQUEST_TOO_LARGE: (413, "INVALID_ARGUMENT"),
    Kind.UNSUPPORTED_MEDIA_TYPE: (415, "INVALID_ARGUMENT"),
    Kind.RATE_LIMIT_EXCEEDED: (429, "RESOURCE_EXHAUSTED"),
    Kind.INSUFFICIENT_QUOTA: (429, "RESOURCE_EXHAUSTED"),
    Kind.INTERNAL_ERROR: (500, "INTERNAL"),
    Kind.UPSTREAM_ERROR: (502, "UNAVAILABLE"),
    Kind.OVERLOADED: (503, "UNAVAILABLE"),
    Kind.UPSTREAM_TIMEOUT: (504, "DEADLINE_EXCEEDED"),
}

_TYPES = "type.googleapis.com/google.rpc."
_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY, _BAD_REQUEST, _UNAVAILABLE, _CANCELLED = 401, 403, 429, 400, 503, 499
_WRONG_KEY = re.compile(r"API key (not valid|expired|not found)", re.IGNORECASE)
_TOO_LONG = re.compile(r"token count .{0,40}exceeds the maximum", re.IGNORECASE)
_SPENT = re.compile(r"credits are depleted|spending cap", re.IGNORECASE)
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")


def status_of(kind: Kind) -> int:
    """Return the HTTP status for a situation on this surface."""
    return _WORDS[kind][0]


def encode_error(error: GateError, message: str, request_id: str) -> bytes:
    """Write an error's body; `message` is its text in the caller's language."""
    status, word = _WORDS[error.kind]
    metadata = {"request_id": request_id} | ({} if error.param is None else {"field": error.param})
    code = (error.provider_code or error.kind.value).upper()
    details: list[Json] = [{"@type": f"{_TYPES}ErrorInfo", "reason": code, "domain": "chatgate", "metadata": metadata}]
    if error.retry_after_seconds is not None:
        details.append({"@type": f"{_TYPES}RetryInfo", "retryDelay": f"{error.retry_after_seconds:.3f}s"})
    inner = {"code": status, "message": message, "status": word, "details": details}
    return msgspec.json.encode({"error": inner})


def to_openai_error(status: int, body: bytes) -> tuple[int, bytes]:
    """Return the status and the body that an OpenAI-compatible server would have refused with.

    What is no error in Google's shape stays as it is.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return status, body
    if isinstance(found, list) and found:
        found = found[0]
    inner = found.get("error") if isinstance(found, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("status"), str):
        return status, body
    message, kind = str(inner.get("message") or ""), inner["status"]
    details = [each for each in inner.get("details") or () if isinstance(each, dict)]
    status, code = _meaning(status, kind, message, details)
    told: Json = {"message": message, "type": kind, "param": None, "code": code}
    if (wait := _wait_in(details)) is not None:
        told["retry_after"] = wait
    return status, msgspec.json.encode({"error": told})


def _meaning(status: int, kind: str, message: str, details: list[Json]) -> tuple[int, str | None]:
    """Return an error's status and code as those who read OpenAI's errors know them."""
    if status == _BAD_REQUEST:
        if _WRONG_KEY.search(message) or any(each.get("reason") == "API_KEY_INVALID" for each in details):
            return _UNAUTHORIZED, "invalid_api_key"
        if kind == "FAILED_PRECONDITION":
            return _FORBIDDEN, None  # Not from here, or not without paying.
        return status, "context_length_exceeded" if _TOO_LONG.search(message) else None
    if status == _TOO_MANY:
        is_spent = _SPENT.search(message) is not None or any(map(_is_daily, details))
        return status, "insufficient_quota" if is_spent else "rate_limit_exceeded"
    return (_UNAVAILABLE if status == _CANCELLED else status), None


def _is_daily(detail: Json) -> bool:
    """Tell whether a detail names a quota that is one of whole days."""
    violations = detail.get("violations")
    return any(
        isinstance(each, dict) and "PerDay" in str(each.get("quotaId"))
        for each in (violations if isinstance(violations, list) else ())
    )


def _wait_in(details: list[Json]) -> float | None:
    """Return the wait that an error asks for, in seconds, None when it asks for none."""
    for each in details:
        found = _SECONDS.fullmatch(str(each.get("retryDelay")))
        if found is not None:
            return float(found[1])
    return None
