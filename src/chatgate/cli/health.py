"""Own the command `chatgate health`: the health check of the container, which has no curl."""

from __future__ import annotations

import asyncio
import sys

import click

from chatgate.cli.options import load_or_exit, settings_options
from chatgate.transport import Transport
from chatgate.vocabulary.errors import UpstreamError
from chatgate.vocabulary.exchange import OutboundRequest
from chatgate.vocabulary.upstreams import Origin, Timeouts

_OK = 200
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@click.command("health")
@settings_options
def health(**arguments: object) -> None:
    """Ask the gateway of this configuration whether it is alive; exit 1 when it is not."""
    server = load_or_exit(arguments).server
    host = _EVERYWHERE.get(server.host, server.host)
    try:
        status = asyncio.run(_ask(host, server.port))
    except UpstreamError as error:
        click.echo(f"no answer from {host}:{server.port} ({error.reason})", err=True)
        sys.exit(1)
    click.echo("ok" if status == _OK else f"status {status}")
    sys.exit(0 if status == _OK else 1)


async def _ask(host: str, port: int) -> int:
    transport = Transport()
    transport.start()
    try:
        head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await transport.send(OutboundRequest(Origin("http", host, port), head, b"", Timeouts(2, 2, 2, 4)))
        answer.close()
        return answer.status
    finally:
        await transport.close()
