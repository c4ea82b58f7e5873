"""Write what was found: results.json, results.md and charts under bench/results/, and docs/performance.md from them.

Every number of the page comes from results.json, scale.json and where.json; nobody types one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import report, scale, where
from bench.charts import Bar, bar_chart
from bench.report import METRICS, Metric, Results

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "performance.md"

CHARTS: Final = {
    "cpu_per_call": ("Processor time per call, µs", "less is better · gateway's process tree, 64 connections"),
    "calls_64": ("Calls per second on one core", "more is better · 64 connections, 1 KB each way"),
    "added_p50": (
        "Time added to a call, ms",
        "less is better · median, one caller, less a direct call",
    ),
    "added_first_event": ("Time added to the first event of a stream, ms", "less is better · median, one caller"),
    "cpu_per_event": ("Processor time per event of a stream, µs", "less is better · each event comes by itself"),
    "clean_streams": (
        "Clean streams of 50 events a second on one core",
        "more is better · all events, 99 % of them within 50 ms",
    ),
    "idle_stream": ("Memory per stream that is open and silent, KiB", "less is better · without the kernel's buffers"),
}

INTRODUCTION = """\
# Performance

What chatgate costs, next to others, on one machine in one run. This page is written by `make bench`; the numbers come
from [bench/results/results.json](../bench/results/results.json), which holds every sample.

Taken {taken}: {rounds} interleaved rounds, {took_minutes} minutes. Machine: {processor}, {cores} cores,
{memory_gib} GiB, {system}; Python {python}, Node {node}, {compiler}. Load average at the start: {load_average}.

**How to read it.** The gateway has one core; the load and the upstream share another. *CPU µs per call* is the
processor time, user and system, of the gateway's whole process tree: the column that suffers least from a noisy
machine, and 10⁶ divided by it is what one core can do at best. Numbers are medians over the rounds, with the lowest and
the highest in parentheses. Ratios hold between machines better than numbers do. Peers differ in what they do for a
call: nginx and the bare relay do nothing but relay, and are here as floors.
"""

REPETITION = """\
## How to repeat it

    make bench                                  # everything, in a quarter of an hour; installs peers into bench/.peers
    make bench ARGS='--only direct,nginx,chatgate --rounds 1 --print'
    make bench ARGS=--resume                    # take up a run that was interrupted
    make bench ARGS=--scale                     # chatgate alone, over models, connections and calls
    make bench ARGS=--where                     # where the work of a call goes
    make bench-quick                            # in under a minute: ratios, and instructions per call

It needs Linux with two cores, a C compiler, and nginx, Node with npm and valgrind for the parts that are named after
them; what is missing is said and left out. `make bench-quick` compares the instructions of a call with those on record
in [bench/baseline.json](../bench/baseline.json) (`ARGS=--record` puts new ones there): they hardly depend on the
machine, so a change of some percent is a change of the code.
"""

STANDING = """\
Nothing stands out any more: stages were drawn together until a call took half the bytecodes, in well under half of
the functions (4 714 in 156 before), and what a turn of the loop has to send leaves in one burst, because waking a
reader who sleeps costs more than sending. The kernel's part is that of any relay, with one write to the journal for
each call.

Sampled with `perf record` under 64 callers, of the gateway's 64 µs for a call (nginx: 21) the interpreter has 48 %, the
kernel 31 %, msgspec 9 %, the C library 5 %, the event loop 3 % and SQLite 3 %; 11 % are the database's thread. So the
kernel's 20 µs, nearly all that nginx spends, are there before the first line of Python: twice nginx leaves 22 µs for
everything else, where the interpreter alone takes 31 for its 2 400 bytecodes and the objects that they make. What would
move the rest, as far as was tried:

- The dispatches of a turn in one write, as its settlements are. Then a call that believes itself sent must be told that
  its record could not be written, and the request that waits must be called back; for a microsecond that was left.
- An event of a stream goes through seven functions where it went through fourteen, and its chunk passes as it came. In
  process that takes 2 µs instead of 3.3, over sockets it hardly shows: three fifths of an event are the kernel's
  reading and writing, nearly all that nginx spends, and much of the rest is waiting for memory, as each stream's
  objects have left the caches when its next event comes. The event loop's own layers take a tenth.
- The start of a stream takes half as long as before when the code is warm; for one caller at a time it never is.
- Compiling the hot modules with mypyc: they compile, but what msgspec's structs say at run time, and protocols that
  others inherit from, do not survive it as they are. With Cython 90 modules work at once, and take no fewer
  instructions (451 000 for a call instead of 423 000): it looks attributes up the long way, which the interpreter
  has learned to spare.
- Pages of 2 MiB instead of 4 KiB for the process's memory, as the interpreter's objects lie far apart: 63.3 instead of
  63.9 µs, within the noise.
- A mapped journal instead of writes saves 1 to 2 µs, and ends the process when the disk fails
  ([why not](decisions/0009-folding-from-memory.md)).
- An interpreter that was built with profiles, as Debian's and the container's are, takes a fifth less than one that
  was not; a later Python may take less again, or one without the lock that the database's thread shares with the loop.
"""

METHOD = """\
## How it was measured

- The upstream and the load generator are C programs of this project ([bench/rig](../bench/rig)), each with one thread
  and epoll. {capacity}
- Requests and answers have 1 KB; connections are kept alive. *@64* means 64 callers who each call again as soon as they
  are answered. *At 500/s* means that calls arrive at random whether or not earlier ones were answered, and that latency
  counts from the time a call was due; *overloaded* means that the peer cannot keep that up. A direct call never leaves
  its core and a relayed one does so twice, so that what a gateway adds includes those two wake-ups.
- Each event of a stream carries the time at which the upstream sent it, so its delay is measured. *Clean streams* is
  the largest number of streams of 50 events a second of which every event arrives, 99 % of them within 50 ms, known to
  {precision} %. A number is given up when it was not clean twice in a row, as a neighbour on the machine can spoil one
  try. The row of the rig is what it can carry itself: a peer near it may be able to do more.
  *Unpaced*: the upstream sends as fast as its socket takes events, so many share one read.
- CPU per event and event delay are taken on {paced} streams of 50 events a second ({slow_paced} for Portkey and
  LiteLLM).
- *Start* is from the start of the process to its first good answer, on the gateway's core. *Memory* is then, as PSS.
- *Installed* counts packages without the interpreter they run on; of nginx, the program alone.
- Every part goes over all peers before the next one begins; every other round goes backwards.
- Clean streams and unpaced events were measured once, everything else in every round.

How the peers were set up:

{setups}
"""


def _spaced(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _bars(results: Results, metric: Metric) -> list[Bar]:
    bars = []
    for peer, told in results["peers"].items():
        found = report.spread(results, peer, metric)
        if peer != "direct" or found is not None:
            why = report.note(results, peer, metric.part) or "not measured"
            bars.append(Bar(told["title"], found, highlighted=peer == "chatgate", note=why))
    return bars


def _charts(results: Results) -> Iterator[tuple[str, str]]:
    metrics = {metric.name: metric for metric in METRICS}
    for name, (title, subtitle) in CHARTS.items():
        bars = [bar for bar in _bars(results, metrics[name]) if bar.spread or bar.note != "not measured"]
        if bars:
            yield name, bar_chart(title, subtitle, bars)


def write_results(results: Results) -> None:
    """Write results.json, results.md and the charts, and the page."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_page()


def write_page() -> None:
    """Write everything that follows from results.json and, where there is one, from scale.json."""
    results: Results = json.loads((RESULTS / "results.json").read_text())
    (RESULTS / "results.md").write_text(report.tables(results))
    for old in RESULTS.glob("*.svg"):
        old.unlink()
    charts = dict(_charts(results))
    for name, chart in charts.items():
        (RESULTS / f"{name}.svg").write_text(chart)
    PAGE.write_text("\n".join(_sections(results, list(charts))))


def _sections(results: Results, charts: list[str]) -> Iterator[str]:
    yield INTRODUCTION.format(
        **{name: value for name, value in results.items() if name != "machine"}, **results["machine"]
    )
    titles = {name: title for name, (title, _) in CHARTS.items()}
    yield "".join(f"![{titles[name]}](../bench/results/{name}.svg)\n\n" for name in charts)
    for heading, metrics in (
        ("Calls", report.CALLS),
        ("Calls that arrive at their own times", report.OPEN_LOOP),
        ("Streams", report.STREAMS),
    ):
        yield f"## {heading}\n\n{report.table(report.rows(results, metrics))}"
    yield f"## What they weigh\n\n{report.table(report.footprint_rows(results))}"
    yield from _scale()
    yield from _where()
    yield _method(results)
    yield _left_out(results)
    yield REPETITION


def _scale() -> Iterator[str]:
    file = RESULTS / "scale.json"
    if file.exists():
        yield scale.text(json.loads(file.read_text()))


def _where() -> Iterator[str]:
    file = RESULTS / "where.json"
    if file.exists():
        yield where.text(json.loads(file.read_text()))
        yield STANDING


def _method(results: Results) -> str:
    from bench import parts  # noqa: PLC0415 - the numbers it measures with; what only writes needs no rig

    rig = report.rig_capacity(results)
    capacity = "What they can do themselves was not measured in this run."
    if rig:
        capacity = (
            f"Together they take {rig[0]:.1f} µs per call and {rig[1]:.1f} µs per paced event of their core, so alone "
            f"they carry {_spaced(1e6 / rig[0])} calls or {_spaced(1e6 / rig[1])} events a second."
        )
    setups = "\n".join(
        f"- **{told['title']}** {told['version']}: {told['setup']}." for told in results["peers"].values()
    )
    return METHOD.format(
        capacity=capacity,
        precision=round((parts.PRECISION - 1) * 100),
        paced=parts.PACED_STREAMS,
        slow_paced=parts.SLOW_PACED_STREAMS,
        setups=setups,
    )


def _left_out(results: Results) -> str:
    lines = ["## What was left out", ""]
    lines += [
        f"- **{name}: not in this run**, for it could not be installed or started here: {why}"
        for name, why in results["missing"].items()
    ]
    lines += [f"- {name}: {why}." for name, why in results["left_out"].items()]
    lines += [
        "- TLS on either side, HTTP/2, several cores, networks other than loopback, real providers, and answers that",
        "  take as long as a model's.",
        "- What a feature costs by itself; peers with a database, with keys of their own or with callbacks.",
    ]
    if results["resumed"]:
        lines.append("- This run was interrupted and taken up again, so its rounds are not from one stretch of time.")
    return "\n".join(lines) + "\n"
