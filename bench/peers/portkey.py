"""Portkey's gateway, in Node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bench.peers.packages import NodePeer


class Portkey(NodePeer):
    """Portkey's gateway. Where a call goes is told by its headers."""

    name = "portkey"
    title = "Portkey (Node)"
    setup = (
        "as npm installs it, but for `@hono/node-server`, which is held at 1.13.8: with the one npm takes every stream "
        "ends in a 500 (Portkey-AI/gateway#1389)"
    )
    requirement = "@portkey-ai/gateway==1.15.2"
    overrides = MappingProxyType({"@hono/node-server": "1.13.8"})
    more_environment = MappingProxyType({"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"})
    is_slow = True

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Return how it is started."""
        del upstream_port
        server = self.folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        return [self.node(), server, f"--port={port}", "--headless"]

    def headers(self, upstream_port: int) -> Mapping[str, str]:
        """Return the headers that tell it where to send a call."""
        upstream = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1"}
        return {"authorization": "Bearer none", **upstream}
