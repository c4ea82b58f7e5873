"""Real proxies in miniature: HTTP CONNECT and SOCKS5, which relay to 127.0.0.1 whatever name they are asked for.

Each owns one listening socket on 127.0.0.1 and notes what it was asked (`asked`, `credentials`), so that a test sees
whether a name or an address arrived. They must not understand what they relay. The transport's tests use them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from abc import ABC, abstractmethod
from typing import Self

_SOCKS_VERSION = 5
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NO_AUTHENTICATION, _PASSWORD, _NO_METHOD = 0, 2, 255


class _Proxy(ABC):
    """A listening socket whose connections are relayed after a handshake."""

    def __init__(
        self, *, password: str | None = None, refuses: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        """Ask for `user:password` when there is a password; `refuses` says no to every wish."""
        self.port = 0
        self.asked: list[tuple[str, int]] = []
        self.credentials: list[str] = []
        self.open_count = 0
        self._password = password
        self._refuses = refuses
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @abstractmethod
    async def handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        """Return the port to relay to, or None after a refusal."""

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def accepts(self, credentials: str) -> bool:
        """Note the credentials and judge them."""
        self.credentials.append(credentials)
        return credentials == f"user:{self._password}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._tasks.add(task)
        self.open_count += 1
        try:
            port = await self.handshake(reader, writer)
            if port is not None:
                await self._relay(reader, writer, port)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # One of the ends has gone, or the test is over.
            pass
        finally:
            self.open_count -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    @staticmethod
    async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()

        pumps = [asyncio.create_task(pump(reader, far_writer)), asyncio.create_task(pump(far_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        finally:
            far_writer.transport.abort()
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


class ConnectProxy(_Proxy):
    """An HTTP proxy that knows CONNECT; `reply` is what it says instead of its own success, in these pieces."""

    reply: tuple[bytes, ...] = (b"HTTP/1.1 200 Connection established\r\n\r\n",)

    async def handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        """Read one CONNECT request and answer it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, authority, _ = head.split("\r\n", 1)[0].split(" ")
        host, _, port = authority.rpartition(":")
        if method != "CONNECT" or f"\r\nHost: {authority}\r\n" not in head:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return None
        self.asked.append((host, int(port)))
        if self._password is not None:
            shown = head.partition("Proxy-Authorization: Basic ")[2].split("\r\n")[0]
            if not self.accepts(base64.b64decode(shown).decode()):
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                await writer.drain()
                return None
        if self._refuses:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return None
        for piece in self.reply:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        return int(port)


class Socks5Proxy(_Proxy):
    """A SOCKS5 proxy (RFC 1928, RFC 1929) that knows CONNECT."""

    async def handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        """Agree on a method, check the password, read the wish and answer it."""
        _, method_count = await reader.readexactly(2)
        methods = await reader.readexactly(method_count)
        method = _NO_AUTHENTICATION if self._password is None else _PASSWORD
        if method not in methods:
            method = _NO_METHOD
        writer.write(bytes([_SOCKS_VERSION, method]))
        if method == _NO_METHOD:
            await writer.drain()
            return None
        if method == _PASSWORD and not await self._check_password(reader, writer):
            return None
        _, _, _, kind = await reader.readexactly(4)
        if kind == _NAME:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == _IPV4 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.readexactly(size))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((host, port))
        verdict = 2 if self._refuses else 0
        writer.write(bytes([_SOCKS_VERSION, verdict, 0, _IPV4]) + bytes(6))
        await writer.drain()
        return None if self._refuses else port

    async def _check_password(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reader.readexactly(1)
        user = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        password = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        is_right = self.accepts(f"{user}:{password}")
        writer.write(bytes([1, 0 if is_right else 1]))
        await writer.drain()
        return is_right
