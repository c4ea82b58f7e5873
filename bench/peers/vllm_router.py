"""vLLM's router, in Rust: a compiled gateway in front of servers of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.peers.packages import PythonPeer
from bench.rig import free_port


class VLLMRouter(PythonPeer):
    """vLLM's router. It has no keys and no limits; the nearest to a compiled relay that knows the protocol."""

    name = "vllm-router"
    title = "vllm-router (Rust)"
    setup = "one upstream, round robin, retries and circuit breaker as shipped, log at error; no keys, no limits"
    requirement = "vllm-router==0.1.17"

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Return how it is started."""
        server = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        behaviour = ["--policy", "round_robin", "--log-level", "error"]
        upstream = ["--worker-urls", f"http://127.0.0.1:{upstream_port}"]
        return [self.program("python"), self.program("vllm-router"), *server, *behaviour, *upstream]
