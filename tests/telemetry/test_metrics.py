"""The metrics are valid for Prometheus, their labels are bounded, and their numbers add up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from chatgate.routing.budget import RetryBudget
from chatgate.routing.candidates import CredentialState, UpstreamState
from chatgate.routing.circuit import COOLDOWN_SECONDS, FAILURES_TO_OPEN, Circuit
from chatgate.telemetry import Metrics
from chatgate.telemetry.metrics import BOUNDS_SECONDS, OTHER_MODEL, TARGET_STATES
from chatgate.vocabulary.chat import Usage
from chatgate.vocabulary.exchange import Outcome, Settled
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

LABELS = ("operation", "surface", "model", "outcome", "code", "direction", "target", "state", "upstream", "le")


def settled(**changes: Any) -> Settled:
    """Return the end of a call."""
    facts: dict[str, Any] = {
        "request_id": "req_1",
        "operation": "chat",
        "surface": "openai",
        "address": "192.0.2.7",
        "model": "gpt-x",
        "upstream": "openai",
        "status": 200,
        "outcome": Outcome.COMPLETED,
        "code": "",
        "stream": True,
        "duration_ms": 300.0,
    }
    return Settled(**{**facts, **changes})


def knowing(*models: str, gauges: Mapping[str, tuple[str, Callable[[], float]]] | None = None) -> Metrics:
    """Return metrics that know these models and no target."""
    metrics = Metrics(gauges or {})
    metrics.know(models, list)
    return metrics


def tokens_of(usage: Usage | None) -> dict[str, int]:
    """Return the fields for what a provider counted, none when it did not."""
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens} if usage else {}


def scrape(metrics: Metrics) -> dict[str, Metric]:
    """Return the metrics as Prometheus reads them."""
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


def values(family: Metric, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one name by the values of their labels, in the order of the table in `LABELS`."""
    samples = [sample for sample in family.samples if sample.name == name]
    assert all(set(sample.labels) <= set(LABELS) for sample in samples)
    return {
        tuple(sample.labels[label] for label in LABELS if label in sample.labels): sample.value for sample in samples
    }


@pytest.fixture
def metrics() -> Metrics:
    """Return metrics that know one model and one gauge."""
    return knowing("gpt-x", gauges={"connections": ("Open connections.", lambda: 7.0)})


def test_an_idle_gateway_has_metrics(metrics: Metrics) -> None:
    """Every family is there before the first call, with its help."""
    families = scrape(metrics)
    assert {name: family.type for name, family in families.items()} == {
        "chatgate_calls": "counter",
        "chatgate_further_attempts": "counter",
        "chatgate_tokens": "counter",
        "chatgate_call_duration_seconds": "histogram",
        "chatgate_first_token_seconds": "histogram",
        "chatgate_key_calls": "counter",
        "chatgate_key_tokens": "counter",
        "chatgate_key_cost_usd": "counter",
        "chatgate_target_state": "gauge",
        "chatgate_upstream_calls_in_flight": "gauge",
        "chatgate_connections": "gauge",
    }
    assert all(family.documentation for family in families.values())
    assert values(families["chatgate_connections"], "chatgate_connections") == {(): 7.0}


def test_gauges_are_read_when_scraped() -> None:
    """A gauge is asked for its value each time, and not before."""
    readings = iter([1.0, 2.5])
    metrics = Metrics({"calls_in_flight": ("Calls.", lambda: next(readings))})
    for expected in (1.0, 2.5):
        assert values(scrape(metrics)["chatgate_calls_in_flight"], "chatgate_calls_in_flight") == {(): expected}


def test_calls_are_counted_by_how_they_ended(metrics: Metrics) -> None:
    """The code is the stable one after a failure, and the status after a success."""
    metrics.count([settled()])
    metrics.count([settled()])
    metrics.count([settled(status=429, outcome=Outcome.REFUSED, code="rate_limit_exceeded", surface="plain")])
    metrics.count([settled(operation="models", model="")])
    assert values(scrape(metrics)["chatgate_calls"], "chatgate_calls_total") == {
        ("chat", "openai", "gpt-x", "completed", "200"): 2,
        ("chat", "plain", "gpt-x", "refused", "rate_limit_exceeded"): 1,
        ("models", "openai", "", "completed", "200"): 1,
    }


@pytest.mark.parametrize("model", ["gpt-y", 'gpt-x"} 1\nfake{x="', "gpt-x ", "x" * 256])
def test_names_that_callers_make_up_are_one_label(metrics: Metrics, model: str) -> None:
    """A caller cannot make new time series, nor break the format."""
    metrics.count([settled(model=model, input_tokens=1, output_tokens=2, first_token_ms=100.0, attempts=2)])
    families = scrape(metrics)
    models = {sample.labels.get("model") for family in families.values() for sample in family.samples}
    assert models == {OTHER_MODEL, None}
    assert "fake" not in "".join(families)


def test_a_configured_name_may_hold_anything() -> None:
    """Names are escaped as the format wants it."""
    name = 'a"b\\c\nd/é'
    metrics = knowing(name)
    metrics.count([settled(model=name)])
    assert [labels[2] for labels in values(scrape(metrics)["chatgate_calls"], "chatgate_calls_total")] == [name]


def test_tokens_are_counted_by_direction(metrics: Metrics) -> None:
    """Calls that nobody counted add nothing."""
    metrics.count([settled(**tokens_of(usage)) for usage in (Usage(9, 12), Usage(1, 0), None)])
    assert values(scrape(metrics)["chatgate_tokens"], "chatgate_tokens_total") == {
        ("gpt-x", "input"): 10,
        ("gpt-x", "output"): 12,
    }


def test_further_attempts_are_counted(metrics: Metrics) -> None:
    """The first request of a call is no further one, and a call that was never sent adds nothing."""
    metrics.count([settled(attempts=attempts) for attempts in (0, 1, 2, 4)])
    metrics.count([settled(model="gpt-y", attempts=3)])
    metrics.count([settled(model="", attempts=1)])
    assert values(scrape(metrics)["chatgate_further_attempts"], "chatgate_further_attempts_total") == {
        ("gpt-x",): 4,
        (OTHER_MODEL,): 2,
    }


def test_the_state_of_each_target_is_told() -> None:
    """A target is in one of four states, in which it is 1; a key that is refused hides how the target is."""
    upstream = Upstream("keyed", "openai", Origin("https", "keyed.invalid", 443), "/v1", ("sk-test-1", "sk-test-2"))
    calls = UpstreamState("keyed", 0, RetryBudget())
    circuits = [Circuit(lambda: 0.0), Circuit(lambda: 0.0)]
    credential = CredentialState()
    standings = [
        (Target(upstream, "m", "sk-test-1", 1), circuits[0], CredentialState(), calls),
        (Target(upstream, "m", "sk-test-2", 2), circuits[1], credential, calls),
    ]
    metrics = Metrics({})
    metrics.know([], lambda: standings)
    for _ in range(FAILURES_TO_OPEN):
        circuits[0].failed(0.0)
    calls.in_flight = 3

    def states() -> list[tuple[str, ...]]:
        found = values(scrape(metrics)["chatgate_target_state"], "chatgate_target_state")
        assert set(found.values()) == {0.0, 1.0}
        assert {state for _, state in found} == set(TARGET_STATES)
        return [labels for labels, value in found.items() if value]

    assert states() == [("keyed/m#1", "open"), ("keyed/m#2", "closed")]
    circuits[0].begin(COOLDOWN_SECONDS)
    assert states() == [("keyed/m#1", "half_open"), ("keyed/m#2", "closed")]
    credential.refuse()
    assert states() == [("keyed/m#1", "half_open"), ("keyed/m#2", "key_refused")]
    in_flight = scrape(metrics)["chatgate_upstream_calls_in_flight"]
    assert values(in_flight, "chatgate_upstream_calls_in_flight") == {("keyed",): 3}


_CALLS = st.lists(
    st.tuples(
        st.sampled_from(["gpt-x", "gpt-y", ""]),
        st.floats(0, 1_000_000),
        st.none() | st.floats(0, 1_000_000),
        st.none() | st.builds(Usage, st.integers(0, 10**8), st.integers(0, 10**8)),
        st.sampled_from(Outcome),
    ),
    max_size=20,
)


@given(_CALLS)
def test_the_numbers_add_up(calls: list[tuple[str, float, float | None, Usage | None, Outcome]]) -> None:
    """Every call is in exactly one counter and one histogram, and in every bucket that is wide enough."""
    metrics = knowing("gpt-x")
    metrics.count(
        [
            settled(model=model, duration_ms=duration, first_token_ms=first, outcome=outcome, **tokens_of(usage))
            for model, duration, first, usage, outcome in calls
        ]
    )
    families = scrape(metrics)
    assert sum(values(families["chatgate_calls"], "chatgate_calls_total").values()) == len(calls)
    tokens = sum(usage.input_tokens + usage.output_tokens for _, _, _, usage, _ in calls if usage)
    assert sum(values(families["chatgate_tokens"], "chatgate_tokens_total").values()) == tokens
    for name, observed in (
        ("chatgate_call_duration_seconds", [duration / 1000 for _, duration, _, _, _ in calls]),
        ("chatgate_first_token_seconds", [first / 1000 for _, _, first, _, _ in calls if first is not None]),
    ):
        buckets = values(families[name], f"{name}_bucket")
        for bound in (*BOUNDS_SECONDS, float("inf")):
            counted = sum(count for labels, count in buckets.items() if float(labels[-1]) == bound)
            assert counted == sum(seconds <= bound for seconds in observed)
        assert sum(values(families[name], f"{name}_count").values()) == len(observed)
        assert sum(values(families[name], f"{name}_sum").values()) == pytest.approx(sum(observed))


def test_calls_that_are_alike_are_counted_by_key_and_together() -> None:
    """Calls of several keys in turn and of none, told at once: all are in the sum, each is in its key's series."""
    metrics = knowing("m")
    metrics.count([settled(model="m", key=key, input_tokens=1, cost_usd="0.5") for key in ("key_1", "", "key_2") * 3])
    text = metrics.render().decode()
    assert sum(values(scrape(metrics)["chatgate_calls"], "chatgate_calls_total").values()) == 9
    assert 'chatgate_key_calls_total{key="key_1",model="m"} 3.0' in text
    assert 'chatgate_key_calls_total{key="key_2",model="m"} 3.0' in text
    assert 'chatgate_key_tokens_total{direction="input",key="key_2",model="m"} 3.0' in text
    assert 'chatgate_key_cost_usd_total{key="key_2",model="m"} 1.5' in text
    assert 'key=""' not in text


def test_a_key_has_series_of_its_own() -> None:
    """Calls, tokens and cost are added up by key and model, and calls without a key are in none of these."""
    metrics = knowing("m")
    metrics.count([settled(model="m", key="key_1", input_tokens=3, output_tokens=4, cost_usd="0.000125")])
    metrics.count([settled(model="m", key="key_1", input_tokens=1, output_tokens=1, cost_usd="0.5")])
    metrics.count([settled(model="unheard", key="key_2")])
    metrics.count([settled(model="m")])
    text = metrics.render().decode()
    assert 'chatgate_key_calls_total{key="key_1",model="m"} 2.0' in text
    assert 'chatgate_key_tokens_total{direction="input",key="key_1",model="m"} 4.0' in text
    assert 'chatgate_key_tokens_total{direction="output",key="key_1",model="m"} 5.0' in text
    assert 'chatgate_key_cost_usd_total{key="key_1",model="m"} 0.500125' in text
    assert 'chatgate_key_calls_total{key="key_2",model="other"} 1.0' in text
    assert text.count("chatgate_key_calls_total{") == 2


def test_the_labels_of_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys beyond the bound share one label; those that have one keep it."""
    monkeypatch.setattr("chatgate.telemetry.metrics.MAX_KEYS", 2)
    metrics = knowing("m")
    for key in ("key_1", "key_2", "key_3", "key_4", "key_1"):
        metrics.count([settled(model="m", key=key)])
    text = metrics.render().decode()
    assert 'chatgate_key_calls_total{key="other",model="m"} 2.0' in text
    assert 'chatgate_key_calls_total{key="key_1",model="m"} 2.0' in text
    assert "key_3" not in text
