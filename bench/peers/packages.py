"""Peers that come as packages of Python or Node: installed once, into folders of their own."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from bench.peers.peer import Peer, UnavailableError, bytes_under, needed_program, run

INSTALLED = ".installed"
"""Written last, so that an installation that was interrupted is begun again; holds what was asked for."""


class PackagedPeer(Peer):
    """A peer that is installed as a package."""

    requirement: ClassVar[str]
    """What to install, with its version: `package==version`."""

    def install(self) -> None:
        """Install it unless this very version is there. Raises `UnavailableError`."""
        marker = self.folder / INSTALLED
        if marker.exists() and marker.read_text() == self.requirement:
            return
        print(f"installing {self.requirement}, once …", flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.install_package()
        marker.write_text(self.requirement)

    def install_package(self) -> None:
        """Install it into the empty folder. Raises `UnavailableError`."""
        raise NotImplementedError

    def version(self) -> str:
        """Return the version that was asked for, which is pinned."""
        return self.requirement.rpartition("==")[2]


class PythonPeer(PackagedPeer):
    """A peer from a wheel, in a virtual environment of its own."""

    def install_package(self) -> None:
        """Make the environment and install into it."""
        run([sys.executable, "-m", "venv", self.folder])
        run(
            [
                self.program("python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-compile",
                "--only-binary",
                ":all:",
                self.requirement,
            ]
        )

    def program(self, name: str) -> Path:
        """Return the path of a program of the environment."""
        return self.folder / "bin" / name

    def installed_bytes(self) -> int:
        """Return the size of the packages, pip's aside."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        return bytes_under(packages, leave_out=("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-"))


class NodePeer(PackagedPeer):
    """A peer from an npm package."""

    overrides: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Versions of its dependencies that differ from what npm would take."""

    def install_package(self) -> None:
        """Install into `node_modules` of the folder."""
        if shutil.which("npm") is None:
            raise UnavailableError("npm is not installed (Debian: apt install npm)")
        package, _, version = self.requirement.rpartition("==")
        wanted = {"private": True, "dependencies": {package: version}, "overrides": dict(self.overrides)}
        (self.folder / "package.json").write_text(json.dumps(wanted))
        run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=self.folder)

    def node(self) -> Path:
        """Return the path of Node."""
        return needed_program("node", "nodejs")

    def installed_bytes(self) -> int:
        """Return the size of the packages."""
        return bytes_under(self.folder / "node_modules")
