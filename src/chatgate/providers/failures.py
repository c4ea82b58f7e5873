"""What a provider's refusal means for the caller: whose fault it is, and which of its words may be passed on."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC
from typing import TYPE_CHECKING

from chatgate.protocols.openai_errors import MAX_WAIT_SECONDS
from chatgate.vocabulary.errors import Blame, CallerError, GateError, Kind, Remedy, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatgate.vocabulary.upstreams import FailureClass

MAX_MESSAGE_CHARACTERS = 2000
"""A provider's message is cut after this many characters."""

_OK, _BAD_REQUEST, _UNAUTHORIZED, _PAYMENT_REQUIRED, _FORBIDDEN, _NOT_FOUND = 200, 400, 401, 402, 403, 404
_REQUEST_TIMEOUT, _CONFLICT, _TOO_LARGE, _UNPROCESSABLE = 408, 409, 413, 422
_TOO_EARLY, _TOO_MANY, _SERVER_ERROR = 425, 429, 500
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_PACE_CODES = frozenset({"rate_limit_exceeded", "rate_limit_error", "429"})
# Source: https://platform.openai.com/docs/guides/error-codes, and Azure's content filter,
# https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter (both read 2026-11-23).
_CONTENT_CODES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "data_inspection_failed",
        "moderation_blocked",
        "responsibleaipolicyviolation",
        "sensitive_words_detected",
    }
)
_LENGTH_CODES = frozenset({"context_length_exceeded", "context_window_exceeded", "string_above_max_length"})
_USUAL_CODES: dict[FailureClass, str] = {"content": "content_filter", "length": "context_length_exceeded"}
_LENGTH_WORDS = re.compile(
    r"maximum context length|context (length|window|size|limit)|(prompt|input) is too long|too many (input )?tokens",
    re.IGNORECASE,
)


_STATUSES: dict[FailureClass, int] = {
    "key": _UNAUTHORIZED,
    "quota": _PAYMENT_REQUIRED,
    "pace": _TOO_MANY,
    "content": _BAD_REQUEST,
    "length": _BAD_REQUEST,
    "model": _NOT_FOUND,
    "down": _SERVER_ERROR,
}
_NO_CLASSES: dict[str, FailureClass] = {}


def failure_of(  # noqa: PLR0913 - all that a refusal says
    status: int,
    *,
    message: str | None,
    code: str | None,
    param: str | None,
    retry_after_seconds: float | None,
    model: str,
    own_key: bool,
    kind: str | None = None,
    classes: Mapping[str, FailureClass] = _NO_CLASSES,
) -> GateError:
    """Return the error for an answer that is no success, with what may be tried next and whose fault it was.

    `message`, `code`, `param` and `kind` (the error's type) are the provider's, already freed of secrets; `own_key`
    says that the key which it saw was the caller's own, whose troubles say nothing about ours; `model` is the name that
    was sent. `classes` says what a code, a type or a status means at this provider; the most exact of the three counts.
    """
    said = None if message is None else message[:MAX_MESSAGE_CHARACTERS]
    found = class_of(classes, code, kind, status)
    if found is not None:
        status = _STATUSES[found]
        code = _USUAL_CODES.get(found)  # What the vendor calls it may mean something else elsewhere.
    error = _told(status, said, code, param, retry_after_seconds, model, own_key=own_key)
    error.remedy, error.blame = _judge(error, status, code, said, own_key=own_key)
    return error


def class_of(
    classes: Mapping[str, FailureClass], code: str | None, kind: str | None, status: int
) -> FailureClass | None:
    """Return what a provider's error means by its own code, else its type, else its status; None for the usual."""
    return classes.get(code or "") or classes.get(kind or "") or classes.get(str(status))


def failure_in_answer(
    error: UpstreamError, *, model: str, own_key: bool, classes: Mapping[str, FailureClass]
) -> GateError:
    """Return what an error that came with status 200, before a word of the answer, means for the caller."""
    if class_of(classes, error.provider_code, None, _OK) is None:
        return judge_event(error)
    return failure_of(
        _OK,
        message=error.provider_message,
        code=error.provider_code,
        param=None,
        retry_after_seconds=None,
        model=model,
        own_key=own_key,
        classes=classes,
    )


def _judge(  # noqa: PLR0911 - one for each class of failure
    error: GateError, status: int, code: str | None, said: str | None, *, own_key: bool
) -> tuple[Remedy, Blame]:
    """Return what may be tried next, and whose fault it was."""
    if is_about_content(code):
        return Remedy.PASS_ON, Blame.NOTHING
    if status in {_BAD_REQUEST, _TOO_LARGE, _UNPROCESSABLE} and is_about_length(code, said):
        return Remedy.LARGER_WINDOW, Blame.NOTHING
    if status in {_UNAUTHORIZED, _FORBIDDEN} and not own_key:
        return Remedy.ANOTHER_TARGET, Blame.CREDENTIAL
    if error.kind is Kind.INSUFFICIENT_QUOTA and not own_key:
        return Remedy.ANOTHER_TARGET, Blame.PACE
    if error.kind is Kind.RATE_LIMIT_EXCEEDED:
        return Remedy.RETRY, Blame.NOTHING if own_key else Blame.PACE
    if status == _NOT_FOUND:
        return Remedy.ANOTHER_TARGET, Blame.NOTHING
    return error.remedy, error.blame


def judge_event(error: UpstreamError) -> UpstreamError:
    """Say what may be tried after an error that came inside an answer with status 200."""
    code, said = error.provider_code, error.provider_message
    if is_about_content(code):
        error.remedy, error.blame = Remedy.PASS_ON, Blame.NOTHING
    elif is_about_length(code, said):
        error.remedy, error.blame = Remedy.LARGER_WINDOW, Blame.NOTHING
    elif code in _PACE_CODES:
        error.blame = Blame.PACE
    if code is not None and code.isdigit():
        error.provider_code = None  # A number says nothing to programs, and ours does.
    return error


def is_about_content(code: str | None) -> bool:
    """Tell whether a provider refused what was asked, and not how: that is passed on, never routed around."""
    return code is not None and code.lower() in _CONTENT_CODES


def is_about_length(code: str | None, message: str | None) -> bool:
    """Tell whether a provider says that the model cannot take in so much."""
    return code in _LENGTH_CODES or (message is not None and _LENGTH_WORDS.search(message) is not None)


def _told(
    status: int,
    said: str | None,
    code: str | None,
    param: str | None,
    retry_after_seconds: float | None,
    model: str,
    *,
    own_key: bool,
) -> GateError:
    """Return what the caller is told."""
    if status == _UNAUTHORIZED:
        reason = "provider_refused_key_caller" if own_key else "provider_refused_key_server"
        return CallerError(Kind.INVALID_KEY, reason)
    if status == _PAYMENT_REQUIRED or (status == _TOO_MANY and code in _QUOTA_CODES):
        return CallerError(Kind.INSUFFICIENT_QUOTA, "provider_quota", provider_message=said)
    if status == _TOO_MANY:
        return CallerError(
            Kind.RATE_LIMIT_EXCEEDED,
            "provider_limit",
            retry_after_seconds=retry_after_seconds,
            provider_message=said,
        )
    if status == _NOT_FOUND:
        return CallerError(
            Kind.MODEL_NOT_FOUND,
            "provider_not_found",
            param="model",
            provider_message=said,
            parameters={"model": model},
        )
    if status < _BAD_REQUEST or status >= _SERVER_ERROR or status in {_REQUEST_TIMEOUT, _CONFLICT, _TOO_EARLY}:
        return UpstreamError(
            "upstream_failed",
            retry_after_seconds=retry_after_seconds,
            provider_message=said,
            parameters={"status": status},
        )
    kinds = {_FORBIDDEN: Kind.PERMISSION_DENIED, _TOO_LARGE: Kind.REQUEST_TOO_LARGE}
    return CallerError(
        kinds.get(status, Kind.INVALID_VALUE),
        "provider_refused",
        param=param,
        provider_message=said,
        provider_code=None if code == str(status) else code,
        parameters={"message": said or str(status)},
    )


def retry_after(headers: Mapping[bytes, bytes], wall_clock: Callable[[], float]) -> float | None:
    """Return the wait that a provider asks for, in seconds: `retry-after-ms`, else `Retry-After` in either form.

    None when it asks for none, or for something that is no wait.
    """
    seconds = _number(headers.get(b"retry-after-ms", b""), 1000)
    if seconds is not None:
        return seconds
    text = headers.get(b"retry-after", b"")
    seconds = _number(text, 1)
    return _until(text.decode("latin-1"), wall_clock) if seconds is None else seconds


def _number(text: bytes, units_per_second: int) -> float | None:
    try:
        return _wait(float(text) / units_per_second)
    except ValueError:
        return None


def _until(date: str, wall_clock: Callable[[], float]) -> float | None:
    """Return the seconds until a date in one of HTTP's three forms, one of which names no zone: it is UTC."""
    try:
        at = email.utils.parsedate_to_datetime(date)
        return _wait((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - wall_clock())
    except (ValueError, OverflowError):
        return None


def _wait(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= MAX_WAIT_SECONDS else None
