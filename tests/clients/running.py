"""Other people's programs, run so that they find nothing but this machine: a home of their own, and no way out.

Every address but 127.0.0.1 goes to a proxy that lets nobody through and keeps a record of who asked; a client that
phones home is found out. Tests of clients that are programs use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
NODE, AGENTS = FOLDER / "node", FOLDER / "agents"
PYTHON = FOLDER.parents[1] / ".venv-clients" / "bin" / "python"
PATIENCE_SECONDS = 120.0
"""How long a program may take; the machine may be busy."""


class Home:
    """A folder to live in, and who was asked for from there. `asked` are the first lines that the proxy got."""

    def __init__(self, folder: Path, proxy: str, asked: list[str]) -> None:
        """Take an empty folder."""
        self.folder = folder
        self.asked = asked
        self._proxies = {name: proxy for each in ("http", "https", "all") for name in _spellings(f"{each}_proxy")}

    async def run(
        self, *command: str | Path, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run a program that has to succeed; return what it printed."""
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=folder or self.folder,
            env={**self._environment(), **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, complaints = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"{complaints.decode()[-3000:]}\n{output.decode()[-3000:]}"
        assert self.asked == [], "it asked for more than the gateway"
        return output.decode()

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **self._proxies,
        }


@contextlib.asynccontextmanager
async def home(folder: Path) -> AsyncIterator[Home]:
    """Make a home in a folder, and watch over who leaves it."""
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode("latin-1").strip())
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield Home(folder, f"http://127.0.0.1:{port}", asked)


def need_node(folder: Path, package: str) -> None:
    """Skip a test, with a word, where Node or a package is not installed."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (folder / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is not installed: make clients")


def need_python() -> None:
    """Skip a test, with a word, where the clients for Python are not installed."""
    if not PYTHON.exists():
        pytest.skip("clients for Python are not installed: make clients")


def _spellings(name: str) -> tuple[str, str]:
    return name, name.upper()
