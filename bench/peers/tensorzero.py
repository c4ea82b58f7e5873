"""TensorZero's gateway, in Rust; its Python package carries the whole of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.peers.packages import PythonPeer

CONFIGURATION = """\
[gateway]
observability.enabled = false

[models.mock]
routing = ["upstream"]

[models.mock.providers.upstream]
type = "openai"
model_name = "mock"
api_base = "http://127.0.0.1:{upstream_port}/v1/"
api_key_location = "none"
"""

STARTER = """\
import sys, time
from tensorzero import tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print("listening on", gateway.base_url, flush=True)
while True:
    time.sleep(3600)
"""


class TensorZero(PythonPeer):
    """TensorZero's gateway, started from its Python package, which then only waits and takes a port of its choice."""

    name = "tensorzero"
    title = "TensorZero (Rust)"
    setup = "from its Python package, observability off, no database, its OpenAI-compatible path"
    requirement = "tensorzero==2026.6.0"
    path = "/openai/v1/chat/completions"
    model = "tensorzero::model_name::mock"

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Write tensorzero.toml and return how it is started."""
        file = self.folder / f"tensorzero-{port}.toml"
        file.write_text(CONFIGURATION.format(upstream_port=upstream_port))
        return [self.program("python"), "-c", STARTER, file]

    def bound_port(self, asked_port: int, log: Path) -> int | None:
        """Return the port it chose."""
        del asked_port
        found = re.search(r"listening on http://[\d.]+:(\d+)/", log.read_text(errors="replace"))
        return int(found[1]) if found else None
