"""The catalogue of scenarios. Data only: `stage` plays it, and `judge` holds what happened against it.

S01 to S16 are those of Failover Bench, whose list of faults and of what must follow is told here in our own words; the
others are what else is known to go wrong.
Source: https://github.com/failoverbench/failoverbench, methodology 0.1, scorecard of 2026-09-12 (read 2026-11-23).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chatgate.drill import faults
from chatgate.drill.answers import OTHER_WORDS
from chatgate.drill.scenarios import Aim, Part, Scenario, Strikes

CUT_AFTER: Final = 40
STALL_AFTER: Final = 20

_OVERLOADED: Final = "The engine is currently overloaded. Please try again later."
_LIMIT: Final = "Rate limit reached. Please slow down."
_BROKEN: Final = "The server had an error while processing your request."
_TOO_LONG: Final = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9631 tokens."
_AGAINST_RULES: Final = "Your request was rejected as a result of our safety system."
_BAD: Final = "Invalid value for 'temperature': 9 is greater than 2."

_PUBLIC: Final = (
    Scenario(
        public="S01",
        name="rate limit with a wait",
        does="says 429 and Retry-After once, then is well",
        fault=faults.status(429, _LIMIT, "rate_limit_exceeded", "{wait}"),
        times=1,
        waits=True,
        wholes=True,
    ),
    Scenario(
        public="S02",
        name="rate limit without a wait",
        does="says 429 to every attempt",
        fault=faults.status(429, _LIMIT, "rate_limit_exceeded"),
        wholes=True,
    ),
    Scenario(
        public="S03",
        name="one server error",
        does="says 500 once, then is well",
        fault=faults.status(500, _BROKEN),
        times=1,
        wholes=True,
    ),
    Scenario(
        public="S04",
        name="overloaded",
        does="says 503 to every attempt",
        fault=faults.status(503, _OVERLOADED, "overloaded"),
        wholes=True,
    ),
    Scenario(
        public="S05",
        name="reset before an answer",
        does="resets the connection once, then is well",
        fault=faults.hang_up(reset=True),
        times=1,
        wholes=True,
    ),
    Scenario(
        public="S06",
        name="no answer at all",
        does="takes the call and stays silent",
        fault=faults.silence(),
        is_silent=True,
        wholes=True,
    ),
    Scenario(
        public="S07",
        name="late first word",
        does="sends the head, and the first word far too late",
        fault=faults.slow_first_word(),
        is_silent=True,
        wholes=True,
    ),
    Scenario(
        public="S08",
        name="stream cut",
        does=f"closes the connection after {CUT_AFTER} of 60 words",
        fault=faults.begins(CUT_AFTER, faults.then_cut, "cut"),
    ),
    Scenario(
        public="S09",
        name="stream stalls",
        does=f"stays silent after {STALL_AFTER} of 60 words",
        fault=faults.begins(STALL_AFTER, faults.then_stall, "silent"),
        is_silent=True,
    ),
    Scenario(
        public="S10",
        name="malformed event",
        does="says one event that is no JSON, and all the rest",
        fault=faults.begins(10, faults.then_malformed, "malformed event"),
        in_place=True,
    ),
    Scenario(
        public="S11",
        name="no [DONE]",
        does="says all there is to say, but not [DONE]",
        fault=faults.no_done(),
        needs_usage=True,
        in_place=True,
    ),
    Scenario(
        public="S12",
        name="context too long",
        does="says 400: the conversation does not fit",
        fault=faults.status(400, _TOO_LONG, "context_length_exceeded"),
        is_refused=True,
        needs_larger_window=True,
        wholes=True,
    ),
    Scenario(
        public="S13",
        name="content refused",
        does="says 400: the content is against its rules",
        fault=faults.status(400, _AGAINST_RULES, "content_policy_violation"),
        words=_AGAINST_RULES,
        is_refused=True,
        aim=Aim.PASSED_ON,
        wholes=True,
    ),
    Scenario(
        public="S14",
        name="stream cut, no prefill elsewhere",
        does=f"closes after {CUT_AFTER} words; the others refuse to continue a text",
        fault=faults.begins(CUT_AFTER, faults.then_cut, "cut"),
        others=faults.answer(prefill=False),
    ),
    Scenario(
        public="S15",
        name="outage and return",
        does="says 503 for a while, then is well again",
        fault=faults.status(503, _OVERLOADED, "overloaded"),
        is_outage=True,
    ),
    Scenario(
        public="S16",
        name="who answered",
        does="says 503; another place answers and must be named",
        fault=faults.status(503, _OVERLOADED, "overloaded"),
        needs_usage=True,
        wholes=True,
    ),
)

_OWN: Final = (
    Scenario(name="all is well", does="answers", strikes=Strikes.NOBODY, wholes=True, needs_usage=True),
    Scenario(
        name="nobody listens",
        does="refuses connections",
        strikes=Strikes.UPSTREAM,
        fault=faults.silence(),
        wholes=True,
    ),
    Scenario(
        name="closed before an answer",
        does="closes the connection instead of an answer",
        fault=faults.hang_up(reset=False),
        wholes=True,
    ),
    Scenario(
        name="bad gateway",
        does="says 502 with a web page",
        fault=faults.page(502),
        wholes=True,
    ),
    Scenario(
        name="request timeout",
        does="says 408 once, then is well",
        fault=faults.status(408, "Request timed out."),
        times=1,
        wholes=True,
    ),
    Scenario(
        name="rate limit for an hour",
        does="says 429 and Retry-After 3600",
        fault=faults.status(429, _LIMIT, "rate_limit_exceeded", "3600"),
        once=True,
        wholes=True,
    ),
    Scenario(
        name="key refused",
        does="says 401 to one key, three calls long",
        fault=faults.refused_key(),
        strikes=Strikes.KEY,
        calls=3,
    ),
    Scenario(
        name="bad request",
        does="says 400: a parameter is wrong",
        fault=faults.status(400, _BAD, "invalid_value"),
        words=_BAD,
        is_refused=True,
        aim=Aim.PASSED_ON,
        wholes=True,
    ),
    Scenario(
        name="silent after the role",
        does="begins a stream and says no word",
        fault=faults.begins(0, faults.then_hang, "silent"),
        is_silent=True,
    ),
    Scenario(name="error inside 200", does="says 200 and an error as first event", fault=faults.error_first()),
    Scenario(
        name="error as answer",
        does="says 200 with an error as body",
        fault=faults.body(b'{"error": {"message": "overloaded", "type": "server_error", "param": null, "code": null}}'),
        streams=False,
        wholes=True,
    ),
    Scenario(name="empty answer", does="says 200 and nothing else", fault=faults.body(b""), wholes=True),
    Scenario(name="web page", does="says 200 with a web page", fault=faults.page(200), wholes=True),
    Scenario(
        name="half of JSON",
        does="says 200 with JSON that ends too soon",
        fault=faults.body(b'{"id": "chatcm'),
        streams=False,
        wholes=True,
    ),
    Scenario(name="JSON for a stream", does="answers a stream with one object", fault=faults.whole_for_stream()),
    Scenario(
        name="cut inside the body",
        does="closes after 60 % of the answer",
        fault=faults.half_a_body(stall=False),
        streams=False,
        wholes=True,
    ),
    Scenario(
        name="stalls inside the body",
        does="stays silent after 60 % of the answer",
        fault=faults.half_a_body(stall=True),
        is_silent=True,
        streams=False,
        wholes=True,
    ),
    Scenario(
        name="stream reset",
        does=f"resets the connection after {CUT_AFTER} words",
        fault=faults.begins(CUT_AFTER, faults.then_reset, "reset"),
    ),
    Scenario(
        name="cut inside a character",
        does="closes in the middle of a character",
        fault=faults.begins(STALL_AFTER, faults.then_cut_inside_a_character, "cut"),
    ),
    Scenario(
        name="ends too soon",
        does="ends the stream properly, but after a third of it",
        fault=faults.begins(STALL_AFTER, faults.then_end, "ended"),
    ),
    Scenario(
        name="error inside the stream",
        does="says an error after a third, and [DONE]",
        fault=faults.begins(STALL_AFTER, faults.then_error, "error"),
    ),
    Scenario(
        name="odd framing",
        does="answers well, a few bytes at a time, with CRLF and comments",
        fault=faults.odd_framing(),
        in_place=True,
    ),
    Scenario(
        name="another text elsewhere",
        does=f"closes after {CUT_AFTER} words; the others would say something else",
        fault=faults.begins(CUT_AFTER, faults.then_cut, "cut"),
        others=faults.answer(OTHER_WORDS, prefill=False),
        has_other_text=True,
        aim=Aim.FAILURE,
    ),
    Scenario(
        name="everything down",
        does="says 503 everywhere, eight calls long",
        strikes=Strikes.EVERYBODY,
        fault=faults.status(503, _OVERLOADED, "overloaded"),
        aim=Aim.FAILURE,
        calls=8,
        wholes=True,
    ),
    Scenario(
        name="everything silent",
        does="stays silent everywhere",
        strikes=Strikes.EVERYBODY,
        fault=faults.silence(),
        aim=Aim.FAILURE,
        is_silent=True,
        wholes=True,
    ),
    Scenario(
        name="caller leaves a stream",
        does=f"says {STALL_AFTER} words and waits; the caller leaves",
        strikes=Strikes.EVERYBODY,
        fault=faults.begins(STALL_AFTER, faults.then_hang, "waited"),
        aim=Aim.RELEASE,
        leave_after_words=10,
    ),
    Scenario(
        name="caller leaves early",
        does="stays silent; the caller leaves",
        strikes=Strikes.EVERYBODY,
        fault=faults.silence(),
        aim=Aim.RELEASE,
        leave_after_words=0,
        wholes=True,
    ),
)

CATALOGUE: Final = (*_PUBLIC, *_OWN)


def parts() -> Iterator[Part]:
    """Yield the catalogue, the public scenarios first."""
    for scenario in CATALOGUE:
        if scenario.streams:
            yield Part(scenario, stream=True)
    for scenario in CATALOGUE:
        if scenario.wholes:
            yield Part(scenario, stream=False)
