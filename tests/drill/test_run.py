"""The drill as a whole: a good gateway passes, each vice is seen, and our own gateway copes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from msgspec import structs

from chatgate.drill.catalogue import CATALOGUE, parts
from chatgate.drill.course import Course, courses
from chatgate.drill.judge import Verdict
from chatgate.drill.run import Result, StartGateway, drill, every_course, play, real_gateway, turn
from chatgate.drill.scenarios import Part
from chatgate.drill.timing import Timing, full, short
from chatgate.settings import Settings
from chatgate.vocabulary.stores import RedisAddress
from chatgate.vocabulary.upstreams import Timeouts
from drill.conftest import TWO_UPSTREAMS, settings_of
from drill.small_gateway import Start

ALL = tuple(parts())
QUICK = structs.replace(
    short(Timeouts(), 1.0), timeouts=Timeouts(2.0, 1.5, 1.5, 12.0), slow_seconds=4.0, stall_seconds=4.0
)


def course_of(settings: Settings) -> Course:
    """Return the course of the first model."""
    return courses(settings, "unused")[0]


def part(name: str, *, stream: bool = True) -> Part:
    """Return a scenario by its name."""
    return next(each for each in ALL if each.scenario.name == name and each.stream is stream)


async def drilled(settings: Settings, start: StartGateway, timing: Timing = QUICK) -> list[Result]:
    """Drill the first model with all scenarios.

    What did not pass is played once more: a busy machine may be late, a gateway that errs does so twice.
    """
    course = course_of(settings)
    (model,) = await drill(settings, timing, [course], ALL, lambda _course, _result: None, start_gateway=start)
    return [
        result if result.verdict is Verdict.PASS else await play(settings, timing, course, result.part, start)
        for result in model.results
    ]


def told(results: list[Result], *verdicts: Verdict) -> list[tuple[str, str]]:
    """Return what went in one of these ways, and why."""
    return [(result.part.name, result.why) for result in results if result.verdict in verdicts]


def test_the_catalogue_is_complete() -> None:
    """All sixteen public scenarios are there, as streams, and no name is given twice."""
    public = [each.public for each in ALL if each.public]
    assert public == [f"S{number:02}" for number in range(1, 17)]
    assert max(Counter(each.name for each in ALL).values()) == 1
    assert all(scenario.streams or scenario.wholes for scenario in CATALOGUE)


async def test_a_good_gateway_passes(two_upstreams: Settings) -> None:
    """Whoever does everything right has nothing to fear."""
    results = await drilled(two_upstreams, Start(course_of(two_upstreams)))
    assert told(results, Verdict.FAIL, Verdict.PARTIAL, Verdict.SAFE) == []


async def test_a_good_gateway_with_nowhere_to_go_is_safe(one_upstream: Settings) -> None:
    """Honest errors are no failures where no answer can be had; what can be had is still asked for."""
    results = await drilled(one_upstream, Start(course_of(one_upstream)))
    assert told(results, Verdict.FAIL, Verdict.PARTIAL) == []
    safe = {name for name, _ in told(results, Verdict.SAFE)}
    assert {"overloaded, stream", "stream cut, stream", "context too long, whole"} <= safe
    passed = {name for name, _ in told(results, Verdict.PASS)}
    assert {"one server error, stream", "bad request, whole", "everything down, stream"} <= passed


VICES = [
    ("lies", "stream cut", "40 words, not 60"),
    ("lies", "ends too soon", "20 words, not 60"),
    ("stammers", "all is well", "61 words, not 60"),
    ("leaks", "caller leaves early", "still open"),
    ("insists", "content refused", "3 times in all"),
    ("detours", "content refused", "routed around"),
    ("gives_up", "overloaded", "although backup/llama was well"),
    ("gives_up", "stream cut", "although backup/llama was well"),
    ("misnames", "who answered", "the answer names gpt, not llama"),
]


@pytest.mark.parametrize(("vice", "name", "why"), VICES, ids=[f"{vice}, {name}" for vice, name, _ in VICES])
async def test_a_vice_is_seen(two_upstreams: Settings, vice: str, name: str, why: str) -> None:
    """A lie, a leak, a call too many and an answer that was not rescued fail, and the reason says which."""
    course = course_of(two_upstreams)
    result = await play(two_upstreams, QUICK, course, part(name), Start(course, vice))
    assert result.verdict is Verdict.FAIL
    assert why in result.why


async def test_a_key_that_is_told_is_seen(one_upstream: Settings) -> None:
    """Nobody may be shown what an upstream said of our key."""
    course = course_of(one_upstream)
    result = await play(one_upstream, QUICK, course, part("key refused"), Start(course, "gossips"))
    assert (result.verdict, result.why) == (Verdict.FAIL, "the caller was shown a provider's key")


async def test_a_wait_that_is_not_kept_is_remarked(two_upstreams: Settings) -> None:
    """Who calls again at once served the caller, but not well."""
    course = course_of(two_upstreams)
    result = await play(two_upstreams, QUICK, course, part("rate limit with a wait"), Start(course, "hurries"))
    assert result.verdict is Verdict.PARTIAL
    assert "not 1 s" in result.why


@pytest.mark.parametrize(("vices", "verdict"), [((), Verdict.PASS), (("forgets",), Verdict.FAIL)])
async def test_who_comes_back_must_be_used_again(
    two_upstreams: Settings, vices: tuple[str, ...], verdict: Verdict
) -> None:
    """In the full drill an outage ends, and the place that was out has to serve again."""
    timing = structs.replace(
        full(QUICK.timeouts, 1.0), word_seconds=0.0, outage_seconds=0.5, outage_calls=6, outage_pause_seconds=0.2
    )
    course = course_of(two_upstreams)
    result = await play(two_upstreams, timing, course, part("outage and return"), Start(course, *vices))
    assert result.verdict is verdict, result.why


async def test_every_model_is_drilled_in_turn(two_upstreams: Settings) -> None:
    """Models come in the order of the file, and each result is reported once."""
    reported: list[tuple[str, str]] = []

    def report(course: Course, result: Result) -> None:
        reported.append((course.asked_model, result.part.name))

    chosen = [part("all is well"), part("all is well", stream=False)]
    models = await drill(two_upstreams, QUICK, every_course(two_upstreams), chosen, report)
    assert [model.course.asked_model for model in models] == ["gpt", "llama"]
    assert reported == [(model, each.name) for model in ("gpt", "llama") for each in chosen]
    assert told([*models[0].results, *models[1].results], Verdict.FAIL) == []


def test_nothing_leads_outside(tmp_path: Path) -> None:
    """Every upstream is turned to this machine, with keys of ours in the number of the operator's, and no proxy.

    What it calls is no call of the operator's: it is in nobody's ledger, and counts nowhere.
    """
    proxied = TWO_UPSTREAMS.replace(
        'api_key = "sk-test-backup"', 'api_key = "sk-test-backup"\nproxy = "http://10.0.0.1:1"'
    )
    limits = '[access]\nallow = ["192.0.2.1"]\n[[limits]]\nscope = "address"\nresource = "requests"\namount = 1\n'
    settings = structs.replace(
        settings_of(f'{limits}per = "day"\n{proxied}', tmp_path),
        database_url="postgresql://db.example/ledger",
        redis=RedisAddress("redis.example", 6379),
    )
    turned = turn(settings, QUICK, {"main": 1001, "backup": 1002})
    assert [repr(upstream.origin) for upstream in turned.upstreams] == [
        "http://127.0.0.1:1001",
        "http://127.0.0.1:1002",
    ]
    assert {upstream.origin.proxy for upstream in turned.upstreams} == {None}
    assert [len(upstream.api_keys) for upstream in turned.upstreams] == [2, 1]
    assert not any("sk-test" in key for upstream in turned.upstreams for key in upstream.api_keys)
    assert (turned.access.allow, turned.limits, turned.server.port) == ((), (), 0)
    assert (turned.database_url, turned.redis) == (None, None)
    assert turned.models == settings.models
    assert {key for upstream in turned.upstreams for key in upstream.api_keys} <= turned.secrets()


async def test_our_gateway_copes(two_upstreams: Settings) -> None:
    """With a fallback at another upstream every scenario ends as it has to."""
    results = await drilled(two_upstreams, real_gateway)
    assert told(results, Verdict.FAIL, Verdict.PARTIAL, Verdict.SAFE) == []


async def test_our_gateway_passes_all_public_scenarios(tmp_path: Path) -> None:
    """With the benchmark's own set-up, one key, one fallback and two retries, nothing is left to remark."""
    benchmark = TWO_UPSTREAMS.replace('api_keys = ["sk-test-main-1", "sk-test-main-2"]', 'api_key = "sk-test-main"')
    settings = settings_of(benchmark, tmp_path)
    public = [each for each in ALL if each.public]
    (model,) = await drill(settings, QUICK, [course_of(settings)], public, lambda _course, _result: None)
    assert [(each.part.public, each.why) for each in model.results if each.verdict is not Verdict.PASS] == []


async def test_our_gateway_is_honest_with_nowhere_to_go(one_upstream: Settings) -> None:
    """With one upstream alone nothing fails; what cannot be answered is an error that says so."""
    results = await drilled(one_upstream, real_gateway)
    assert told(results, Verdict.FAIL, Verdict.PARTIAL) == []


async def test_a_gateway_told_not_to_rescue_is_seen(two_upstreams: Settings) -> None:
    """Whoever configures no rescue learns what it costs, and what would change it."""
    careless = structs.replace(
        two_upstreams, retry=structs.replace(two_upstreams.retry, max_retries=0, recovery="error")
    )
    result = await play(careless, QUICK, course_of(careless), part("stream cut"))
    assert (result.verdict, result.advice) == (Verdict.FAIL, 'recovery = "resume"')
