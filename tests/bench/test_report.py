"""What a run says: medians, what is added to a direct call, tables and charts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from bench.charts import Bar, bar_chart
from bench.report import CALLS, METRICS, Spread, cell, rows, spread, table
from hypothesis import given
from hypothesis import strategies as st


def sample(number: int, part: str, peer: str, **values: float | str | None) -> dict[str, Any]:
    """Return a sample as a run holds it."""
    return {"round": number, "part": part, "peer": peer, "values": values}


def results(*samples: dict[str, Any]) -> dict[str, Any]:
    """Return a run of two peers."""
    return {"peers": {"direct": {"title": "Direct"}, "relay": {"title": "Relay"}}, "samples": list(samples)}


METRIC = {metric.name: metric for metric in METRICS}


def test_the_middle_is_shown_with_the_ends_beside_it() -> None:
    """Of three rounds the median counts, and the lowest and the highest are told."""
    run = results(
        *(sample(n, "calls_64", "relay", calls_per_second=v) for n, v in enumerate([30_000.0, 10_000.0, 20_000.0]))
    )
    assert spread(run, "relay", METRIC["calls_64"]) == Spread(20_000, 10_000, 30_000)
    assert cell(run, "relay", METRIC["calls_64"]) == "20 000 (10 000\N{EN DASH}30 000)"


def test_what_is_added_is_taken_within_each_round() -> None:
    """A round in which everything was slower counts against nobody."""
    quiet = [sample(0, "calls_1", "direct", latency_us_p50=50.0), sample(0, "calls_1", "relay", latency_us_p50=150.0)]
    noisy = [sample(1, "calls_1", "direct", latency_us_p50=350.0), sample(1, "calls_1", "relay", latency_us_p50=450.0)]
    run = results(*quiet, *noisy)
    assert spread(run, "relay", METRIC["added_p50"]) == Spread(0.1, 0.1, 0.1)
    assert spread(run, "direct", METRIC["added_p50"]) is None


def test_what_was_not_measured_says_why() -> None:
    """A number that is missing is never a zero."""
    run = results(sample(0, "open_5000", "relay", latency_us_p50=None, note="overloaded"))
    assert cell(run, "relay", METRIC["open_5000_p50"]) == "overloaded"
    assert cell(run, "relay", METRIC["open_500_p50"]) == "\N{EN DASH}"


def test_a_table_has_a_row_for_everyone() -> None:
    """Everyone has a row of as many cells as there are headings."""
    lines = table(rows(results(), CALLS)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["Direct", "Relay"]
    assert {line.count("|") for line in lines} == {len(CALLS) + 2}
    assert len({len(line) for line in lines}) == 1


spreads = st.tuples(*[st.floats(-10, 1e7)] * 3).map(lambda found: Spread(sorted(found)[1], min(found), max(found)))


@given(
    st.lists(st.builds(Bar, st.text("a<&é"), st.none() | spreads, st.booleans(), st.just("not measured")), max_size=9)
)
def test_a_chart_is_well_formed_and_within_its_frame(bars: list[Bar]) -> None:
    """Whatever the numbers and names, the SVG can be parsed, and no bar has a negative length or leaves the frame."""
    chart = ET.fromstring(bar_chart("Title & more", "less is better", bars))
    name = "{http://www.w3.org/2000/svg}"
    frame, *drawn = chart.findall(f"{name}rect")
    for bar in drawn:
        assert 0 <= float(bar.attrib["width"]) <= float(frame.attrib["width"]) - float(bar.attrib["x"])
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= float(frame.attrib["height"])
    assert len(drawn) == sum(bar.spread is not None for bar in bars)
