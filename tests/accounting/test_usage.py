"""Usage: the best source there is, and no number that cannot be a count."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.accounting.usage import (
    Meter,
    Reported,
    Source,
    Usage,
    final_usage,
    most_input_tokens,
    most_output_tokens,
    read_usage,
)
from chatgate.vocabulary import chat
from chatgate.vocabulary.chat import MAX_TOKENS

OPENAI = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 40},
    "completion_tokens_details": {
        "reasoning_tokens": 128,
        "audio_tokens": 16,
        "accepted_prediction_tokens": 3,
        "rejected_prediction_tokens": 0,
    },
}


def written(usage: Any) -> bytes:
    """Return it as a provider would send it."""
    return json.dumps(usage).encode()


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (OPENAI, Reported(2006, 300, 1920, 0, 128, 40, 16)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Reported(0, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": None}, Reported(7, 5)),
        ({"prompt_tokens": 7.0, "completion_tokens": 5}, Reported(7, 5)),
        ({"prompt_tokens": 7}, Reported(7, None)),
        # DeepSeek.
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 1},
            Reported(9, 1, 8),
        ),
        # Moonshot.
        ({"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 4}, Reported(9, 1, 4)),
        # xAI: reasoning beside the completion, as the total shows.
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Reported(32, 103, reasoning_tokens=94),
        ),
        (None, None),
        ({}, None),
        ({"queue_time": 0.2}, None),
    ],
)
def test_what_providers_say_is_understood(usage: Any, expected: Reported | None) -> None:
    """Usage objects of the dialects give the same numbers, explicit zeros included, and no flaw."""
    assert read_usage(written(usage)) == (expected, ())


@pytest.mark.parametrize(
    ("usage", "expected", "flaws"),
    [
        ({"prompt_tokens": -1, "completion_tokens": 5}, Reported(None, 5), ("prompt_tokens:negative",)),
        ({"prompt_tokens": 1, "completion_tokens": 2**63}, Reported(1, None), ("completion_tokens:too_large",)),
        ({"prompt_tokens": MAX_TOKENS + 1}, None, ("prompt_tokens:too_large",)),
        ({"prompt_tokens": "12", "completion_tokens": 5}, Reported(None, 5), ("prompt_tokens:unreadable",)),
        ({"prompt_tokens": 1.5, "completion_tokens": 5}, Reported(None, 5), ("prompt_tokens:unreadable",)),
        ({"prompt_tokens": True, "completion_tokens": 5}, Reported(None, 5), ("prompt_tokens:unreadable",)),
        (
            {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
            Reported(3, 5),
            ("cached_input_tokens:part_exceeds_whole",),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 5},
            },
            Reported(9, 5),
            ("cached_input_tokens:part_exceeds_whole",),
        ),
        (
            {"prompt_tokens": 3, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": -4}},
            Reported(3, 5),
            ("reasoning_tokens:negative",),
        ),
        ("many", None, ("usage:unreadable",)),
        ([1, 2], None, ("usage:unreadable",)),
    ],
)
def test_numbers_that_cannot_be_are_refused_and_told(usage: Any, expected: Reported | None, flaws: Any) -> None:
    """A bad number is dropped alone: its neighbours are kept, and what was wrong is named."""
    assert read_usage(written(usage)) == (expected, flaws)


@pytest.mark.parametrize("raw", [b"", b"{", b'{"prompt_tokens": 1e999}', b"NaN", b"\xff", b"[" * 5000])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    """Garbage is a flaw and never an exception."""
    assert read_usage(raw) == (None, ("usage:unreadable",))


COUNTS = st.one_of(st.none(), st.integers(-5, 50), st.integers(), st.floats(), st.booleans(), st.text(max_size=3))
DETAILS = st.one_of(
    COUNTS,
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(["cached_tokens", "audio_tokens", "cache_write_tokens", "reasoning_tokens"], COUNTS),
    ),
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "prompt_cache_hit_tokens"], COUNTS
        ),
        **dict.fromkeys(["prompt_tokens_details", "completion_tokens_details"], DETAILS),
    },
)


def check(usage: Usage | Reported) -> None:
    """Assert what every usage keeps."""
    sent, got = usage.input_tokens or 0, usage.output_tokens or 0
    assert 0 <= sent <= MAX_TOKENS
    assert 0 <= got <= 2 * MAX_TOKENS
    assert min(usage.cached_input_tokens, usage.cache_write_tokens, usage.audio_input_tokens) >= 0
    assert min(usage.reasoning_tokens, usage.audio_output_tokens) >= 0
    assert usage.cached_input_tokens + usage.cache_write_tokens <= sent
    assert usage.audio_input_tokens + usage.cache_write_tokens <= sent
    assert usage.reasoning_tokens + usage.audio_output_tokens <= got


@given(OBJECTS)
def test_parts_always_fit_their_sums(usage: dict[str, Any]) -> None:
    """Whatever a provider says, nothing is negative and no part is more than its whole."""
    reported, _ = read_usage(written(usage))
    if reported is not None:
        check(reported)


PLAUSIBLE = st.integers(0, 20)
PARTS = ["cached_tokens", "audio_tokens", "cache_write_tokens", "reasoning_tokens"]


@given(
    st.fixed_dictionaries(
        {"prompt_tokens": PLAUSIBLE, "completion_tokens": PLAUSIBLE},
        optional={
            **dict.fromkeys(["total_tokens", "cached_tokens", "prompt_cache_hit_tokens"], PLAUSIBLE | st.none()),
            **dict.fromkeys(
                ["prompt_tokens_details", "completion_tokens_details"],
                st.none() | st.fixed_dictionaries({}, optional=dict.fromkeys(PARTS, PLAUSIBLE | st.none())),
            ),
        },
    )
)
@example(OPENAI)
@example({**OPENAI, "total_tokens": 2006 + 300 + 128})
def test_what_was_read_before_is_understood_as_what_was_not(usage: dict[str, Any]) -> None:
    """A usage object gives the same tokens and flaws whether it comes as JSON or as what an answer's reader made."""
    read = msgspec.json.decode(written(usage), type=chat.Usage)
    reported, flaws = read_usage(written(usage))
    assert reported is not None
    assert read_usage(read) == (reported, flaws)
    assert final_usage(read) == final_usage(written(usage)) == (reported.usage(), flaws)


def test_the_flaws_of_what_was_read_are_told() -> None:
    """Where only the sums were counts, the rest is looked at as it came."""
    raw = written({**OPENAI, "total_tokens": -1, "prompt_tokens_details": 5, "completion_tokens_details": None})
    assert final_usage(chat.OddUsage(2006, 300, raw=raw)) == (Usage(2006, 300), ("total_tokens:negative",))


@given(st.lists(st.tuples(OBJECTS, st.booleans()), max_size=3), st.integers(0, 10**7), st.integers(0, 10**7))
def test_there_is_always_a_usage(told: list[tuple[dict[str, Any], bool]], sent: int, got: int) -> None:
    """Whatever was said and however often, a call ends with numbers that fit together."""
    meter = Meter()
    for usage, final in told:
        meter.take(written(usage), final=final)
    check(meter.usage(sent, got))


def meter_of(*told: tuple[dict[str, Any], bool]) -> Meter:
    """Return a meter that was told this."""
    meter = Meter()
    for usage, final in told:
        meter.take(written(usage), final=final)
    return meter


FINAL = ({"prompt_tokens": 10, "completion_tokens": 20}, True)
PARTIAL = ({"prompt_tokens": 10, "completion_tokens": 7}, False)


def test_the_final_numbers_go_before_everything() -> None:
    """What the provider says at the end counts, whatever it said before and whoever counted."""
    meter = meter_of(PARTIAL, FINAL)
    assert meter.usage(400, 400, counted_input_tokens=1, counted_output_tokens=99) == Usage(10, 20)


def test_the_last_of_the_running_totals_counts() -> None:
    """A broken answer is charged by the last numbers it carried."""
    meter = meter_of(({"prompt_tokens": 10, "completion_tokens": 3}, False), PARTIAL)
    assert meter.usage(400, 400) == Usage(10, 7, source=Source.PARTIAL)


def test_what_came_after_the_last_total_is_counted() -> None:
    """Numbers told on the way are a lower bound: of an answer that ran on, what was produced is charged."""
    usage = meter_of(PARTIAL).usage(400, 400, counted_output_tokens=31)
    assert usage == Usage(10, 31, source=Source.COUNTED)
    assert meter_of(PARTIAL).usage(400, 400, counted_output_tokens=5).output_tokens == 7


def test_a_count_goes_before_an_estimate() -> None:
    """Without a word of the provider, what was counted is charged."""
    usage = Meter().usage(400, 400, counted_input_tokens=90, counted_output_tokens=80)
    assert usage == Usage(90, 80, source=Source.COUNTED)


def test_bytes_are_the_last_resort() -> None:
    """Four bytes are a token, a part of them as well, and nothing is nothing."""
    assert Meter().usage(401, 0) == Usage(101, 0, source=Source.ESTIMATED)


def test_the_source_is_that_of_the_less_certain_sum() -> None:
    """A provider that only counts the prompt leaves the rest to others, and the row says so."""
    usage = meter_of(({"prompt_tokens": 12, "prompt_tokens_details": {"cached_tokens": 8}}, True)).usage(400, 44)
    assert usage == Usage(12, 11, 8, source=Source.ESTIMATED)


def test_flaws_are_kept_once() -> None:
    """Every chunk of a stream may carry the same nonsense."""
    meter = meter_of(*[({"prompt_tokens": -1, "completion_tokens": 1}, False)] * 3)
    assert meter.flaws == ("prompt_tokens:negative",)


def test_the_bounds_of_a_call() -> None:
    """A byte is at most a token; an answer is as long as was asked for, or as the model can get, for every choice."""
    assert most_input_tokens(1000) == 1000
    assert most_output_tokens(100, 400_000, choices=3) == 300
    assert most_output_tokens(None, 400_000) == 400_000
    assert most_output_tokens(None, None) > 100_000
