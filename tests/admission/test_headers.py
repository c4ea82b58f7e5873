"""Headers of limits: what a standing and a wait look like to clients."""

from __future__ import annotations

import pytest
from msgspec import structs

from chatgate.admission.headers import ratelimit_headers, retry_headers
from chatgate.admission.standing import Gauge, Standing


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, b"0s"),
        (1e-9, b"1ms"),
        (0.12, b"120ms"),
        (0.1200001, b"121ms"),
        (0.9990001, b"1s"),
        (1.0, b"1s"),
        (1.001, b"2s"),
        (59.0, b"59s"),
        (59.5, b"1m0s"),
        (60.0, b"1m0s"),
        (360.0, b"6m0s"),
        (3599.001, b"1h0m0s"),
        (3600.0, b"1h0m0s"),
        (3661.0, b"1h1m1s"),
        (86_400.0, b"24h0m0s"),
        (2_592_000.0, b"720h0m0s"),
    ],
)
def test_ratelimit_headers(seconds: float, text: bytes) -> None:
    """A standing becomes three lines, with the time to reset as OpenAI writes it."""
    standing = Standing(admitted=True, limit=50, remaining=3, reset_seconds=seconds)
    assert ratelimit_headers(standing) == (
        b"x-ratelimit-limit-requests: 50\r\n"
        b"x-ratelimit-remaining-requests: 3\r\n"
        b"x-ratelimit-reset-requests: " + text + b"\r\n"
    )


@pytest.mark.parametrize(
    ("seconds", "whole", "milliseconds"),
    [
        (-1.0, 1, 1),
        (0.0, 1, 1),
        (1e-9, 1, 1),
        (0.12, 1, 120),
        (0.1200001, 1, 121),
        (1.0, 1, 1000),
        (1.000000001, 2, 1001),
        (2.5, 3, 2500),
        (3.0, 3, 3000),
        (60.0, 60, 60_000),
        (60.000000001, 61, 60_001),
        (86_399.5, 86_400, 86_399_500),
    ],
)
def test_retry_headers(seconds: float, whole: int, milliseconds: int) -> None:
    """A wait is rounded up to seconds and milliseconds, and one of more than a minute calls off retries."""
    lines = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (whole, milliseconds)
    assert retry_headers(seconds) == (lines + b"x-should-retry: false\r\n" if seconds > 60 else lines)


@pytest.mark.parametrize("limit", [None, 50])
@pytest.mark.parametrize("tokens", [None, Gauge(9, 9, 0.0)])
def test_a_part_of_the_limits_says_that_it_is_one(limit: int | None, tokens: Gauge | None) -> None:
    """One line more, whatever is limited; none otherwise."""
    whole = Standing(admitted=True, limit=limit, remaining=3, reset_seconds=1.0, tokens=tokens)
    part = structs.replace(whole, is_degraded=True)
    more = set(ratelimit_headers(part).split(b"\r\n")) - set(ratelimit_headers(whole).split(b"\r\n"))
    assert more == {b"x-chatgate-degraded: limits"}
