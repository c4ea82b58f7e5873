"""What calls were like at their end is told to the log and the metrics together, and never too late for a scrape."""

from __future__ import annotations

import json

from chatgate.telemetry import Calls, Log, Metrics, Redaction, Shared
from chatgate.vocabulary.exchange import Operation, Outcome, Settled, Surface

NOW = 1_800_000_000.25
COUNTED = 'chatgate_calls_total{code="200",model="",operation="models",outcome="completed",surface="openai"} %d.0'


def settled(request_id: str) -> Settled:
    """Return the end of a call that asked no model."""
    return Settled(
        request_id,
        Operation.MODELS,
        Surface.OPENAI,
        "192.0.2.7",
        "",
        "",
        200,
        Outcome.COMPLETED,
        "",
        stream=False,
        duration_ms=1.5,
    )


def test_each_call_is_told_once_to_the_log_and_to_the_metrics() -> None:
    """In the order of their ends; a scrape is told of those that nobody was told of yet."""
    batches: list[bytes] = []
    log, metrics = Log(batches.append, Redaction([])), Metrics({})
    calls = Calls(log, metrics)
    for number in range(3):
        calls.note((NOW + number, settled(f"req_{number}")))
    calls.tell()
    calls.tell()
    calls.note((NOW + 3, settled("req_3")))
    assert COUNTED % 4 in metrics.render().decode()
    assert COUNTED % 4 in metrics.render().decode()
    log.close()
    lines = [json.loads(line) for line in b"".join(batches).splitlines()]
    assert [line["request_id"] for line in lines] == [f"req_{number}" for number in range(4)]
    assert [line["time"][17:23] for line in lines] == ["00.250", "01.250", "02.250", "03.250"]


def test_many_calls_are_counted_without_a_scrape() -> None:
    """Nobody has to look at the metrics for memory to be freed of what they count."""
    metrics = Metrics({})
    calls = Calls(Log(lambda _: None, Redaction([])), metrics, most_uncounted=3)
    for number in range(4):
        assert not metrics._series
        calls.note((NOW, settled(f"req_{number}")))
        calls.tell()
    assert [cells[0] for cells in metrics._series.values()] == [4]
    assert COUNTED % 4 in metrics.render().decode()


def test_what_a_model_is_called_is_decided_by_the_configuration_of_its_time() -> None:
    """Calls that ended before the models became others keep the name that they had."""
    metrics = Metrics({})
    calls = Calls(Log(lambda _: None, Redaction([])), metrics)
    metrics.know(["old"], list)
    call = settled("req_1")
    call.model = "old"
    calls.note((NOW, call))
    metrics.know(["new"], list)
    assert 'model="old"' in metrics.render().decode()


def test_one_of_several_workers_is_counted_each_time() -> None:
    """Whichever worker is scraped, it tells of the calls that were told at any of them, and of all of its own."""
    shared = Shared(2)
    first, second = (Metrics({}, share) for share in shared.shares)
    calls = Calls(Log(lambda _: None, Redaction([])), first, most_uncounted=0)
    calls.note((NOW, settled("req_1")))
    calls.tell()
    assert COUNTED % 1 in second.render().decode()
    calls.note((NOW, settled("req_2")))
    assert COUNTED % 2 in first.render().decode()
    assert COUNTED % 2 in second.render().decode()
