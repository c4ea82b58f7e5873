"""How long everything takes in a drill: in a minute at most, or as the operator configured it. Called by `run`."""

from __future__ import annotations

from typing import Final

from msgspec import Struct, structs

from chatgate.vocabulary.upstreams import Timeouts

_SHORT: Final = Timeouts(connect_seconds=2.0, first_token_seconds=2.0, idle_seconds=2.0, total_seconds=20.0)
_SHORT_DRAIN_SECONDS: Final = 1.0


class Timing(Struct, frozen=True):
    """The gateway's timeouts, and the provider's pace; all in seconds, but for `outage_calls`.

    `slow_seconds` pass before a slow first word, `stall_seconds` before a silent stream is closed; both are beyond the
    gateway's patience. An outage lasts `outage_seconds`, while `outage_calls` are made, one every
    `outage_pause_seconds`. `is_full` says that it lasts long enough to see the return from an outage.
    """

    timeouts: Timeouts
    word_seconds: float
    retry_after_seconds: int
    slow_seconds: float
    stall_seconds: float
    outage_seconds: float
    outage_calls: int
    outage_pause_seconds: float
    drain_seconds: float
    is_full: bool


def short(timeouts: Timeouts, drain_seconds: float) -> Timing:
    """Return a pace at which all scenarios fit into a minute; what was configured shorter stays so."""
    shortened = {name: min(seconds, getattr(timeouts, name)) for name, seconds in structs.asdict(_SHORT).items()}
    return Timing(
        timeouts=Timeouts(**shortened),
        word_seconds=0.001,
        retry_after_seconds=1,
        slow_seconds=5.0,
        stall_seconds=5.0,
        outage_seconds=3600.0,
        outage_calls=8,
        outage_pause_seconds=0.1,
        drain_seconds=min(drain_seconds, _SHORT_DRAIN_SECONDS),
        is_full=False,
    )


def full(timeouts: Timeouts, drain_seconds: float) -> Timing:
    """Return the pace of the public benchmark, with the configured timeouts; slow is at least twice as slow as these.

    Source of the figures: the profile `full` of https://github.com/failoverbench/failoverbench (read 2026-11-23).
    """
    return Timing(
        timeouts=timeouts,
        word_seconds=0.015,
        retry_after_seconds=2,
        slow_seconds=max(20.0, 2 * timeouts.first_token_seconds),
        stall_seconds=max(30.0, 2 * timeouts.idle_seconds),
        outage_seconds=60.0,
        outage_calls=20,
        outage_pause_seconds=4.0,
        drain_seconds=drain_seconds,
        is_full=True,
    )
