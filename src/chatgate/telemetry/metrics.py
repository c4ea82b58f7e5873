"""Metrics: plain numbers while calls run, rendered in Prometheus' text format when scraped.

Labels are bounded: a model's name is a label only when the configuration or the gateway itself names it.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from chatgate.vocabulary.exchange import Settled

BOUNDS_SECONDS = (0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the histograms' buckets."""

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

OTHER_MODEL = "other"
"""The label of every model that the configuration does not name."""


class _Histogram:
    __slots__ = ("counts", "total_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.total_seconds += seconds

    def add(self, other: _Histogram) -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total_seconds += other.total_seconds

    def buckets(self) -> list[tuple[str, float]]:
        rows: list[tuple[str, float]] = []
        seen = 0
        for bound, count in zip((*map(str, BOUNDS_SECONDS), "+Inf"), self.counts, strict=True):
            seen += count
            rows.append((bound, seen))
        return rows


class _Series:
    """What is added up over the calls that are alike in every label."""

    __slots__ = ("calls", "durations", "first_tokens", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.calls = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.durations = _Histogram()
        self.first_tokens = _Histogram()


class Metrics(Collector):
    """Counts calls as they end; `gauges` are read when scraped."""

    def __init__(self, known_models: Iterable[str], gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`gauges` maps a name without the `chatgate_` prefix to its help text and its reading."""
        self._known_models = frozenset((*known_models, ""))
        self._gauges = gauges
        self._series: dict[tuple[str, str, str, str, str], _Series] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def call(self, settled: Settled) -> None:
        """Count the end of a call."""
        model = settled.asked_model
        if model not in self._known_models:
            model = OTHER_MODEL
        labels = (settled.operation, settled.surface, model, settled.outcome, settled.code or str(settled.status))
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series()
        series.calls += 1
        series.durations.observe(settled.duration_seconds)
        if settled.first_token_seconds is not None:
            series.first_tokens.observe(settled.first_token_seconds)
        if settled.usage is not None:
            series.input_tokens += settled.usage.input_tokens
            series.output_tokens += settled.usage.output_tokens

    def render(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the families; called by `render`."""
        calls = CounterMetricFamily(
            "chatgate_calls", "Calls by how they ended.", labels=["operation", "surface", "model", "outcome", "code"]
        )
        tokens: dict[tuple[str, str], int] = {}
        durations: dict[tuple[str, ...], _Histogram] = {}
        first_tokens: dict[tuple[str, ...], _Histogram] = {}
        for labels, series in self._series.items():
            operation, _, model, _, _ = labels
            calls.add_metric(labels, series.calls)
            for direction, count in (("input", series.input_tokens), ("output", series.output_tokens)):
                tokens[model, direction] = tokens.get((model, direction), 0) + count
            durations.setdefault((operation, model), _Histogram()).add(series.durations)
            first_tokens.setdefault((model,), _Histogram()).add(series.first_tokens)
        yield calls
        counted = CounterMetricFamily(
            "chatgate_tokens", "Tokens as the providers counted them.", labels=["model", "direction"]
        )
        for token_labels, count in tokens.items():
            if count:
                counted.add_metric(token_labels, count)
        yield counted
        yield _family(
            "chatgate_call_duration_seconds", "Time from a call's head to its end.", ["operation", "model"], durations
        )
        yield _family(
            "chatgate_first_token_seconds",
            "Time from a call's head to its first streamed words.",
            ["model"],
            first_tokens,
        )
        for name, (text, read) in self._gauges.items():
            gauge = GaugeMetricFamily(f"chatgate_{name}", text)
            gauge.add_metric([], read())
            yield gauge


def _family(
    name: str, text: str, labels: list[str], histograms: Mapping[tuple[str, ...], _Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in histograms.items():
        if any(histogram.counts):
            family.add_metric(values, histogram.buckets(), histogram.total_seconds)
    return family
