"""The log is one JSON object per line, free of secrets, and never holds anybody up."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.telemetry import Log, LogHandler, Redaction
from chatgate.telemetry.log import MAX_TEXT_CHARACTERS, MAX_WAITING_BATCHES
from chatgate.vocabulary.exchange import Outcome, Settled

NOW = 1_800_000_000.25


class Sink:
    """Keeps what is written; stalls while `gate` is closed, as a pipe does that nobody reads."""

    def __init__(self) -> None:
        """Start open and empty."""
        self.batches: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.stalled = threading.Event()
        self.written = threading.Semaphore(0)
        self.errors: list[OSError] = []

    def __call__(self, batch: bytes) -> None:
        """Take a batch."""
        if not self.gate.is_set():
            self.stalled.set()
            self.gate.wait(10)
        if self.errors:
            raise self.errors.pop()
        self.batches.append(batch)
        self.written.release()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return the lines that were written, each of which must be a JSON object of its own."""
        text = b"".join(self.batches).decode()
        assert text.endswith("\n")
        lines = [json.loads(line) for line in text[:-1].split("\n")]
        assert all(isinstance(line, dict) for line in lines)
        assert len(text.splitlines()) == len(lines)  # Nor does any other kind of line end stand in it.
        return lines


@pytest.fixture
def sink() -> Sink:
    """Return where the log goes."""
    return Sink()


@pytest.fixture
def log(sink: Sink) -> Iterator[Log]:
    """Return a log; it is closed at the end of the test at the latest."""
    log = Log(sink, Redaction(["sk-test-0123456789"]), lambda: NOW)
    yield log
    sink.gate.set()
    log.close()


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
        "duration_ms": 1234.568,
        "first_token_ms": 250.0,
        "input_tokens": 9,
        "output_tokens": 12,
        "attempts": 2,
        "target": "openai/gpt-x",
    }
    return Settled(**{**facts, **changes})


def test_a_call_is_one_line_of_facts(log: Log, sink: Sink) -> None:
    """Who, what, where, how long, and how it ended; times are UTC."""
    log.calls([(NOW, settled())])
    log.close()
    assert sink.lines == [
        {
            "time": "2027-01-15T08:00:00.250+00:00",
            "level": "info",
            "event": "call",
            "request_id": "req_1",
            "operation": "chat",
            "surface": "openai",
            "address": "192.0.2.7",
            "model": "gpt-x",
            "upstream": "openai",
            "status": 200,
            "outcome": "completed",
            "code": "",
            "stream": True,
            "duration_ms": 1234.568,
            "first_token_ms": 250.0,
            "input_tokens": 9,
            "output_tokens": 12,
            "attempts": 2,
            "target": "openai/gpt-x",
        }
    ]


UNKNOWN: dict[str, Any] = {
    "first_token_ms": None,
    "input_tokens": None,
    "output_tokens": None,
    "attempts": 0,
    "target": "",
}


def test_what_is_not_known_is_not_in_the_line(log: Log, sink: Sink) -> None:
    """A refused call has no tokens, no first word, and was sent nowhere."""
    log.calls([(NOW, settled(**UNKNOWN, status=429, outcome=Outcome.REFUSED, code="x"))])
    log.close()
    (line,) = sink.lines
    assert not set(UNKNOWN) & set(line)
    assert (line["status"], line["outcome"], line["code"]) == (429, "refused", "x")


def test_one_of_several_workers_is_named_in_every_line(sink: Sink) -> None:
    """Whoever reads the lines of all workers in one stream can tell them apart."""
    log = Log(sink, Redaction([]), lambda: NOW, worker=2)
    log.event("started", port=5000)
    log._dropped = 3
    log.calls([(NOW, settled())])
    log.close()
    assert [(line["event"], line["worker"]) for line in sink.lines] == [("started", 2), ("call", 2), ("log_dropped", 2)]


def test_nothing_is_written_before_a_flush_and_everything_at_the_close(log: Log, sink: Sink) -> None:
    """Lines are gathered into batches; what was gathered is one piece; closing leaves nothing behind."""
    log.event("started", port=5000)
    log.calls([(NOW + number / 1000, settled(request_id=str(number))) for number in range(5)])
    assert sink.batches == []
    log.flush()
    log.flush()
    log.event("stopped", level="warning")
    log.close()
    assert len(sink.batches) == 2
    assert [line["event"] for line in sink.lines] == ["started", *["call"] * 5, "stopped"]
    assert [line["request_id"] for line in sink.lines[1:6]] == list("01234")
    assert [line["time"][17:23] for line in sink.lines[1:6]] == ["00.250", "00.251", "00.252", "00.253", "00.254"]
    assert (sink.lines[0]["port"], sink.lines[0]["level"], sink.lines[-1]["level"]) == (5000, "info", "warning")


@pytest.mark.parametrize("model", ["}\n{", '"}\n{"', "\\n{", "\x7f{"])
def test_no_name_makes_two_lines_of_a_call(log: Log, sink: Sink, model: str) -> None:
    """Whatever stands in a call's facts, each call is one line."""
    log.calls([(NOW, settled(model=model)), (NOW, settled())])
    log.close()
    assert [line["model"] for line in sink.lines] == [model, "gpt-x"]


@given(st.text(st.characters(codec=None)), st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs"])))
def test_no_text_breaks_a_line(text: str, controls: str) -> None:
    """Control characters, line separators and changes of direction are escaped, so that no terminal obeys them."""
    sink = Sink()
    log = Log(sink, Redaction([]), lambda: NOW)
    log.event("x", text=text, controls=controls)
    log.close()
    (line,) = sink.lines
    assert line["text"] == text[:MAX_TEXT_CHARACTERS].encode(errors="replace").decode()
    written = b"".join(sink.batches).decode()[:-1]
    assert not [char for char in written if char < " " or "\x7f" <= char <= "\x9f" or "\u2028" <= char <= "\u202e"]


def test_long_texts_are_cut(log: Log, sink: Sink) -> None:
    """A line has a bound, whatever somebody puts into it."""
    log.event("x", text="ü" * 99_999, number=10**15)
    log.close()
    assert (len(sink.lines[0]["text"]), sink.lines[0]["number"]) == (MAX_TEXT_CHARACTERS, 10**15)


def test_secrets_stay_out(log: Log, sink: Sink) -> None:
    """A configured secret is masked wherever it got into a line, and the line stays JSON."""
    log.event("x", text="got sk-test-0123456789 there")
    log.calls([(NOW, settled(model="sk-test-0123456789"))])
    log.close()
    assert b"0123456789" not in b"".join(sink.batches)
    assert sink.lines[1]["model"] == "[redacted]"


def test_a_stalled_reader_costs_lines_that_are_counted(log: Log, sink: Sink) -> None:
    """While nobody reads, batches wait up to a bound; the rest is dropped, and the next line says exactly how many."""
    sink.gate.clear()
    log.event("first")
    log.flush()
    assert sink.stalled.wait(5)
    for number in range(MAX_WAITING_BATCHES + 7):
        log.calls([(NOW, settled(request_id=f"a{number}"))])
        log.calls([(NOW, settled(request_id=f"b{number}"))])
        log.flush()
    sink.gate.set()
    for _ in range(1 + MAX_WAITING_BATCHES):
        assert sink.written.acquire(timeout=5)
    for name in ("next", "last"):
        log.event(name)
        log.flush()
    log.close()
    kept = [f"{each}{number}" for number in range(MAX_WAITING_BATCHES) for each in "ab"]
    assert [line["request_id"] for line in sink.lines if line["event"] == "call"] == kept
    assert [line["event"] for line in sink.lines][-3:] == ["next", "log_dropped", "last"]
    assert (sink.lines[-2]["lines"], sink.lines[-2]["level"]) == (14, "warning")


def test_a_broken_pipe_is_survived(log: Log, sink: Sink) -> None:
    """When writing fails, that batch is lost and the next one is tried."""
    sink.errors.append(BrokenPipeError())
    log.event("lost")
    log.flush()
    log.event("kept")
    log.close()
    assert [line["event"] for line in sink.lines] == ["kept"]


def test_closing_does_not_wait_for_ever(sink: Sink) -> None:
    """A reader that never reads again does not keep the process."""
    log = Log(sink, Redaction([]), lambda: NOW)
    sink.gate.clear()
    log.event("stuck")
    log.flush()
    assert sink.stalled.wait(5)
    closing = threading.Thread(target=log.close)
    closing.start()
    closing.join(8)
    assert not closing.is_alive()
    sink.gate.set()


# --- Records of the standard library ----------------------------------------------------------------------------------


@pytest.fixture
def logger(log: Log) -> logging.Logger:
    """Return a logger of the standard library that goes into the log, and nowhere else."""
    logger = logging.Logger("asyncio")  # noqa: LOG001 - one without a place in the hierarchy, which others listen to
    logger.addHandler(LogHandler(log))
    return logger


def test_records_come_with_their_traceback(logger: logging.Logger, log: Log, sink: Sink) -> None:
    """A fault is one line, with the traceback in it, and without secrets."""
    try:
        raise ValueError("about sk-test-0123456789")  # noqa: TRY301 - the fault under test
    except ValueError:
        logger.exception("It failed: %s", "why")
    log.close()
    (line,) = sink.lines
    assert (line["event"], line["level"], line["logger"]) == ("log", "error", "asyncio")
    assert line["message"] == "It failed: why"
    assert "Traceback" in line["traceback"]
    assert "ValueError: about [redacted]" in line["traceback"]


@pytest.mark.parametrize("arguments", [(1, 2), ("\ud800",), ({"a": 1},), ()])
@pytest.mark.parametrize("message", ["%d apples", "%(b)s", "\udcff %s", "100 %"])
def test_a_record_that_does_not_fit_is_still_a_line(
    logger: logging.Logger, log: Log, sink: Sink, message: str, arguments: tuple[object, ...]
) -> None:
    """Wrong placeholders and undecodable names cost no call its life."""
    logger.warning(message, *arguments)
    log.close()
    (line,) = sink.lines
    assert line["level"] == "warning"
    assert "traceback" not in line
