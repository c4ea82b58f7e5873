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

    def buckets(self) -> list[tuple[str, float]]:
        rows: list[tuple[str, float]] = []
        seen = 0
        for bound, count in zip((*map(str, BOUNDS_SECONDS), "+Inf"), self.counts, strict=True):
            seen += count
            rows.append((bound, seen))
        return rows


class Metrics(Collector):
    """Counts calls as they end; `gauges` are read when scraped."""

    def __init__(self, known_models: Iterable[str], gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`gauges` maps a name without the `chatgate_` prefix to its help text and its reading."""
        self._known_models = frozenset(known_models)
        self._gauges = gauges
        self._calls: dict[tuple[str, str, str, str, str], int] = {}
        self._tokens: dict[tuple[str, str], int] = {}
        self._durations: dict[tuple[str, str], _Histogram] = {}
        self._first_tokens: dict[str, _Histogram] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def call(self, settled: Settled) -> None:
        """Count the end of a call."""
        model = settled.asked_model if settled.asked_model in self._known_models else OTHER_MODEL
        key = (settled.operation, settled.surface, model, settled.outcome.value, settled.code or str(settled.status))
        self._calls[key] = self._calls.get(key, 0) + 1
        duration = self._durations.get((settled.operation, model))
        if duration is None:
            duration = self._durations[settled.operation, model] = _Histogram()
        duration.observe(settled.duration_seconds)
        if settled.first_token_seconds is not None:
            first = self._first_tokens.get(model)
            if first is None:
                first = self._first_tokens[model] = _Histogram()
            first.observe(settled.first_token_seconds)
        if settled.usage is not None:
            for direction, count in (
                ("input", settled.usage.input_tokens),
                ("output", settled.usage.output_tokens),
            ):
                self._tokens[model, direction] = self._tokens.get((model, direction), 0) + count

    def render(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the families; called by `render`."""
        calls = CounterMetricFamily(
            "chatgate_calls", "Calls by how they ended.", labels=["operation", "surface", "model", "outcome", "code"]
        )
        for labels, count in self._calls.items():
            calls.add_metric(labels, count)
        yield calls
        tokens = CounterMetricFamily(
            "chatgate_tokens", "Tokens as the providers counted them.", labels=["model", "direction"]
        )
        for token_labels, count in self._tokens.items():
            tokens.add_metric(token_labels, count)
        yield tokens
        durations = HistogramMetricFamily(
            "chatgate_call_duration_seconds", "Time from a call's head to its end.", labels=["operation", "model"]
        )
        for duration_labels, histogram in self._durations.items():
            durations.add_metric(duration_labels, histogram.buckets(), histogram.total_seconds)
        yield durations
        first_tokens = HistogramMetricFamily(
            "chatgate_first_token_seconds", "Time from a call's head to its first streamed words.", labels=["model"]
        )
        for model, histogram in self._first_tokens.items():
            first_tokens.add_metric([model], histogram.buckets(), histogram.total_seconds)
        yield first_tokens
        for name, (text, read) in self._gauges.items():
            gauge = GaugeMetricFamily(f"chatgate_{name}", text)
            gauge.add_metric([], read())
            yield gauge
