"""WebSockets: who gets one, what is said over it, what breaks it, and when it ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable

import pytest

from fakes.conversation import FAREWELL
from server.frames import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    PING,
    PONG,
    TEXT,
    Reader,
    frame,
    handshake,
    open_talk,
    text,
)
from server.running import (
    Clock,
    RunningServer,
    ends_in_reset,
    eventually,
    read_to_end,
    read_until,
    send_until_stuck,
)

# --- The handshake ----------------------------------------------------------------------------------------------------


def test_a_handshake_is_accepted(server: RunningServer) -> None:
    """With the key's digest, an id, and without extensions or protocols; what comes right behind it is heard."""
    with server.connect() as connection:
        offers = b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n"
        connection.sendall(handshake(more=offers) + text("echo early"))
        head, _, rest = read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
        assert Reader(connection, rest).said() == "echo early"
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    digest = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    assert b"Sec-WebSocket-Accept: " + digest in lines
    assert any(line.startswith(b"x-request-id: req_") for line in lines)
    assert not any(
        line.lower().startswith((b"sec-websocket-ext", b"sec-websocket-prot", b"content-l")) for line in lines
    )


@pytest.mark.parametrize(
    "head",
    [
        handshake(version=b"8"),
        handshake(key=b"short"),
        handshake(key=b"AAECAwQFBgcICQoLDA0ODw==, AAECAwQFBgcICQoLDA0ODw=="),
        handshake(more=b"Content-Length: 5\r\n") + b"hello",
        handshake(more=b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
        handshake().replace(b"HTTP/1.1", b"HTTP/1.0"),
        handshake().replace(b"keep-alive, Upgrade", b"keep-alive"),
        handshake().replace(b"GET", b"POST"),
    ],
    ids=["version", "short key", "two keys", "body", "chunks", "HTTP/1.0", "no upgrade", "POST"],
)
def test_a_broken_handshake_is_refused(server: RunningServer, head: bytes) -> None:
    """In HTTP, and the connection ends."""
    assert server.exchange(head).startswith(b"HTTP/1.1 400 ")
    assert server.gate.conversations == []


def test_who_may_not_talk_is_told_in_http(server: RunningServer) -> None:
    """The gateway has the last word, and it may take its time."""
    assert server.exchange(handshake("/no-talk")).startswith(b"HTTP/1.1 401 ")


# --- What is said -----------------------------------------------------------------------------------------------------


def test_messages_are_answered_one_after_the_other(server: RunningServer) -> None:
    """In the order they came, in one piece or in many, with pings between the pieces."""
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(text("echo 1") + text("echo 2"))
        assert [reader.said(), reader.said()] == ["echo 1", "echo 2"]
        pieces = [frame(TEXT, b"echo ", fin=False), frame(PING, b"?"), frame(CONT, b"", fin=False), frame(CONT, b"3")]
        for byte in b"".join(pieces):
            connection.sendall(bytes([byte]))
        assert reader.frame() == (PONG, b"?")
        assert reader.said() == "echo 3"
        long = "x" * 200_000
        connection.sendall(text(long))
        assert reader.said() == long


def test_many_messages_at_once_are_answered_in_order(server: RunningServer) -> None:
    """With pings among them, however many come together."""
    connection, reader = open_talk(server)
    count = 5000
    with connection:
        connection.sendall(b"".join(text(f"echo {number}") + frame(PING) for number in range(count)))
        heard = [reader.frame() for _ in range(2 * count)]
        assert [said for opcode, said in heard if opcode == TEXT] == [b"echo %d" % number for number in range(count)]
        assert heard.count((PONG, b"")) == count


def test_lanes_run_beside_each_other(server: RunningServer) -> None:
    """What waits in one lane waits for nobody in another; in its own it keeps its place."""
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(text("a|hold") + text("a|echo later") + text("b|echo now") + text("echo too"))
        assert [reader.said() for _ in range(3)] == ["here", "echo now", "echo too"]
        assert eventually(lambda: server.server.in_flight == 1)


def test_no_more_than_enough_is_read(start: Callable[..., RunningServer]) -> None:
    """A caller who sends on while turns wait is not read."""
    server = start()
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(text("hold"))
        assert reader.said() == "here"
        connection.settimeout(0.3)
        assert send_until_stuck(connection, text("x" * 65_000), 1024) < 1024
        assert len(server.gate.conversations[0].taken) < 64


def test_a_slow_reader_is_waited_for(start: Callable[..., RunningServer]) -> None:
    """Nothing is piled up for one who does not read; who stays that way is dropped."""
    clock = Clock()
    server = start(clock=clock, write_buffer_bytes=65_536, stall_seconds=60.0)
    connection, _ = open_talk(server, receive_buffer_bytes=4096)
    with connection:
        connection.sendall(text("flood"))
        assert eventually(lambda: _is_paused(server))
        for _ in range(3):
            clock.now += 61.0
            server.sweep()
        assert eventually(lambda: server.server.connections == 0)
    assert server.gate.left == ["client left"]


def _is_paused(server: RunningServer) -> bool:
    return any(each.is_congested for each in list(server.server._state.connections))


# --- What breaks it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"echo", masked=False), 1002),
        (frame(TEXT, b"echo", bits=0x40), 1002),
        (frame(3, b""), 1002),
        (frame(CONT, b"x"), 1002),
        (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(CLOSE, b"\x00"), 1002),
        (frame(BINARY, b"echo"), 1003),
        (frame(TEXT, b"echo \xff"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("), 1007),
        (frame(TEXT, b"x" * 2001), 1009),
        (frame(TEXT, b"x" * 1500, fin=False) + frame(CONT, b"x" * 501), 1009),
        (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
        (text("bug"), 1011),
    ],
)
def test_what_breaks_a_rule_ends_it(start: Callable[..., RunningServer], data: bytes, code: int) -> None:
    """With the code that says which rule; nobody's call goes on."""
    server = start(body_bytes=2000)
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(text("a|hold"))
        assert reader.said() == "here"
        connection.sendall(data)
        assert reader.close_code() == code
        assert eventually(lambda: server.gate.left == ["client left"])
        connection.sendall(frame(CLOSE, code.to_bytes(2)))
        assert read_to_end(connection) == b""
    assert eventually(lambda: server.server.in_flight == server.server.connections == 0)


def test_a_bug_ends_one_connection(server: RunningServer) -> None:
    """By a reset, and the call that runs with it."""
    connection, reader = open_talk(server)
    other, other_reader = open_talk(server)
    with connection, other:
        connection.sendall(text("a|hold"))
        assert reader.said() == "here"
        connection.sendall(text("broken"))
        assert ends_in_reset(connection)
        assert eventually(lambda: server.gate.left == ["client left"])
        other.sendall(text("echo"))
        assert other_reader.said() == "echo"


def test_what_has_to_be_done_before_anything_leaves_is_done(server: RunningServer) -> None:
    """A message, and a hard end, leave after what the server's burst has to have done before."""
    done: list[str] = []
    connection, reader = open_talk(server)
    server.burst.before = lambda: done.append("before")
    with connection:
        connection.sendall(text("echo"))
        assert reader.said() == "echo"
        assert done
        done.clear()
        connection.sendall(text("broken"))
        assert ends_in_reset(connection)
        assert done


def test_empty_fragments_cost_nothing(server: RunningServer) -> None:
    """However many there are."""
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(frame(TEXT, b"echo", fin=False) + frame(CONT, fin=False) * 10_000 + frame(CONT))
        assert reader.said() == "echo"


# --- When it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "end", "reset"])
def test_a_caller_who_leaves_ends_their_calls(server: RunningServer, how: str) -> None:
    """A close is answered."""
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(text("a|hold") + text("b|hold"))
        assert [reader.said(), reader.said()] == ["here", "here"]
        if how == "close":
            connection.sendall(frame(CLOSE, (1000).to_bytes(2)))
            assert reader.close_code() == 1000
    assert eventually(lambda: server.gate.left == ["client left"] * 2)
    assert server.gate.conversations[0].has_ended
    assert eventually(lambda: server.server.in_flight == server.server.connections == 0)


def test_a_drain_lets_calls_end(start: Callable[..., RunningServer]) -> None:
    """Who has none is sent away at once, who has one after it, and nothing new begins."""
    server = start()
    idle, idle_reader = open_talk(server)
    busy, busy_reader = open_talk(server)
    with idle, busy:
        busy.sendall(text("hold") + text("echo later"))
        assert busy_reader.said() == "here"
        drained = server.begin(server.server.drain(0.4, listener_grace_seconds=0))
        assert idle_reader.close_code() == 1001
        idle.sendall(frame(CLOSE, (1001).to_bytes(2)))
        assert busy_reader.said() == "draining"
        assert busy_reader.close_code() == 1001
        busy.sendall(frame(CLOSE, (1001).to_bytes(2)))
        drained()
    assert server.gate.left == ["draining"]


def test_an_old_connection_ends(start: Callable[..., RunningServer], clock: Clock) -> None:
    """It is told so; a call that runs may end, and no other begins."""
    server = start(clock=clock, talk_seconds=100.0, ping_seconds=1000.0)
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(text("hold"))
        assert reader.said() == "here"
        clock.now += 501.0
        server.sweep()
        assert reader.said() == FAREWELL.decode()
        connection.sendall(text("echo too late"))
        server.run(_cancel(server))
        assert reader.said() == "draining"
        assert reader.close_code() == 1001


async def _cancel(server: RunningServer) -> None:
    for each in list(server.server._state.connections):
        each.cancel("draining")
    await asyncio.sleep(0)


def test_an_idle_connection_is_closed(start: Callable[..., RunningServer], clock: Clock) -> None:
    """Not while it is used."""
    server = start(clock=clock, talk_idle_seconds=600.0, ping_seconds=10_000.0, talk_seconds=1e9)
    connection, reader = open_talk(server)
    with connection:
        for _ in range(3):
            clock.now += 5000.0 / 9
            server.sweep()
            connection.sendall(text("echo"))
            assert reader.said() == "echo"
        server.sweep()
        clock.now += 5001.0
        server.sweep()
        assert reader.close_code() == 1001


def test_one_who_answers_no_ping_is_dropped(start: Callable[..., RunningServer], clock: Clock) -> None:
    """One who does stays."""
    server = start(clock=clock, ping_seconds=30.0)
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(text("hold"))
        assert reader.said() == "here"
        for _ in range(5):
            clock.now += 31.0
            server.sweep()
            assert reader.frame() == (PING, b"")
            connection.sendall(frame(PONG) + text("b|echo heard"))
            assert reader.said() == "echo heard"
        clock.now += 61.0
        server.sweep()
        assert ends_in_reset(connection)
    assert eventually(lambda: server.gate.left == ["client left"])


def test_a_message_has_to_arrive(start: Callable[..., RunningServer], clock: Clock) -> None:
    """One that is sent too slowly ends the connection."""
    server = start(clock=clock, body_seconds=30.0, ping_seconds=1000.0)
    connection, reader = open_talk(server)
    with connection:
        connection.sendall(frame(TEXT, b"ec", fin=False))
        assert eventually(lambda: bool(_began(server)))
        clock.now += 501.0
        server.sweep()
        assert reader.close_code() == 1008


def _began(server: RunningServer) -> list[object]:
    return [each for each in list(server.server._state.connections) if getattr(each, "_message", None)]
