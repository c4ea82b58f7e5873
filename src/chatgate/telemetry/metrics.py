"""Metrics: plain numbers, added up over many calls at once, rendered in Prometheus' text format when scraped.

Labels are bounded: a model's name is a label only when the configuration or the gateway itself names it, and a key's
id only while there are few.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from functools import partial
from itertools import accumulate, groupby, repeat
from operator import attrgetter, truediv
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from chatgate.vocabulary.upstreams import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from chatgate.telemetry.shared import Cells, Labels, Share
    from chatgate.vocabulary.exchange import Settled

BOUNDS_SECONDS = (0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the histograms' buckets."""

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

OTHER_MODEL = "other"
"""The label of every model that the configuration does not name."""


MAX_KEYS = 200
"""So many of the gateway's keys have labels of their own in one process, those that are used first."""

OTHER_KEY = "other"

TARGET_STATES = ("closed", "open", "half_open", "key_refused")
"""The states of a target; the first three are those of its circuit."""


class Circuit(Protocol):
    """How a target is doing."""

    @property
    def state(self) -> str:
        """Return one of the first three of `TARGET_STATES`."""


class Credential(Protocol):
    """How a key is doing."""

    is_refused: bool


class UpstreamCalls(Protocol):
    """The calls under way at an upstream."""

    name: str
    in_flight: int


Standing = tuple[Target, Circuit, Credential, UpstreamCalls]
"""A target and how it is doing."""

# A series is a row of cells, one for each thing that is added up over the calls that are alike in every label. It may
# lie in memory that other processes see too, which holds nothing but numbers.
_BUCKETS = len(BOUNDS_SECONDS) + 1
_CALLS, _INPUT_TOKENS, _OUTPUT_TOKENS = 0, 1, 2
_DURATIONS = 3
_DURATION_SECONDS = _DURATIONS + _BUCKETS
_FIRST_TOKENS = _DURATION_SECONDS + 1
_FIRST_TOKEN_SECONDS = _FIRST_TOKENS + _BUCKETS
_RETRIES = _FIRST_TOKEN_SECONDS + 1
_WIDTH = _RETRIES + 1
_MS = 1000.0
_bucket_of = partial(bisect_left, BOUNDS_SECONDS)

_LABELS = ("operation", "surface", "model", "outcome", "code", "status", "stream")
_labels_of, _labels_but_key_of, _key_of = attrgetter(*_LABELS, "key"), attrgetter(*_LABELS), attrgetter("key")
_input_tokens_of, _output_tokens_of = attrgetter("input_tokens"), attrgetter("output_tokens")
_duration_ms_of, _first_token_ms_of = attrgetter("duration_ms"), attrgetter("first_token_ms")
_attempts_of, _cost_usd_of = attrgetter("attempts"), attrgetter("cost_usd")

# A call with one of the gateway's keys counts in a row of that key and model too.
_COST_USD = 3
_KEY_WIDTH = 4
_KEY_LABELS = 2


class Metrics(Collector):
    """Counts calls that have ended; `gauges` are read when scraped."""

    def __init__(
        self,
        gauges: Mapping[str, tuple[str, Callable[[], float]]],
        share: Share | None = None,
    ) -> None:
        """`gauges` maps a name without the `chatgate_` prefix to its help text and its reading.

        With a share, this process is one of several workers, and each of them tells the sums over all.
        """
        self._known_models = frozenset(("",))
        self._targets: Callable[[], Iterable[Standing]] = tuple
        self._gauges = gauges
        self._share = share
        self._series: dict[Labels, Cells] = {} if share is None else dict(share.series())
        self._keys = {labels[0] for labels in self._series if len(labels) == _KEY_LABELS}
        self.catch_up: Callable[[], object] = _nobody
        """What is called before the numbers are told, so that they count every call that has ended."""
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def know(self, models: Iterable[str], targets: Callable[[], Iterable[Standing]]) -> None:
        """Take the models that are labels of their own, and where to read how the targets are doing."""
        self.catch_up()
        self._known_models = frozenset((*models, ""))
        self._targets = targets

    def count(self, calls: Iterable[Settled]) -> None:
        """Count calls that have ended: those that are alike together, so that each costs next to nothing."""
        for labels, alike in groupby(sorted(calls, key=_labels_of), _labels_but_key_of):
            self._count_alike(labels, list(alike))

    def _count_alike(self, labels: tuple[Any, ...], calls: Sequence[Settled]) -> None:
        operation, surface, model, outcome, code, status, is_stream = labels
        if model not in self._known_models:
            model = OTHER_MODEL
        # What is done here for every call is done in C.
        attempts = list(filter(None, map(_attempts_of, calls)))
        cells = self._cells_of((operation, surface, model, outcome, code or str(status)), _WIDTH)
        _add_used(cells, calls)
        cells[_RETRIES] += sum(attempts) - len(attempts)
        _observe(cells, _DURATIONS, map(_duration_ms_of, calls))
        if is_stream:
            _observe(cells, _FIRST_TOKENS, [each for each in map(_first_token_ms_of, calls) if each is not None])
        for key, of_key in groupby(calls, _key_of):
            if key:
                shown = list(of_key)
                cells = self._cells_of((self._label_of_key(key), model), _KEY_WIDTH)
                _add_used(cells, shown)
                cells[_COST_USD] += sum(map(float, filter(None, map(_cost_usd_of, shown))))

    def _label_of_key(self, key: str) -> str:
        if key not in self._keys:
            if len(self._keys) >= MAX_KEYS:
                return OTHER_KEY
            self._keys.add(key)
        return key

    def _cells_of(self, labels: Labels, width: int) -> Cells:
        cells = self._series.get(labels)
        if cells is None:
            cells = self._series[labels] = [0] * width if self._share is None else self._share.open(labels, width)
        return cells

    def publish(self) -> None:
        """Let the other workers know what the gauges of this one read; they see that of the last time."""
        if self._share is not None:
            self._share.publish([read() for _, read in self._gauges.values()])

    def render(self) -> bytes:
        """Return all metrics in the text format."""
        self.catch_up()
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the families; called by `render`."""
        calls = CounterMetricFamily(
            "chatgate_calls", "Calls by how they ended.", labels=["operation", "surface", "model", "outcome", "code"]
        )
        tokens: dict[tuple[str, str], float] = {}
        further: dict[str, float] = {}
        durations: dict[Labels, list[float]] = {}
        first_tokens: dict[Labels, list[float]] = {}
        added_up = self._added_up()
        for labels, cells in added_up.items():
            if len(labels) == _KEY_LABELS:
                continue
            operation, _, model, _, _ = labels
            calls.add_metric(labels, cells[_CALLS])
            for direction, count in (("input", cells[_INPUT_TOKENS]), ("output", cells[_OUTPUT_TOKENS])):
                tokens[model, direction] = tokens.get((model, direction), 0) + count
            _add(durations, (operation, model), cells[_DURATIONS : _DURATION_SECONDS + 1])
            _add(first_tokens, (model,), cells[_FIRST_TOKENS : _FIRST_TOKEN_SECONDS + 1])
            further[model] = further.get(model, 0) + cells[_RETRIES]
        yield calls
        attempts = CounterMetricFamily(
            "chatgate_further_attempts", "Requests sent upstream beyond the first of a call.", labels=["model"]
        )
        for model, count in further.items():
            if count:
                attempts.add_metric([model], count)
        yield attempts
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
        yield from _of_keys({labels: cells for labels, cells in added_up.items() if len(labels) == _KEY_LABELS})
        yield from self._states()
        for (name, (text, _)), reading in zip(self._gauges.items(), self._readings(), strict=True):
            gauge = GaugeMetricFamily(f"chatgate_{name}", text)
            gauge.add_metric([], reading)
            yield gauge

    def _states(self) -> Iterable[Metric]:
        """Yield how the targets are doing, as this process sees them."""
        states = GaugeMetricFamily(
            "chatgate_target_state",
            "1 for the state a target is in: closed (it is called), open (it is left alone), half_open, key_refused.",
            labels=["target", "state"],
        )
        in_flight: dict[str, int] = {}
        for target, circuit, credential, upstream in self._targets():
            state = "key_refused" if credential.is_refused else circuit.state
            for each in TARGET_STATES:
                states.add_metric([target.name, each], float(each == state))
            in_flight[upstream.name] = upstream.in_flight
        yield states
        calls = GaugeMetricFamily(
            "chatgate_upstream_calls_in_flight", "Calls under way at an upstream.", labels=["upstream"]
        )
        for name, count in in_flight.items():
            calls.add_metric([name], count)
        yield calls

    def _added_up(self) -> Mapping[Labels, Sequence[float]]:
        """Return the cells of each series, added up over all workers."""
        if self._share is None:
            return self._series
        sums: dict[Labels, list[float]] = {}
        for labels, cells in self._share.everyones_series():
            _add(sums, labels, cells)
        return sums

    def _readings(self) -> Sequence[float]:
        """Return what the gauges read, added up over all workers, in their order."""
        if self._share is None:
            return [read() for _, read in self._gauges.values()]
        self.publish()
        return self._share.everyones_gauges(len(self._gauges))


def _nobody() -> None:
    """Catch up with nobody."""


def _add_used(cells: Cells, calls: Sequence[Settled]) -> None:
    """Add calls and their tokens to the first three cells of a row."""
    cells[_CALLS] += len(calls)
    cells[_INPUT_TOKENS] += sum(filter(None, map(_input_tokens_of, calls)))
    cells[_OUTPUT_TOKENS] += sum(filter(None, map(_output_tokens_of, calls)))


def _observe(cells: Cells, start: int, times_ms: Iterable[float]) -> None:
    """Add times to a histogram, which is a row of buckets and the sum of the seconds."""
    seconds = list(map(truediv, times_ms, repeat(_MS)))
    for bucket, count in Counter(map(_bucket_of, seconds)).items():
        cells[start + bucket] += count
    cells[start + _BUCKETS] += sum(seconds)


def _of_keys(series: Mapping[Labels, Sequence[float]]) -> Iterable[Metric]:
    """Yield what was asked for with each of the gateway's keys."""
    calls = CounterMetricFamily("chatgate_key_calls", "Calls with a key of the gateway.", labels=["key", "model"])
    tokens = CounterMetricFamily("chatgate_key_tokens", "Tokens of such calls.", labels=["key", "model", "direction"])
    cost = CounterMetricFamily("chatgate_key_cost_usd", "What they cost, in USD.", labels=["key", "model"])
    for labels, cells in series.items():
        calls.add_metric(labels, cells[_CALLS])
        tokens.add_metric([*labels, "input"], cells[_INPUT_TOKENS])
        tokens.add_metric([*labels, "output"], cells[_OUTPUT_TOKENS])
        cost.add_metric(labels, cells[_COST_USD])
    yield from (calls, tokens, cost)


def _add(sums: dict[Labels, list[float]], labels: Labels, cells: Sequence[float]) -> None:
    before = sums.get(labels)
    sums[labels] = list(cells) if before is None else [mine + more for mine, more in zip(before, cells, strict=True)]


def _family(name: str, text: str, labels: list[str], histograms: Mapping[Labels, list[float]]) -> HistogramMetricFamily:
    """Render histograms: the counts of their buckets, and the seconds behind them."""
    family = HistogramMetricFamily(name, text, labels=labels)
    bounds = (*map(str, BOUNDS_SECONDS), "+Inf")
    for values, (*counts, seconds) in histograms.items():
        if any(counts):
            family.add_metric(values, list(zip(bounds, accumulate(counts), strict=True)), seconds)
    return family
