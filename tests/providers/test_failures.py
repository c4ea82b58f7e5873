"""A provider's refusal is told as what it means for the caller, and its wish to wait is read in every form."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.protocols import openai_errors
from chatgate.providers import failures
from chatgate.vocabulary.errors import Blame, CallerError, GateError, Kind, Remedy, UpstreamError
from chatgate.vocabulary.upstreams import FailureClass

NOW = 1_800_000_000.0


def failure(status: int, *, code: str | None = None, own_key: bool = False, message: str | None = "Why.") -> GateError:
    """Return what a status means."""
    return failures.failure_of(
        status, message=message, code=code, param="p", retry_after_seconds=7.0, model="gpt-x", own_key=own_key
    )


def wait(**headers: str) -> float | None:
    """Return the wait that some headers ask for."""
    lines = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return failures.retry_after(lines, lambda: NOW)


CALLERS_BUSINESS = {
    400: (Kind.INVALID_VALUE, "provider_refused"),
    401: (Kind.INVALID_KEY, "provider_refused_key_server"),
    402: (Kind.INSUFFICIENT_QUOTA, "provider_quota"),
    403: (Kind.PERMISSION_DENIED, "provider_refused"),
    404: (Kind.MODEL_NOT_FOUND, "provider_not_found"),
    405: (Kind.INVALID_VALUE, "provider_refused"),
    406: (Kind.INVALID_VALUE, "provider_refused"),
    410: (Kind.INVALID_VALUE, "provider_refused"),
    413: (Kind.REQUEST_TOO_LARGE, "provider_refused"),
    415: (Kind.INVALID_VALUE, "provider_refused"),
    422: (Kind.INVALID_VALUE, "provider_refused"),
    429: (Kind.RATE_LIMIT_EXCEEDED, "provider_limit"),
    451: (Kind.INVALID_VALUE, "provider_refused"),
}
PROVIDERS_FAULT = [
    201,
    204,
    206,
    300,
    301,
    302,
    304,
    307,
    308,
    408,
    409,
    425,
    500,
    501,
    502,
    503,
    504,
    520,
    529,
    599,
    999,
]


@pytest.mark.parametrize("status", CALLERS_BUSINESS)
def test_what_the_caller_can_mend_is_the_callers(status: int) -> None:
    """Refusals of the call itself are told as such, and are not tried again."""
    error = failure(status)
    assert isinstance(error, CallerError)
    assert (error.kind, error.reason) == CALLERS_BUSINESS[status]
    assert error.remedy is not Remedy.RETRY or status == 429


@pytest.mark.parametrize("status", PROVIDERS_FAULT)
def test_everything_else_is_the_providers_fault(status: int) -> None:
    """Failures, redirects and odd successes are the provider's, and another try may work."""
    error = failure(status)
    assert isinstance(error, UpstreamError)
    assert (error.kind, error.reason) == (Kind.UPSTREAM_ERROR, "upstream_failed")
    assert error.parameters["status"] == status
    assert error.retry_after_seconds == 7.0
    assert (error.remedy, error.blame) == (Remedy.RETRY, Blame.TARGET)


def test_every_status_means_something() -> None:
    """No status is without an error, whether the provider explains it or not."""
    for status in range(100, 1000):
        assert failure(status, message=None).provider_message is None


def test_a_refused_key_is_told_without_the_providers_words() -> None:
    """Whose key it was decides who is to mend it; the provider's words could quote the key."""
    for own_key, reason in ((True, "provider_refused_key_caller"), (False, "provider_refused_key_server")):
        error = failure(401, own_key=own_key, message="Incorrect API key: sk-test-0123")
        assert (error.reason, error.provider_message, error.provider_code) == (reason, None, None)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"])
def test_a_spent_account_is_no_limit_of_pace(code: str) -> None:
    """Waiting does not help there, so no wait is passed on."""
    error = failure(429, code=code)
    assert (error.kind, error.retry_after_seconds) == (Kind.INSUFFICIENT_QUOTA, None)
    assert failure(429, code="slow_down").retry_after_seconds == 7.0


@pytest.mark.parametrize(
    ("status", "found", "kind", "remedy", "blame"),
    [
        (403, "key", Kind.INVALID_KEY, Remedy.ANOTHER_TARGET, Blame.CREDENTIAL),
        (403, "quota", Kind.INSUFFICIENT_QUOTA, Remedy.ANOTHER_TARGET, Blame.PACE),
        (400, "pace", Kind.RATE_LIMIT_EXCEEDED, Remedy.RETRY, Blame.PACE),
        (403, "content", Kind.INVALID_VALUE, Remedy.PASS_ON, Blame.NOTHING),
        (403, "length", Kind.INVALID_VALUE, Remedy.LARGER_WINDOW, Blame.NOTHING),
        (400, "model", Kind.MODEL_NOT_FOUND, Remedy.ANOTHER_TARGET, Blame.NOTHING),
        (400, "down", Kind.UPSTREAM_ERROR, Remedy.RETRY, Blame.TARGET),
    ],
)
def test_a_vendors_own_meaning_goes_before_the_usual(
    status: int, found: FailureClass, kind: Kind, remedy: Remedy, blame: Blame
) -> None:
    """What a vendor says by a code, a type or a status decides what may be tried, and not what others mean by it."""
    for code, type_, key in (("1113", None, "1113"), (None, "odd_error", "odd_error"), (None, None, str(status))):
        error = failures.failure_of(
            status,
            message="Why.",
            code=code,
            kind=type_,
            param=None,
            retry_after_seconds=None,
            model="gpt-x",
            own_key=False,
            classes={key: found},
        )
        assert (error.kind, error.remedy, error.blame) == (kind, remedy, blame)


def test_the_most_exact_word_of_a_vendor_counts() -> None:
    """A code says more than a type, and a type more than a status."""
    classes: dict[str, FailureClass] = {"c": "pace", "t": "quota", "403": "key"}
    assert failures.class_of(classes, "c", "t", 403) == "pace"
    assert failures.class_of(classes, "x", "t", 403) == "quota"
    assert failures.class_of(classes, "x", None, 403) == "key"
    assert failures.class_of(classes, None, None, 400) is None


def test_an_error_with_status_200_means_what_its_code_says() -> None:
    """One that the vendor's file knows is told as with a status of its own; another one stays the provider's fault."""
    event = UpstreamError("upstream_error_event", provider_message="Why.")
    event.provider_code = "1008"
    error = failures.failure_in_answer(event, model="m", own_key=False, classes={"1008": "quota"})
    assert (error.kind, error.provider_message) == (Kind.INSUFFICIENT_QUOTA, "Why.")
    assert failures.failure_in_answer(event, model="m", own_key=False, classes={}) is event


def test_a_code_that_only_repeats_the_status_is_not_passed_on() -> None:
    """It says nothing to programs, and stands in the place of a code that does."""
    assert failure(400, code="400").provider_code is None
    assert failure(400, code="3001").provider_code == "3001"


def test_a_refused_value_keeps_what_programs_look_for() -> None:
    """The provider's code and field survive; its message stands in ours."""
    error = failure(400, code="context_length_exceeded")
    assert (error.provider_code, error.param, error.provider_message) == ("context_length_exceeded", "p", "Why.")
    assert error.parameters["message"] == "Why."
    assert failure(400, message=None).parameters["message"] == "400"


def test_long_words_are_cut() -> None:
    """A provider's page of text is no message."""
    said = failure(400, message="x" * 5000).provider_message
    assert said is not None
    assert len(said) == failures.MAX_MESSAGE_CHARACTERS


# --- Waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        (" 61 ", 61.0),
        ("1.5", 1.5),
        ("86400", 86400.0),
        ("-5", None),
        ("abc", None),
        ("", None),
        (" ", None),
        ("nan", None),
        ("inf", None),
        ("1e300", None),
        ("9" * 400, None),
        ("1, 2", None),
        ("²", None),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        ("Friday, 15-Jan-27 08:00:30 GMT", 30.0),
        ("Fri Jan 15 08:00:30 2027", 30.0),
        ("Fri, 15 Jan 2027 10:00:30 +0200", 30.0),
        ("Fri, 15 Jan 2027 07:59:59 GMT", None),
        ("Fri, 99 Jan 2027 08:00:30 GMT", None),
        ("Fri, 15 Jan 9999 08:00:30 GMT", None),
    ],
)
def test_a_wait_is_read_in_every_form(text: str, seconds: float | None) -> None:
    """Seconds, fractions, and HTTP's three kinds of dates; what is no wait, or past, or absurd, is none."""
    assert wait(retry_after=text) == seconds


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [("250", 0.25), ("0", 0.0), ("7200000", 7200.0), ("x", 9.0), ("-1", 9.0), ("", 9.0), ("1e99", 9.0)],
)
def test_milliseconds_go_first(milliseconds: str, seconds: float) -> None:
    """The finer header counts; when it is broken, the other one does."""
    assert wait(retry_after_ms=milliseconds, retry_after="9") == seconds


def test_no_wait_is_none() -> None:
    """A provider that says nothing asks for nothing."""
    assert wait() is None


@given(st.binary(max_size=40), st.binary(max_size=10))
@example(b"Fri, 15 Jan 2027 08:00:30 +9999", b"")
@example(b"Fri, 15 Jan 0000 08:00:30 GMT", b"")
@example(b"1 1 1", b"")
def test_no_bytes_break_the_reader(text: bytes, milliseconds: bytes) -> None:
    """Whatever a provider sends, it is a sane wait or none."""
    found = failures.retry_after({b"retry-after": text, b"retry-after-ms": milliseconds}, lambda: NOW)
    assert found is None or 0 <= found <= openai_errors.MAX_WAIT_SECONDS


@given(st.integers(0, 30 * 86400))
def test_dates_are_exact(seconds: int) -> None:
    """A date that is some seconds ahead is a wait of so many seconds."""
    date = format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)
    assert wait(retry_after=date) == seconds
