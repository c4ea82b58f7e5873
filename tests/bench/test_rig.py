"""The load generator and the upstream, against each other and against servers that misbehave."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from bench.peers.direct import Direct
from bench.rig import Load, Rig

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the rig is written in C, and there is no compiler")

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
EVENT = b'data: {"content":"@0000000000000000001 and"}\n\n'
DONE = b"data: [DONE]\n\n"


def chunked(*pieces: bytes) -> bytes:
    """Return an answer in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start the rig."""
    core = min(os.sched_getaffinity(0))
    with Rig(core, tmp_path_factory.mktemp("rig")) as started:
        yield started


@contextmanager
def server(respond: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection after the other: each request, in whatever pieces, is followed by `respond`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # The load generator leaves when its time is up.
                received = b""
                while piece := connection.recv(65536):
                    received += piece
                    head, _, body = received.partition(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                    if len(body) >= length:
                        received = b""
                        respond(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def byte_by_byte(answer: bytes) -> Callable[[socket.socket], None]:
    """Send an answer in as many pieces as it has bytes."""

    def respond(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(answer)):
            connection.sendall(answer[at : at + 1])

    return respond


def load(rig: Rig, port: int, mode: str) -> dict[str, float]:
    """Put a short load of one connection on a port and return what was seen."""
    running = rig.start_load(Direct(Path()), port, Load(mode, 1, 0.3, warm_up_seconds=0.0))
    out, _ = running.communicate(timeout=20)
    seen: dict[str, float] = json.loads(out)
    return seen


def test_every_call_is_answered_and_counted(rig: Rig) -> None:
    """The load generator and the upstream agree on the number of calls."""
    before = rig.stats()["calls"]
    running = rig.start_load(Direct(Path()), rig.port, Load("closed", 8, 0.3, warm_up_seconds=0.0))
    seen = json.loads(running.communicate(timeout=20)[0])
    answered = rig.stats()["calls"] - before - 1  # The question for the counters is itself a call.
    assert seen["failed"] == 0
    assert seen["calls"] > 0
    # At the end each connection may have a call that was answered too late to count, and one that was not answered.
    assert seen["calls"] <= answered <= seen["calls"] + 2 * 8


def test_an_open_loop_keeps_its_rate(rig: Rig) -> None:
    """Calls arrive as often as was asked, whatever the answers do: within what chance allows."""
    running = rig.start_load(
        Direct(Path()), rig.port, Load("open", 16, 1.0, warm_up_seconds=0.0, calls_per_second=2000)
    )
    seen = json.loads(running.communicate(timeout=20)[0])
    arrived = seen["calls"] + seen["unanswered_at_end"]
    assert seen["failed"] == 0
    assert 1700 < arrived < 2300


def test_every_event_of_a_stream_tells_when_it_was_sent(rig: Rig) -> None:
    """Streams end well, no event is lost, and none seems to arrive before it was sent."""
    rig.shape_streams(events=20, interval_seconds=0.001)
    seen = load(rig, rig.port, "stream")
    assert seen["failed"] == seen["bad_stamps"] == 0
    assert seen["calls"] > 0
    assert seen["events"] >= 20 * seen["calls"]


def test_the_upstream_reads_a_chunked_request(rig: Rig) -> None:
    """A gateway that streams its request on is answered like any other."""
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=5)
    pieces = iter([b'{"model":"mock",', b'"stream": true}'])
    rig.shape_streams(events=2, interval_seconds=0)
    connection.request(
        "POST", "/v1/chat/completions", pieces, {"Content-Type": "application/json"}, encode_chunked=True
    )
    answer = connection.getresponse().read()
    assert answer.count(b"@") == 2
    assert answer.endswith(DONE)
    connection.close()


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        ("closed", WHOLE),
        ("closed", chunked(b"{", b"}")),
        ("stream", chunked(EVENT, EVENT[:20], EVENT[20:] + DONE)),
    ],
)
def test_an_answer_may_be_cut_anywhere(rig: Rig, mode: str, answer: bytes) -> None:
    """Answers are understood byte by byte, and several over one connection."""
    with server(byte_by_byte(answer)) as port:
        seen = load(rig, port, mode)
    assert seen["failed"] == 0
    assert seen["calls"] > 1
    if mode == "stream":
        assert seen["bad_stamps"] == 0
        assert seen["events"] >= 2 * seen["calls"]


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        ("closed", b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}"),
        ("closed", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}!"),
        ("closed", b"what?\r\n\r\n"),
        ("stream", chunked(EVENT)),
        ("stream", chunked(b"data: {}\n\n", b"data: [DONE")),
    ],
)
def test_what_is_not_a_good_answer_is_a_failure(rig: Rig, mode: str, answer: bytes) -> None:
    """A bad status, bytes too many, nonsense, and a stream without its end are never counted as calls."""
    with server(lambda connection: connection.sendall(answer)) as port:
        seen = load(rig, port, mode)
    assert seen["calls"] == 0
    assert seen["failed"] > 0


def test_a_truncated_answer_is_a_failure(rig: Rig) -> None:
    """A connection that ends inside of an answer fails the call."""

    def cut(connection: socket.socket) -> None:
        connection.sendall(WHOLE[:-1])
        connection.shutdown(socket.SHUT_RDWR)

    with server(cut) as port:
        seen = load(rig, port, "closed")
    assert seen["calls"] == 0
    assert seen["failed"] > 0
