"""Write where a caller stands as header lines, in the form that OpenAI's clients know. Pure functions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chatgate.admission.standing import Standing

_SECOND_NS = 1_000_000_000
_MILLISECOND_NS = 1_000_000

_LONGEST_RETRY_MS = 60_000
"""SDKs obey a wait up to this long; told of a longer one, many try again on their own much sooner.

Source: `_calculate_retry_timeout` in the openai and anthropic Python packages (openai 3.54 obeys two minutes; read
2026-11-23).
"""

_DEGRADED = (b"", b"x-chatgate-degraded: limits\r\n")
"""Whether it was the part of the limits that this process has while nobody counts for all."""


def ratelimit_headers(standing: Standing) -> bytes:
    """Render a standing as header lines in OpenAI's form, each ending in CRLF; nothing of what no rule is about."""
    tokens = standing.tokens
    lines = (
        _DEGRADED[standing.is_degraded]
        if standing.limit is None
        else _lines(b"requests", standing.limit, b"%d" % standing.remaining, standing.reset_seconds)
        + _DEGRADED[standing.is_degraded]
    )
    if tokens is None:
        return lines
    return lines + _lines(b"tokens", tokens.limit, b"%d" % tokens.remaining, tokens.reset_seconds)


def form_of_requests(limit: int, reset_seconds: float) -> bytes:
    """Return the lines of a rule on requests as a format: what remains is still to be given to it."""
    return _lines(b"requests", limit, b"%d", reset_seconds)


def _lines(what: bytes, limit: int, remaining: bytes, reset_seconds: float) -> bytes:
    return b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %b\r\nx-ratelimit-reset-%b: %b\r\n" % (
        what,
        limit,
        what,
        remaining,
        what,
        _duration(reset_seconds),
    )


def retry_headers(seconds: float) -> bytes:
    """Render a wait as header lines, each ending in CRLF; waits are rounded up, and at least a millisecond.

    After a wait of more than a minute a client library's own retries can only fail, so they are called off.
    """
    milliseconds = max(1, _milliseconds(seconds))
    lines = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (-(-milliseconds // 1000), milliseconds)
    return lines + b"x-should-retry: false\r\n" if milliseconds > _LONGEST_RETRY_MS else lines


@lru_cache(256)
def _duration(seconds: float) -> bytes:
    """Render a duration as OpenAI does, in the notation of Go's `time.Duration`; rounded up.

    120ms, 1s, 6m0s, 1h0m0s: clients parse it as such (github.com/sashabaranov/go-openai, ratelimit.go; read
    2026-11-23).
    """
    milliseconds = _milliseconds(seconds)
    if 0 < milliseconds < 1000:  # noqa: PLR2004 - milliseconds of a second
        return b"%dms" % milliseconds
    minutes, whole_seconds = divmod(-(-milliseconds // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, whole_seconds)
    return b"%dm%ds" % (minutes, whole_seconds) if minutes else b"%ds" % whole_seconds


def _milliseconds(seconds: float) -> int:
    """Round up to milliseconds; what is below a nanosecond is the float's doing, and does not count."""
    return -(-round(seconds * _SECOND_NS) // _MILLISECOND_NS)
