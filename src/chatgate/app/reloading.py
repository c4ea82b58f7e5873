"""Brings a changed configuration into the running process, or keeps the old one and says why.

Owns when the configuration is read again: when the file has changed, and when the operator asks. What changes with it,
and what it takes to change whole or not at all, is the application's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from chatgate.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chatgate.settings import Settings

LOOK_SECONDS = 1.0
"""How often the file is looked at. It is read once it has been the same at two looks, so not half-written."""

_Signature = tuple[int, int, int]


class Adopter(Protocol):
    """What takes a new configuration."""

    @property
    def settings(self) -> Settings:
        """Return the one in use."""

    def adopt(self, settings: Settings) -> None:
        """Use another one from now on, whole or not at all."""

    def note_reload(self, problem: str | None, *, ignored: tuple[str, ...] = ()) -> None:
        """Tell how it went."""


class Reloading:
    """Watches the configuration of one process."""

    def __init__(self, adopter: Adopter, load: Callable[[], Settings]) -> None:
        """`load` reads the configuration, or raises `SettingsError`."""
        self._adopter = adopter
        self._load = load
        self._asked = asyncio.Event()
        self._read = self._last_look = _signature_of(adopter.settings.config)

    def ask(self) -> None:
        """Have the configuration read again now, changed or not."""
        self._asked.set()

    async def watch(self) -> None:
        """Look after it until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                if not self._has_changed():
                    continue
            self._asked.clear()
            self._read = self._last_look = _signature_of(self._adopter.settings.config)
            await self._reload()

    def _has_changed(self) -> bool:
        now = _signature_of(self._adopter.settings.config)
        before, self._last_look = self._last_look, now
        return now == before != self._read

    async def _reload(self) -> None:
        try:
            # Files are read and much is checked: too long for the loop to wait.
            settings = await asyncio.to_thread(self._load)
            ignored = _needing_restart(self._adopter.settings, settings)
            self._adopter.adopt(settings)
        except (SettingsError, ValueError, OSError) as error:
            self._adopter.note_reload(str(error))
        else:
            self._adopter.note_reload(None, ignored=ignored)


def _signature_of(path: Path | None) -> _Signature | None:
    """Return what changes with a file; None when there is none."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _needing_restart(before: Settings, after: Settings) -> tuple[str, ...]:
    """Return the names of settings that have changed and only count at the start."""
    pairs = {
        "server.host": (before.server.host, after.server.host),
        "server.port": (before.server.port, after.server.port),
        "server.workers": (before.server.workers, after.server.workers),
        "data": (before.data, after.data),
        "ledger.durability": (before.ledger.durability, after.ledger.durability),
    }
    return tuple(name for name, (old, new) in pairs.items() if old != new)
