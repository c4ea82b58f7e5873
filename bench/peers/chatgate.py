"""chatgate itself, as an operator starts it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from bench.peers.peer import Peer, bytes_under

ROOT = Path(__file__).parents[2]
EVERY_CALL = "1000000000"


def locked_packages() -> list[str]:
    """Return the names of what the gateway is installed with, from the lock."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [found[1] for line in lines if (found := re.match(r"([\w.-]+)==", line))]


def distribution_bytes(names: Sequence[str]) -> int:
    """Return the size of installed packages' files; one that this platform does not need counts nothing."""
    total = 0
    for name in names:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        paths = [Path(str(file.locate())) for file in files if "__pycache__" not in str(file)]
        total += sum(path.stat().st_size for path in paths if path.is_file())
    return total


class Chatgate(Peer):
    """The gateway under test."""

    name = "chatgate"
    title = "chatgate (Python)"
    setup = "`chatgate serve`, one worker; a limit per address, metrics and the log on"

    def version(self) -> str:
        """Return the version of this checkout."""
        return metadata.version("chatgate")

    def installed_bytes(self) -> int:
        """Return the size of the package and of everything it is installed with."""
        return bytes_under(ROOT / "src" / "chatgate") + distribution_bytes(locked_packages())

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Return how it is started; what it needs is in its environment."""
        del upstream_port
        return [sys.executable, "-m", "chatgate", "serve", "--host", "127.0.0.1", "--port", str(port)]

    def environment(self, upstream_port: int) -> Mapping[str, str]:
        """Return the settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return {
            "API_KEY": "sk-test-bench",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
            "MINUTE_LIMIT": EVERY_CALL,
            "CHATGATE_DATA": str(self.folder / "data"),
        }
