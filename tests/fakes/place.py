"""A gateway that runs, and the commands that an operator types beside it.

It runs the real commands on the gateway's data and configuration. Journeys of keys, limits and budgets call it, or make
more of it; who has gateways come and go in one directory wants `fakes.site`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from chatgate.cli import main
from fakes import http_client as http
from fakes.gateway import Gateway


@dataclass(frozen=True, slots=True)
class Place:
    """The gateway is one that a file's tests share, or one of a test's own."""

    gateway: Gateway

    @property
    def port(self) -> int:
        """Return where it listens."""
        return self.gateway.port

    def run(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command on the gateway's data, and return what it printed."""
        directory = self.gateway.directory
        where = ["--data", str(directory / "data"), "--config", str(directory / "chatgate.toml")]
        result = CliRunner().invoke(main, [*arguments, *where], env={"API_KEY": None})
        assert result.exit_code == exit_code, result.output
        return str(result.stdout)

    def keys(self, *arguments: str) -> dict[str, Any]:
        """Run `chatgate keys`, well, and return what it told."""
        told = json.loads(self.run("keys", *arguments, "--json"))
        assert isinstance(told, dict)
        return told

    def create(self, *options: str) -> tuple[str, http.Headers]:
        """Make a key; return its id, and the header that shows it."""
        made = self.keys("create", "anna", *options)
        return str(made["id"]), [http.bearer(made["key"])]

    def usage(self, key: str) -> dict[str, Any] | None:
        """Return what `chatgate usage` says of a key by its id, None when it has no call yet."""
        groups = json.loads(self.run("usage", "--by", "key", "--json"))
        return next((group for group in groups if group["key"] == key), None)
