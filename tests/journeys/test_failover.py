"""What goes wrong before the first word is mended where nobody sees it, and what cannot be mended is passed on.

Every call has a model of its own with two upstreams, and all are made at once: a silence costs no more than one. The
tests then look at what became of each.
"""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import WAYS, Heard, Way
from fakes.scripts import Script
from fakes.upstream import Call, FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "Zwölf Boxkämpfer jagen — 零一二三 — Viktor 🚀 quer über den großen Sylter Deich."
AT_ONCE = 40

GOOD = json.dumps(scripts.completion("from the wrong one")).encode()
WORDS = scripts.told("from the wrong one", by="a")
JSON_HEAD = scripts.head(200, [("Content-Type", "application/json"), ("Content-Length", str(len(GOOD)))])
HTML = b"<html><body>Bad gateway</body></html>"
EVENTS = [("Content-Type", "text/event-stream")]
BUSY = scripts.error_body("no capacity", None, "server_error")


def status(number: int, code: str | None = None) -> Script:
    """Refuse with a status."""
    return scripts.whole(scripts.error_body(f"said {number}", code), number)


def opening(*pieces: bytes, then: str) -> Script:
    """Begin a stream, and go on as `scripts.raw` does."""
    return scripts.raw(scripts.STREAM_HEAD + b"".join(map(scripts.framed, pieces)), then=then)


MENDED: dict[str, Script | None] = {
    "refuses the connection": None,
    **{str(number): status(number) for number in (404, 408, 409, 425, 429, 500, 502, 503, 504, 529)},
    "quota": status(429, "insufficient_quota"),
    "402": status(402),
    "502 in HTML": scripts.whole(HTML, 502, [("Content-Type", "text/html")]),
    "302": scripts.raw(scripts.head(302, [("Location", "http://127.0.0.1:9/"), ("Content-Length", "0")])),
    "204": scripts.raw(scripts.head(204, [])),
    "closes at once": scripts.raw(b"", then="close"),
    "resets at once": scripts.raw(b"", then="reset"),
    "closes inside the head": scripts.raw(JSON_HEAD[:30], then="close"),
    "is silent": scripts.silent(),
    "is silent inside the head": scripts.raw(JSON_HEAD[:30], then="hang"),
    "is silent after the head": scripts.either(scripts.raw(JSON_HEAD, then="hang"), opening(then="hang")),
    "is silent after the role": scripts.either(
        scripts.raw(JSON_HEAD + GOOD[:40], then="hang"), opening(WORDS[0], then="hang")
    ),
    "sends only comments": scripts.either(
        scripts.raw(JSON_HEAD + b" " * 3, then="hang"), opening(b": one\n\n", b": two\n\n", then="hang")
    ),
    "closes after the role": scripts.either(
        scripts.raw(JSON_HEAD + GOOD[:40], then="close"), opening(WORDS[0], then="close")
    ),
    "resets after the role": scripts.either(
        scripts.raw(JSON_HEAD + GOOD[:40], then="reset"), opening(WORDS[0], then="reset")
    ),
    "ends after the role": scripts.either(scripts.whole(GOOD[:-9]), scripts.stream(WORDS[:1], end=b"")),
    "error in a 200": scripts.either(scripts.whole(BUSY), scripts.stream([scripts.event(BUSY)])),
    "error after the role": scripts.either(scripts.whole(BUSY), scripts.stream([WORDS[0], scripts.event(BUSY)])),
    "error as JSON": scripts.whole(BUSY),
    "empty": scripts.either(scripts.whole(b""), scripts.stream([], end=b"")),
    "empty without a stream": scripts.whole(b"", 200, EVENTS),
    "only an end mark": scripts.either(scripts.whole(b"null"), scripts.stream([])),
    "HTML": scripts.whole(HTML, 200, [("Content-Type", "text/html; charset=utf-8")]),
    "HTML as something else": scripts.either(scripts.whole(HTML), scripts.whole(HTML, 200, EVENTS)),
    "the other kind of answer": scripts.either(scripts.stream(WORDS), scripts.whole(GOOD)),
    "an array": scripts.either(scripts.whole(b"[]"), scripts.stream([b"data: []\n\n"])),
    "text": scripts.whole(b"All is well.", 200, [("Content-Type", "text/plain")]),
    "not HTTP": scripts.raw(b"SSH-2.0-OpenSSH\r\n\r\n", then="close"),
    "broken chunks": scripts.raw(scripts.STREAM_HEAD + b"zz\r\n", then="hang"),
    "an endless head": scripts.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, then="hang"),
}
"""What the first upstream does, and the second one mends."""

ABOUT_CONTENT = scripts.error_body("That is against our policy.", "content_policy_violation")
PASSED_ON: dict[str, tuple[Script, int, str]] = {
    "400": (status(400, "bad_thing"), 400, "said 400"),
    "413": (status(413), 413, "said 413"),
    "422": (status(422), 400, "said 422"),
    "418": (status(418), 400, "said 418"),
    "a refusal of content": (scripts.whole(ABOUT_CONTENT, 400), 400, "against our policy"),
    "a filter's refusal": (status(400, "content_filter"), 400, "said 400"),
    "a forbidden content": (scripts.whole(ABOUT_CONTENT, 403), 403, "against our policy"),
    "a content refused by a 500": (scripts.whole(ABOUT_CONTENT, 500), 502, "against our policy"),
    "too long for everybody": (status(400, "context_length_exceeded"), 400, "said 400"),
}
"""What the first upstream does, and the status and words that the caller gets: the second one is not asked."""

EVENT_PASSED_ON: dict[str, Script] = {
    "a refusal of content": scripts.either(
        scripts.whole(ABOUT_CONTENT), scripts.stream([scripts.event(ABOUT_CONTENT)])
    ),
}


class Outcome(NamedTuple):
    """What a caller heard, and which calls came to the two upstreams."""

    name: str
    said: Heard | BaseException
    at_first: list[Call]
    at_second: list[Call]

    @property
    def heard(self) -> Heard:
        """Return the answer; raises what was wrong with it."""
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said


CASES: dict[str, Script | None] = {
    **{f"mended: {what}": script for what, script in MENDED.items()},
    **{f"passed on: {what}": script for what, (script, _, _) in PASSED_ON.items()},
    **{f"event: {what}": script for what, script in EVENT_PASSED_ON.items()},
}


class Outcomes(NamedTuple):
    """The outcome of every case in every way, and the gateway that was called."""

    gateway: Gateway
    of: dict[tuple[str, Way], Outcome]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(
    upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway
) -> Outcomes:
    """Make every call, with a model of its own."""
    async with FakeUpstream() as gone:
        nowhere = gone.base_url
    first, second = upstream_of_file, other_of_file
    calls = {(case, way): f"m{number}" for number, (case, way) in enumerate((c, w) for c in CASES for w in WAYS)}
    config = fleet.QUICK
    for (case, _), name in calls.items():
        script = CASES[case]
        config += fleet.pair(name, first.base_url if script else nowhere, second.base_url)
        if script is not None:
            first.on_model(f"{name}-a", script)
        second.on_model(f"{name}-b", scripts.telling(TEXT, by="b", characters=3))
    gateway = await start_gateway({"ROUTE": "api"}, config)
    places = asyncio.Semaphore(AT_ONCE)

    async def call(way: Way, name: str) -> Heard:
        async with places:
            return await hearing.ask(gateway.port, way, "Say it", name)

    heard = await asyncio.gather(*(call(way, name) for (_, way), name in calls.items()), return_exceptions=True)
    found = {
        key: Outcome(name, each, first.calls_of(f"{name}-a"), second.calls_of(f"{name}-b"))
        for (key, name), each in zip(calls.items(), heard, strict=True)
    }
    return Outcomes(gateway, found)


def way_id(way: Way) -> str:
    """Name a way."""
    return f"{way[0]}-{'stream' if way[1] else 'whole'}"


@pytest.mark.parametrize("way", WAYS, ids=way_id)
@pytest.mark.parametrize("what", MENDED)
async def test_a_failure_before_the_first_word_is_mended_by_the_other_target(
    outcomes: Outcomes, what: str, way: Way
) -> None:
    """The answer is whole and all of it is the second target's, which the head names; each was asked once."""
    outcome = outcomes.of[f"mended: {what}", way]
    name, heard, at_first = outcome.name, outcome.heard, outcome.at_first
    assert heard.is_whole, heard.body
    assert heard.text == TEXT
    assert (heard.model, heard.attempts) == (f"{name}-b", "2")
    assert heard.models == (["gpt-b"])
    assert set(heard.ids) <= {"chatcmpl-b"}
    # What a kept connection ends before it answers may be sent again on a new one: that is HTTP's, and no try.
    was_repeated = (
        what in {"closes at once", "resets at once"} and at_first[0].connection is not at_first[-1].connection
    )
    assert len(at_first) == (0 if MENDED[what] is None else 1 + was_repeated)
    assert len(outcome.at_second) == 1


@pytest.mark.parametrize("way", WAYS, ids=way_id)
@pytest.mark.parametrize("what", PASSED_ON)
async def test_what_the_caller_has_to_know_is_passed_on(outcomes: Outcomes, what: str, way: Way) -> None:
    """A refusal of what was asked costs one call, is answered with the provider's words, and is not routed around."""
    outcome = outcomes.of[f"passed on: {what}", way]
    heard = outcome.heard
    _, expected, words = PASSED_ON[what]
    surface, _ = way
    assert heard.head.status == (expected if surface == "openai" or expected < 500 else 500)
    assert heard.code
    assert words in heard.message
    assert heard.attempts == "1"
    assert (len(outcome.at_first), len(outcome.at_second)) == (1, 0)


@pytest.mark.parametrize("way", WAYS, ids=way_id)
@pytest.mark.parametrize("what", EVENT_PASSED_ON)
async def test_a_refusal_inside_of_a_200_is_passed_on(outcomes: Outcomes, what: str, way: Way) -> None:
    """A provider that refuses content by an event says no more than one that does by a status."""
    outcome = outcomes.of[f"event: {what}", way]
    heard = outcome.heard
    assert heard.code
    assert "against our policy" in heard.message
    assert (len(outcome.at_first), len(outcome.at_second)) == (1, 0)


async def test_the_log_says_where_calls_went(outcomes: Outcomes) -> None:
    """A line tells the attempts and the target that was tried last."""
    lines = await outcomes.gateway.logged("call", len(outcomes.of))
    by_model = {line["model"]: line for line in lines}
    for (case, _), (name, _, _, _) in outcomes.of.items():
        attempts, letter = (2, "b") if case.startswith("mended") else (1, "a")
        line = by_model[name]
        assert (line["attempts"], line["target"]) == (attempts, f"{name}-{letter}/{name}-{letter}")
        assert line["outcome"] == ("completed" if case.startswith("mended") else "upstream_failed")
