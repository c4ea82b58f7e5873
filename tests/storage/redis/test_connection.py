"""The connection to Redis: how long it waits, what it does when the server forgets or refuses, and how it logs in."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from chatgate.storage.redis import statements
from chatgate.storage.redis.connection import Connection, RedisError, RedisRefusedError, connect
from chatgate.storage.redis.probe import probe
from chatgate.vocabulary.stores import RedisAddress
from storage.redis.redis_server import RedisServer

OPEN = statements.open_session("p", 1, 100.0, "e", [])
KEY = statements.limit_key("k")
ASKS = [statements.Ask("window", KEY, 1, 1000, 10**9)]
TAKE = statements.take("p.1", 2**53, ASKS)


async def connected(server: RedisServer, patience_seconds: float = 5.0) -> Connection:
    """Connect, and begin a session."""
    connection = await connect(server.address, patience_seconds, 5.0)
    statements.session_of(await connection.ask(OPEN))
    return connection


def done(connection: Connection) -> None:
    """Close a connection."""
    connection.end(RedisError("the test is over"))


async def test_answers_come_to_those_who_asked(redis: RedisServer) -> None:
    """However many ask at once, and one who no longer waits is passed over."""
    connection = await connected(redis)
    asked = [connection.ask(TAKE) for _ in range(200)]
    asked[100].cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    used = [statements.took(answer, ASKS).rooms[0].used for answer in answers if isinstance(answer, list)]
    assert used == [number for number in range(200) if number != 100]
    done(connection)


async def test_an_answer_that_nobody_waits_for_is_told_to_who_gives_back(redis: RedisServer) -> None:
    """And so is one to what was only told."""
    connection = await connected(redis)
    late: list[object] = []
    connection.ask(TAKE, late.append).cancel()
    connection.tell(TAKE, late.append)
    await connection.command("PING")
    assert [statements.took(answer, ASKS).rooms[0].used for answer in late if isinstance(answer, list)] == [0, 1]
    done(connection)


async def test_a_server_that_has_forgotten_the_scripts_is_sent_them_again(redis: RedisServer) -> None:
    """Those who ask notice nothing."""
    connection = await connected(redis)
    redis.ask("SCRIPT", "FLUSH")
    for used in range(2):
        assert statements.took(await connection.ask(TAKE), ASKS).rooms[0].used == used
    done(connection)


async def test_a_frozen_server_is_waited_for_once_and_not_longer(redis: RedisServer) -> None:
    """All who wait are told at the same time, and whoever asks later at once."""
    connection = await connected(redis, 0.1)
    await asyncio.sleep(0)
    redis.send_signal(signal.SIGSTOP)
    try:
        began_at = time.monotonic()
        asked = [connection.ask(TAKE) for _ in range(50)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        waited = time.monotonic() - began_at
        assert all(isinstance(answer, RedisError) for answer in answers)
        assert waited >= 0.07
        assert (str(await connection.ended), connection.is_open) == ("the server does not answer", False)
        with pytest.raises(RedisError, match="does not answer"):
            await connection.ask(TAKE)
        with pytest.raises(RedisError, match="does not answer"):
            await connect(redis.address, 0.1, 0.1)
    finally:
        redis.send_signal(signal.SIGCONT)


async def test_a_loop_that_was_held_up_does_not_blame_the_server(redis: RedisServer) -> None:
    """The time is over and the answer is there: it counts."""
    connection = await connected(redis, 0.1)
    asked = connection.ask(TAKE)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - holding up the loop is the point
    assert statements.took(await asked, ASKS).is_taken
    done(connection)


async def test_a_server_that_dies_ends_the_connection() -> None:
    """Whoever waits is told at once."""
    server = RedisServer()
    try:
        connection = await connected(server)
        server.send_signal(signal.SIGSTOP)
        asked = connection.ask(TAKE)
        await asyncio.sleep(0.01)
        server.kill()
        with pytest.raises(RedisError):
            await asked
        with pytest.raises(RedisError, match=r"Connect|refused"):
            await connect(server.address, 0.1, 1.0)
    finally:
        server.remove()


async def test_a_refusal_is_told_in_one_line(redis: RedisServer) -> None:
    """To who waits for it; a refusal of what nobody waits for ends the connection, for it must not be overheard."""
    connection = await connected(redis)
    redis.ask("SET", KEY.decode(), "no-window")
    redis.ask("RPUSH", "{chatgate}:hold:c1", "no-hold")
    with pytest.raises(RedisRefusedError) as refused:
        await connection.ask(statements.settle_money("e", "c1", 1, []))
    assert "\n" not in str(refused.value)
    assert connection.is_open
    connection.tell(statements.settle_money("e", "c1", 1, []))
    assert isinstance(await connection.ended, RedisRefusedError)


async def test_a_server_whose_memory_is_full_refuses_and_takes_nothing() -> None:
    """Half of a call is never taken."""
    server = RedisServer()
    try:
        connection = await connected(server)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(RedisRefusedError, match="OOM"):
            await connection.ask(TAKE)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        assert statements.took(await connection.ask(TAKE), ASKS).rooms[0].used == 0
        done(connection)
    finally:
        server.remove()


async def test_it_logs_in_and_chooses_a_database() -> None:
    """With a password, or a name and a password; a wrong one is refused, and shown nowhere."""
    server = RedisServer("--requirepass", "pw-test", "--user", "anna", "on", ">p/w-t@est", "~*", "+@all")
    where = f"127.0.0.1:{server.port}"
    try:
        for login in (":pw-test", "default:pw-test", "anna:p%2Fw-t%40est"):
            connection = await connect(RedisAddress.parse(f"redis://{login}@{where}/3"), 1.0, 1.0)
            await connection.command("INCR", "logins")
            done(connection)
        connection = await connect(RedisAddress.parse(f"redis://:pw-test@{where}/3"), 1.0, 1.0)
        assert await connection.command("GET", "logins") == b"3"
        done(connection)
        for login in ("", ":pw-wrong@", "anna:pw-wrong@"):
            with pytest.raises(RedisRefusedError) as refused:
                await connect(RedisAddress.parse(f"redis://{login}{where}"), 1.0, 1.0)
            assert "pw-" not in str(refused.value)
    finally:
        server.remove()


async def test_a_unix_socket(tmp_path: Path) -> None:
    """It has no host and no port."""
    server = RedisServer("--unixsocket", str(tmp_path / "redis.sock"))
    try:
        assert (await probe(RedisAddress.parse(f"unix://{tmp_path}/redis.sock"))).startswith(("Redis ", "Valkey "))
    finally:
        server.remove()


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RedisServer, int]]:
    """Run a server that speaks TLS on another port, with a certificate for 127.0.0.1 that this process trusts."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = {"tls-cert-file": "cert.pem", "tls-key-file": "key.pem", "tls-ca-cert-file": "ca.pem"}
    options = [word for name, file in files.items() for word in (f"--{name}", str(tmp_path / file))]
    server = RedisServer("--tls-port", str(port), "--tls-auth-clients", "no", *options)
    yield server, port
    server.remove()


async def test_tls(tls_server: tuple[RedisServer, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate has to be one that the system trusts, and the server's own."""
    server, port = tls_server
    assert (await probe(RedisAddress.parse(f"rediss://127.0.0.1:{port}"))).startswith(("Redis ", "Valkey "))
    with pytest.raises(RedisError, match=r"(?i)hostname|doesn't match|not valid"):
        await probe(RedisAddress.parse(f"rediss://localhost:{port}"))
    with pytest.raises(RedisError):
        await probe(RedisAddress.parse(f"rediss://127.0.0.1:{server.port}"))
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(RedisError, match=r"(?i)certificate"):
        await probe(RedisAddress.parse(f"rediss://127.0.0.1:{port}"))


async def test_a_node_of_a_cluster_is_refused() -> None:
    """It would send us from node to node, and move what we count."""
    server = RedisServer("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    try:
        with pytest.raises(RedisRefusedError, match="Redis Cluster"):
            await connect(server.address, 1.0, 1.0)
    finally:
        server.remove()


async def test_what_is_no_redis_is_said_to_be_none() -> None:
    """A server of another kind answers in another language."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(RedisError, match=r"protocol|not asked"):
            await connect(RedisAddress("127.0.0.1", port), 1.0, 1.0)
