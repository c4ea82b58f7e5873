"""Opens connections: from a name to a socket, directly or through a proxy, with TLS on top where the origin wants it.

Owns name resolution, the connect deadline and the TLS contexts. Must not send anything of a call. Called by the
transport when the pool has nothing to offer.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import python_socks

from chatgate.transport import proxies
from chatgate.transport.sockets import connect_tcp
from chatgate.vocabulary.errors import Kind, Remedy, UpstreamError

if TYPE_CHECKING:
    from chatgate.transport.connection import Connection

_FAILURES = (OSError, ValueError, python_socks.ProxyError)
"""What dialling raises: sockets, names and TLS; names that cannot be encoded; proxies that refuse."""


class Dialler:
    """Connects connections."""

    __slots__ = ("_ssl_context",)

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        """Without a context, make one that trusts what the operating system trusts, when it is first needed."""
        self._ssl_context = ssl_context

    async def connect(self, connection: Connection, timeout_seconds: float) -> None:
        """Connect to the connection's origin.

        Raises `UpstreamError`: `upstream_unreachable`, or `upstream_connect_timeout` when names, sockets, proxy and TLS
        together take longer than `timeout_seconds`. Neither says where it tried to go: a proxy's URL is a secret.

        A timer of its own is affordable here: dialling is rare and costs far more.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                try:
                    await self._open(connection, timeout_seconds)
                except _FAILURES as error:
                    raise UpstreamError("upstream_unreachable") from error
        except TimeoutError as error:
            silent = UpstreamError("upstream_connect_timeout", kind=Kind.UPSTREAM_TIMEOUT)
            silent.remedy = Remedy.ANOTHER_TARGET  # It would keep the caller waiting again.
            raise silent from error

    async def _open(self, connection: Connection, timeout_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        origin = connection.origin
        tls = self._tls() if origin.scheme == "https" else None
        server_name = origin.host if tls else None
        proxy = proxies.read_proxy(origin.proxy) if origin.proxy else None
        if proxy is None:
            sock = await connect_tcp(origin.host, origin.port, timeout_seconds)
        elif proxy.scheme in proxies.SOCKS_SCHEMES:
            sock = await proxies.through_socks(proxy, origin.host, origin.port)
        else:
            proxy_tls = self._tls() if proxy.scheme == "https" else None
            tunnel = await proxies.through_http(proxy, proxy_tls, origin.host, origin.port, timeout_seconds)
            await self._adopt(tunnel, connection, tls, server_name)
            return
        await loop.create_connection(lambda: connection, sock=sock, ssl=tls, server_hostname=server_name)

    @staticmethod
    async def _adopt(
        tunnel: asyncio.Transport, connection: Connection, tls: ssl.SSLContext | None, server_name: str | None
    ) -> None:
        transport: asyncio.BaseTransport | None = tunnel
        if tls is None:
            tunnel.set_protocol(connection)
        else:
            loop = asyncio.get_running_loop()
            try:
                transport = await loop.start_tls(tunnel, connection, tls, server_hostname=server_name)
            except BaseException:
                tunnel.abort()
                raise
        if transport is None:
            raise ConnectionResetError("the connection ended during the TLS handshake")
        connection.connection_made(transport)

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            context = ssl.create_default_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
            self._ssl_context = context
        return self._ssl_context
