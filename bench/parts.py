"""What is measured: one function per part, each a short load on one peer. `rounds` calls them, interleaved.

A part returns a flat dictionary of numbers; None stands for "cannot be measured at this peer", with a note that says
why. Units are in the names. All parts but `fresh` find the peer running and warm.
"""

from __future__ import annotations

import http.client
import math
import time
from pathlib import Path
from typing import Final, NamedTuple

from bench.peers.peer import Peer
from bench.processes import Process
from bench.rig import Load, Loaded, Rig, body, free_port

Values = dict[str, float | str | None]

CLEAN_P99_MS: Final = 50.0
EVENTS_PER_SECOND: Final = 50
STEP: Final = 1.2
"""Between two numbers of streams that are tried, until a clean and an unclean one are known."""

PRECISION: Final = 1.06
"""The largest clean number of streams is known to this factor."""

MOST_PROBES: Final = 10
MOST_STREAMS: Final = 4000
PACED_STREAMS: Final = 100
SLOW_PACED_STREAMS: Final = 10
READY_SECONDS: Final = 180.0
BURST_CONNECTIONS: Final = 64
LONGEST_STREAM_SECONDS: Final = 3.0
"""How much longer than its load a stream goes on at most: some peers never tell the upstream that their caller left."""

SETTLE_SECONDS: Final = 0.05
SETTLE_ROUNDS: Final = 300
DIALS_PER_SECOND: Final = 2000
"""How fast connections are opened: not so fast that a short queue of the listener costs a second for each refused."""


class StartError(Exception):
    """A peer did not start; `str()` says what it said."""


class Running(NamedTuple):
    """A peer that takes calls. `process` is None where there is no gateway."""

    peer: Peer
    port: int
    process: Process | None


class Bench(NamedTuple):
    """What parts need: the rig, the core for gateways, a folder for logs, and how long a load is measured."""

    rig: Rig
    gateway_core: int
    folder: Path
    seconds: float

    def load(self, running: Running, load: Load) -> Loaded:
        """Put a load on a peer, once it and the upstream have done with the one before."""
        if running.process:
            self._settle(running.process)
        wait_for_streams(self.rig, 0)
        return self.rig.load(running.peer, running.port, load, running.process)

    def start(self, peer: Peer) -> tuple[Running, Process, float]:
        """Start a peer and wait until it answers a call; return it, its process, and how many seconds that took.

        Raises `StartError`.
        """
        port = free_port()
        command = peer.command(port, self.rig.port)
        began = time.perf_counter()
        process = Process(
            command,
            core=self.gateway_core,
            log=self.folder / f"{peer.name}-{port}.log",
            more_environment=peer.environment(self.rig.port),
        )
        try:
            return self._answering(peer, port, process), process, time.perf_counter() - began
        except BaseException:
            process.end()
            raise

    def _answering(self, peer: Peer, port: int, process: Process) -> Running:
        give_up_at = time.monotonic() + READY_SECONDS
        while process.is_running and time.monotonic() < give_up_at:
            bound = peer.bound_port(port, process.log)
            if bound and self.answers(running := Running(peer, bound, process)):
                return running
            time.sleep(0.005)
        raise StartError(f"{peer.name} does not start; it said: {process.last_words() or 'nothing'}")

    @staticmethod
    def _settle(process: Process) -> None:
        """Wait until a process rests, at most some seconds: calls whose caller left may still keep it busy."""
        for _ in range(SETTLE_ROUNDS):
            before = process.cpu_seconds()
            time.sleep(SETTLE_SECONDS)
            if process.cpu_seconds() - before < SETTLE_SECONDS / 5:
                return

    def answers(self, running: Running) -> bool:
        """Tell whether a peer answers a call as it should."""
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        headers = {"content-type": "application/json", **running.peer.headers(self.rig.port)}
        try:
            connection.request("POST", running.peer.path, body(running.peer.model, stream=False), headers)
            answer = connection.getresponse()
            return answer.status == http.client.OK and b"The quick brown fox" in answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _per(cpu_seconds: float | None, count: int) -> float | None:
    return None if cpu_seconds is None or not count else cpu_seconds / count * 1e6


def _quantiles(seen: dict[str, float] | None, name: str, per: float = 1.0) -> Values:
    return {f"{name}_{quantile}": seen[quantile] / per if seen else None for quantile in ("p50", "p99")}


def _seconds(bench: Bench, running: Running, connections: int = 1) -> float:
    """Return how long to measure: longer where few calls would end in the usual time."""
    if not running.peer.is_slow:
        return bench.seconds
    return bench.seconds * (4 if connections > BURST_CONNECTIONS else 2)


def calls(bench: Bench, running: Running, connections: int) -> Values:
    """Measure calls per second, latency and processor time per call, `connections` callers calling without a pause."""
    seconds = _seconds(bench, running, connections)
    # The first answers of a slow peer come late and together: each connection should have had one before it counts.
    warm_up_seconds = 5.0 if running.peer.is_slow and connections > BURST_CONNECTIONS else 0.4
    ramp_seconds = connections / DIALS_PER_SECOND
    done = bench.load(running, Load("closed", connections, seconds, warm_up_seconds, ramp_seconds))
    return {
        "calls_per_second": done.seen["calls_per_second"],
        **_quantiles(done.seen["latency_us"], "latency_us"),
        "gateway_cpu_us_per_call": _per(done.gateway_cpu_seconds, done.calls),
        "rig_cpu_us_per_call": _per(done.rig_cpu_seconds, done.calls),
        "failed": done.seen["failed"],
    }


def open_loop(bench: Bench, running: Running, calls_per_second: int, capacity: float | None) -> Values:
    """Measure latency from the time a call was due, when calls come at random; not of who could never keep up."""
    if capacity is not None and capacity < calls_per_second:
        return {"latency_us_p50": None, "latency_us_p99": None, "note": "overloaded"}
    load = Load("open", 512, _seconds(bench, running), calls_per_second=calls_per_second)
    done = bench.load(running, load)
    overloaded = done.seen["waiting_at_end"] > calls_per_second * 0.1
    return {
        **_quantiles(done.seen["latency_us"], "latency_us"),
        "failed": done.seen["failed"],
        **({"note": "overloaded"} if overloaded else {}),
    }


def first_event(bench: Bench, running: Running) -> Values:
    """Measure the time to the first event of a stream, one caller at a time."""
    bench.rig.shape_streams(events=2, interval_seconds=0.001)
    done = bench.load(running, Load("stream", 1, _seconds(bench, running)))
    return {**_quantiles(done.seen["first_event_us"], "first_event_us"), "failed": done.seen["failed"]}


def paced_streams(bench: Bench, running: Running) -> Values:
    """Measure what one event costs, and how late it comes, on streams of 50 events a second that all can carry."""
    streams = SLOW_PACED_STREAMS if running.peer.is_slow else PACED_STREAMS
    done = _load_paced(bench, running, Load("stream", streams, _seconds(bench, running), ramp_seconds=0.5))
    return {
        "streams": streams,
        "gateway_cpu_us_per_event": _per(done.gateway_cpu_seconds, done.events),
        "rig_cpu_us_per_event": _per(done.rig_cpu_seconds, done.events),
        **_quantiles(done.seen["event_delay_us"], "event_delay_us"),
        "failed": done.seen["failed"],
    }


def _load_paced(bench: Bench, running: Running, load: Load) -> Loaded:
    """Put streams of 50 events a second on a peer which outlast the load, though not by much."""
    seconds = load.ramp_seconds + load.warm_up_seconds + load.seconds + LONGEST_STREAM_SECONDS
    bench.rig.shape_streams(events=round(seconds * EVENTS_PER_SECOND), interval_seconds=1 / EVENTS_PER_SECOND)
    return bench.load(running, load)


def _is_clean(bench: Bench, running: Running, streams: int) -> bool:
    ramp_seconds = max(0.6, streams / 2000) * (3 if running.peer.is_slow else 1)
    load = Load("stream", streams, 1.5, warm_up_seconds=0.6, ramp_seconds=ramp_seconds)
    seen = _load_paced(bench, running, load).seen
    delay = seen["event_delay_us"]
    arrived = seen["events_per_second"] >= 0.98 * EVENTS_PER_SECOND * streams
    return bool(delay and delay["p99"] < CLEAN_P99_MS * 1000 and arrived and not seen["failed"])


def clean_streams(bench: Bench, running: Running, guess: float | None) -> Values:
    """Find how many streams of 50 events a second are clean: every event there, 99 % of them within 50 ms.

    `guess` is where to begin. One number after the other is tried, up or down, and then between the largest clean and
    the smallest unclean one. A number is unclean when it was so twice in a row: the machine's other users can take a
    number's chance once, and nobody can give it one.
    """
    streams = max(2, min(MOST_STREAMS, round(guess or 1000)))
    clean, unclean = 0, MOST_STREAMS + 1
    for _ in range(MOST_PROBES):
        if _is_clean(bench, running, streams) or _is_clean(bench, running, streams):
            clean = streams
        else:
            unclean = streams
        if unclean <= max(clean + 1, clean * PRECISION):
            break
        if unclean > MOST_STREAMS:
            streams = min(MOST_STREAMS, max(clean + 1, round(clean * STEP)))
        elif clean == 0:
            streams = max(1, min(unclean - 1, round(unclean / STEP)))
        else:
            streams = round(math.sqrt(clean * unclean))
    return {"clean_streams": clean}


def burst(bench: Bench, running: Running) -> Values:
    """Measure how many events a second go through when the upstream sends them as fast as they are taken."""
    bench.rig.shape_streams(events=200 if running.peer.is_slow else 2000, interval_seconds=0)
    done = bench.load(running, Load("stream", BURST_CONNECTIONS, _seconds(bench, running, BURST_CONNECTIONS)))
    return {
        "events_per_second": done.seen["events_per_second"],
        "gateway_cpu_us_per_event": _per(done.gateway_cpu_seconds, done.events),
        "failed": done.seen["failed"],
    }


def fresh(bench: Bench, peer: Peer) -> Values:
    """Measure a start: seconds to the first answer, memory then, and memory per stream that is open and silent."""
    running, process, start_seconds = bench.start(peer)
    with process:
        rest_bytes = process.memory_bytes()
        bench.rig.shape_streams(events=2, interval_seconds=0.001)
        bench.load(running, Load("stream", 8, 0.5))  # What the first streams load or allocate once is no stream's own.
        streams = 200 if peer.is_slow else 500
        before_bytes = process.memory_bytes()
        bench.rig.shape_streams(events=2, interval_seconds=60)
        load = Load("stream", streams, 60.0, ramp_seconds=2.0)
        holding = bench.rig.start_load(peer, running.port, load)
        try:
            opened = wait_for_streams(bench.rig, streams)
            time.sleep(0.3)
            after_bytes = process.memory_bytes()
        finally:
            holding.kill()
            holding.communicate()
    wait_for_streams(bench.rig, 0)
    return {
        "start_seconds": start_seconds,
        "memory_mib": rest_bytes / 2**20,
        "idle_streams": opened,
        "kib_per_idle_stream": (after_bytes - before_bytes) / 1024 / opened if opened else None,
    }


def wait_for_streams(rig: Rig, wanted: int) -> int:
    """Wait until so many streams are open at the upstream, at most 20 s; return how many are."""
    give_up_at = time.monotonic() + 20
    while (opened := int(rig.stats()["streams_open"])) != wanted and time.monotonic() < give_up_at:
        time.sleep(0.02)
    return opened
