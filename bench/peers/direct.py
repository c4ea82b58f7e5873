"""No gateway at all: the load goes straight to the upstream. What is left is what the rig itself can do and takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.peers.peer import Peer


class Direct(Peer):
    """The upstream, called directly."""

    name = "direct"
    title = "no gateway (the rig)"
    setup = "the load generator and the upstream share one core; nothing between them"

    def version(self) -> str:
        """Return what stands for a version: it is part of the rig."""
        return "–"

    def installed_bytes(self) -> int:
        """Return nothing: there is nothing to install."""
        return 0

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Raise: there is nothing to start."""
        raise NotImplementedError
