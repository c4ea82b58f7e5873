"""Asks a proxy to relay: CONNECT for http and https proxies, SOCKS5 for socks5 and socks5h.

Owns proxy URLs and their credentials; neither may show up in an error or a log. Must not speak TLS to the origin: the
dialler does that inside the tunnel. Called by the dialler.

CONNECT is spoken here and not by python-socks, whose version 3.2 takes the first packet for the whole reply and speaks
TLS to a proxy only over streams that cannot be handed on. Plain http origins are reached by CONNECT too.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
from urllib.parse import unquote, urlsplit

import python_socks
from msgspec import Struct
from python_socks.async_.asyncio import Proxy as SocksProxy

from chatgate.transport.sockets import connect_tcp

SOCKS_SCHEMES = frozenset({"socks5", "socks5h"})

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_MAX_REPLY_BYTES = 64 * 1024
_END_OF_HEAD = b"\r\n\r\n"
_SUCCESS = re.compile(rb"HTTP/1\.[01] 2\d\d[ \r]")


class ProxyAddress(Struct, frozen=True):
    """A proxy, as its URL says. `username` is None when the URL has no credentials."""

    scheme: str
    host: str
    port: int
    username: str | None
    password: str

    def __repr__(self) -> str:
        """Hide everything that may be secret."""
        return f"ProxyAddress({self.scheme})"


def read_proxy(url: str) -> ProxyAddress:
    """Take a proxy's URL apart. Raises `ValueError`, which never repeats the URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("unusable proxy URL") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("unusable proxy URL")
    return ProxyAddress(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        username=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password or ""),
    )


async def through_socks(proxy: ProxyAddress, host: str, port: int) -> socket.socket:
    """Return a socket that a SOCKS5 proxy relays to the host; socks5h lets the proxy resolve the name.

    Raises `OSError`, `ValueError` or `python_socks.ProxyError`.
    """
    dialler = SocksProxy(
        python_socks.ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        username=proxy.username,
        password=proxy.password,
        rdns=proxy.scheme == "socks5h",
    )
    return await dialler.connect(host, port)


async def through_http(
    proxy: ProxyAddress, proxy_tls: ssl.SSLContext | None, host: str, port: int, timeout_seconds: float
) -> asyncio.Transport:
    """Return a transport that an HTTP proxy relays to the host; the proxy resolves the name.

    `proxy_tls` is for a proxy that is itself reached by TLS. Raises `OSError` or `ValueError`.
    """
    loop = asyncio.get_running_loop()
    sock = await connect_tcp(proxy.host, proxy.port, timeout_seconds)
    transport, reply = await loop.create_connection(
        lambda: _ConnectReply(loop), sock=sock, ssl=proxy_tls, server_hostname=proxy.host if proxy_tls else None
    )
    try:
        transport.write(_connect_request(proxy, host, port))
        await reply.accepted
    except BaseException:
        transport.abort()
        raise
    return transport


def _connect_request(proxy: ProxyAddress, host: str, port: int) -> bytes:
    """Render the request of RFC 9110 section 9.3.6, credentials by RFC 7617."""
    name = b"[%b]" % host.encode("ascii") if ":" in host else host.encode("idna")
    lines = [b"CONNECT %b:%d HTTP/1.1" % (name, port), b"Host: %b:%d" % (name, port)]
    if proxy.username is not None:
        credentials = base64.b64encode(f"{proxy.username}:{proxy.password}".encode())
        lines.append(b"Proxy-Authorization: Basic " + credentials)
    return b"\r\n".join(lines) + _END_OF_HEAD


class _ConnectReply(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT; `accepted` then has a result, or an `OSError`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.accepted: asyncio.Future[None] = loop.create_future()
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.accepted.done():
            return
        end = self._head.find(_END_OF_HEAD)
        if end < 0 and len(self._head) <= _MAX_REPLY_BYTES:
            return
        # Nothing may follow the head: the origin speaks only after it was spoken to.
        if _SUCCESS.match(self._head) and end == len(self._head) - len(_END_OF_HEAD):
            self.accepted.set_result(None)
        else:
            self.accepted.set_exception(ConnectionRefusedError("the proxy refused to relay"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.accepted.done():
            failure = ConnectionResetError("the proxy closed the connection")
            failure.__cause__ = exc
            self.accepted.set_exception(failure)
