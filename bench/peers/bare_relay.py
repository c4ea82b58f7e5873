"""The bare relay as a peer; `relay.py` beside this file is the program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from bench.peers.chatgate import distribution_bytes
from bench.peers.peer import Peer

PROGRAM = Path(__file__).with_name("relay.py")


class BareRelay(Peer):
    """The floor of a Python gateway."""

    name = "relay"
    title = "bare relay (Python)"
    setup = "`bench/peers/relay.py`: callbacks on uvloop and httptools, and nothing that makes a gateway"

    def version(self) -> str:
        """Return the versions of what it is built from."""
        return f"uvloop {metadata.version('uvloop')}, httptools {metadata.version('httptools')}"

    def installed_bytes(self) -> int:
        """Return the size of the program and of what it is built from."""
        return PROGRAM.stat().st_size + distribution_bytes(["uvloop", "httptools"])

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Return how it is started."""
        return [sys.executable, PROGRAM, str(port), str(upstream_port)]
