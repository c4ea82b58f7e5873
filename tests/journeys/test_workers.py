"""Several workers on one port: they share the calls, are counted as one, and come and go without being noticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chatgate.app.life import COUNTING_NAME
from fakes import gateway as gateway_process
from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
EVENTS = scripts.text_events("one two three")
DEMO = http.chat("Hi", "demo/echo")
PREFIX_CHARACTERS = len("req_") + 12
"""The part of a request's id that is the same for all requests of a process."""

ATTEMPTS = 200
"""The kernel throws a coin for each connection: so many times the same side does not come up."""


@contextlib.asynccontextmanager
async def running(upstream: FakeUpstream) -> AsyncIterator[Gateway]:
    """Run a gateway of two workers, and wait until both take calls."""
    environment = {"OPENAI_BASE_URL": upstream.base_url, "API_KEY": "sk-test-server-1200", "CHATGATE_WORKERS": "2"}
    async with gateway_process.running(environment) as gateway:
        await eventually(lambda: len(started(gateway)) == 2)
        yield gateway


async def eventually(condition: Any) -> None:
    """Return once it holds; the workers' lines and ends come when they come."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.01)


def workers_of(gateway: Gateway) -> list[int]:
    """Return the process ids of the workers that live; what counts for them is none."""
    parent = gateway.process.pid
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(child) for child in children if is_alive(int(child)) and name_of(int(child)) != COUNTING_NAME]


def name_of(pid: int) -> str:
    """Return what a process is called in lists of processes, "" for one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid: int) -> bool:
    """Tell whether a process runs: one that is dead and not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def lines_of(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the log so far."""
    return [json.loads(line) for line in gateway.output().splitlines() if line.startswith("{")]


def started(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the lines with which workers said that they take calls."""
    return [line for line in lines_of(gateway) if line["event"] == "started"]


def process_of(response: http.Head) -> str:
    """Return what tells the processes apart."""
    return (response.header("x-request-id") or "")[:PREFIX_CHARACTERS]


async def call_until_both(gateway: Gateway) -> int:
    """Call until both workers answered; return how many calls it took."""
    processes: set[str] = set()
    for attempt in range(1, ATTEMPTS):
        response = await http.post_json(gateway.port, CHAT, DEMO)
        assert response.status == 200
        processes.add(process_of(response))
        if len(processes) == 2:
            return attempt
    raise AssertionError("one worker gets all calls")


async def scrapes(gateway: Gateway) -> list[str]:
    """Return the metrics as each of the two workers tells them, once the calls that were answered are counted.

    A caller has his answer a tenth of a second before it is counted, and may ask the other worker meanwhile.
    """
    await asyncio.sleep(0.5)
    told: dict[str, str] = {}
    for _ in range(ATTEMPTS):
        response = await http.request(gateway.port, "GET", "/metrics")
        told[process_of(response)] = response.body.decode()
        if len(told) == 2:
            return list(told.values())
    raise AssertionError("one worker gets all calls")


def counted(metrics: str, name: str) -> float:
    """Return a metric, added up over its labels."""
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", metrics, re.MULTILINE)
    assert found, metrics
    return sum(map(float, found))


async def test_both_workers_answer_and_the_log_says_which(upstream: FakeUpstream) -> None:
    """The banner comes first and once; each line of the log is whole, and says whose it is."""
    async with running(upstream) as gateway:
        calls = await call_until_both(gateway)
        await eventually(lambda: sum(line["event"] == "call" for line in lines_of(gateway)) == calls)
        assert {line["worker"] for line in started(gateway)} == {1, 2}
        assert {line["worker"] for line in lines_of(gateway) if line["event"] == "call"} == {1, 2}
        output = gateway.output()
        assert output.startswith("chatgate ")
        assert output.count("2 processes share the port") == output.count("Plain API") == 1
        assert output.index("chatgate chat") < output.index('"started"')
        assert f"http://127.0.0.1:{gateway.port}/v1" in output


async def test_a_single_worker_has_no_parent_and_no_number(upstream: FakeUpstream) -> None:
    """Without `--workers` there is one process, whose log is as it always was."""
    async with gateway_process.running({"OPENAI_BASE_URL": upstream.base_url}) as gateway:
        assert (await http.post_json(gateway.port, CHAT, DEMO)).status == 200
        assert workers_of(gateway) == []
        await eventually(lambda: any(line["event"] == "call" for line in lines_of(gateway)))
        assert not [line for line in lines_of(gateway) if "worker" in line]
        assert "processes share" not in gateway.output()


async def test_each_worker_tells_the_metrics_of_all_also_of_the_dead(upstream: FakeUpstream) -> None:
    """Counters never go back, whoever answers the scrape and whoever died; the gauges of the dead end with them."""
    async with running(upstream) as gateway:
        calls = await call_until_both(gateway)
        for metrics in await scrapes(gateway):
            assert counted(metrics, "chatgate_calls_total") == calls
            assert counted(metrics, "chatgate_call_duration_seconds_count") == calls
            assert counted(metrics, "chatgate_tokens_total") == 2 * calls
        async with contextlib.AsyncExitStack() as stack:
            held: dict[str, http.Connection] = {}
            for _ in range(20):
                connection = await stack.enter_async_context(await http.connect(gateway.port))
                held[process_of(await connection.request("GET", "/healthz"))] = connection
            await asyncio.sleep(0.3)  # Gauges are published ten times a second.
            for connection in held.values():
                metrics = (await connection.request("GET", "/metrics")).body.decode()
                assert counted(metrics, "chatgate_connections") == 20
            for worker in workers_of(gateway):
                os.kill(worker, signal.SIGKILL)
            await eventually(lambda: len(started(gateway)) == 4)
            for metrics in await scrapes(gateway):
                assert counted(metrics, "chatgate_calls_total") == calls
                assert counted(metrics, "chatgate_connections") < 20
        calls += await call_until_both(gateway)
        assert [counted(metrics, "chatgate_calls_total") for metrics in await scrapes(gateway)] == [calls, calls]


async def test_a_worker_that_is_killed_is_replaced(upstream: FakeUpstream) -> None:
    """The other one goes on with its stream and takes every new call; the successor says whom it replaces."""
    tap = Tap(2)
    async with running(upstream) as gateway:
        upstream.queue(scripts.stream(EVENTS, tap=tap))
        async with http.open_stream(gateway.port, CHAT, http.chat("Count", stream=True)) as stream:
            await stream.until(b"one")
            victim = idle_one(workers_of(gateway))
            os.kill(victim, signal.SIGKILL)
            # The parent knows when all of it is gone: its port, too, and not only its first thread.
            await eventually(lambda: "ended by signal 9; another one starts now" in gateway.output())
            for _ in range(20):
                assert (await http.post_json(gateway.port, CHAT, DEMO)).status == 200
            await eventually(lambda: len(started(gateway)) == 3)
            await call_until_both(gateway)
            tap.let(20)
            assert await stream.rest() == b"".join(EVENTS) + scripts.DONE
        (successor,) = [line for line in lines_of(gateway) if "replaces" in line]
        assert successor["replaces"] == "ended by signal 9"
        assert f"chatgate: worker {successor['worker']} ended by signal 9" in gateway.output()
        assert victim not in workers_of(gateway)
        assert len(workers_of(gateway)) == 2
        assert gateway.output().count("Plain API") == 1


def idle_one(pids: list[int]) -> int:
    """Return the worker that has no connections, when all but one have none."""
    idle = [pid for pid in pids if not established(pid)]
    assert len(idle) == len(pids) - 1
    return idle[0]


def established(pid: int) -> list[str]:
    """Return the established TCP connections of a process, as proc_net_tcp(5) and proc(5) tell them."""
    state, inode = 3, 9
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    established = {f"socket:[{row[inode]}]" for row in rows if row[state] == "01"}
    targets = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            targets.append(str(descriptor.readlink()))
    return [target for target in targets if target in established]


@pytest.mark.parametrize("to_everyone", [False, True], ids=["SIGTERM to the parent", "SIGINT to everyone"])
async def test_a_signal_drains_all_workers(upstream: FakeUpstream, to_everyone: bool) -> None:  # noqa: FBT001 - pytest passes parameters by name
    """Streams on both end as they should; what a terminal or a supervisor sends to every process is one signal."""
    taps: list[Tap] = []
    async with running(upstream) as gateway, contextlib.AsyncExitStack() as stack:
        streams: list[http.Stream] = []
        while len({process_of(stream.head) for stream in streams}) < 2:
            assert len(streams) < 20, "one worker gets all calls"
            taps.append(Tap(2))
            upstream.queue(scripts.stream(EVENTS, tap=taps[-1]))
            stream = await stack.enter_async_context(
                http.open_stream(gateway.port, CHAT, http.chat("Count", stream=True))
            )
            streams.append(stream)
        processes = [gateway.process.pid, *workers_of(gateway)]
        for process in processes if to_everyone else processes[:1]:
            os.kill(process, signal.SIGINT if to_everyone else signal.SIGTERM)
        await eventually(lambda: sum(line["event"] == "draining" for line in lines_of(gateway)) == 2)
        for tap, stream in zip(taps, streams, strict=True):
            tap.let(20)
            assert await stream.rest() == b"".join(EVENTS) + scripts.DONE
        assert await gateway.ended() == 0
        assert sum(line["event"] == "stopped" for line in lines_of(gateway)) == 2


async def test_a_second_signal_does_not_wait(upstream: FakeUpstream) -> None:
    """A stream that is open then ends with an error event on whichever worker it is."""
    upstream.queue(scripts.stream(EVENTS, tap=Tap(2)))
    async with running(upstream) as gateway:
        async with http.open_stream(gateway.port, CHAT, http.chat("Count", stream=True)) as stream:
            await stream.until(b"one")
            gateway.stop()
            await eventually(lambda: sum(line["event"] == "draining" for line in lines_of(gateway)) == 2)
            gateway.stop()
            said = await stream.rest()
        assert b"[DONE]" not in said
        assert json.loads(http.events_of(said)[-1])["error"]["code"] == "overloaded"
        assert await gateway.ended() == 0


async def test_nobody_outlives_a_parent_that_is_killed(upstream: FakeUpstream) -> None:
    """The workers end their streams with an error event, and themselves, and the port is free again."""
    upstream.queue(scripts.stream(EVENTS, tap=Tap(2)))

    async def story() -> None:
        async with running(upstream) as gateway:
            pids = workers_of(gateway)
            async with http.open_stream(gateway.port, CHAT, http.chat("Count", stream=True)) as stream:
                await stream.until(b"one")
                gateway.process.kill()
                said = await stream.rest()
            assert json.loads(http.events_of(said)[-1])["error"]["code"] == "overloaded"
            await eventually(lambda: not any(is_alive(pid) for pid in pids))
            with socket.socket() as successor:
                successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                successor.bind(("127.0.0.1", gateway.port))
            assert sum(line["event"] == "stopped" for line in lines_of(gateway)) == 2

    with pytest.raises(AssertionError, match="exit code -9"):
        await story()


async def refused(directory: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Return the exit code and all that is said by a gateway that does not start."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "chatgate", "serve", "--data", str(directory / "data"), *arguments),
        cwd=directory,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_port_in_use_is_told_once(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Whoever has it: a server that shares nothing, or a gateway whose workers share it among them."""
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        ports = [owner.getsockname()[1]]
        async with running(upstream) as gateway:
            ports.append(gateway.port)
            for port in ports:
                code, said = await refused(tmp_path, "--workers", "2", "--port", str(port))
                assert code == 1
                assert said.count("cannot listen") == 1
                assert "Traceback" not in said
                assert "Plain API" not in said


async def test_port_0_is_one_port_for_all(upstream: FakeUpstream, tmp_path: Path) -> None:
    """The parent takes a free one, and the banner names it."""
    environment = {"OPENAI_BASE_URL": upstream.base_url, "CHATGATE_WORKERS": "3", "CHATGATE_DATA": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chatgate", "serve", "--port", "0"),
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        told = (await asyncio.wait_for(process.stdout.readuntil(b"/v1\n"), 15)).decode()
        port = int(re.findall(r":(\d+)/v1\n", told)[0])
        seen = set()
        for _ in range(ATTEMPTS):
            seen.add(process_of(await http.post_json(port, CHAT, DEMO)))
        assert len(seen) == 3
    finally:
        process.terminate()
        output, _ = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0
    assert {json.loads(line)["port"] for line in output.splitlines() if b'"started"' in line} == {port}
