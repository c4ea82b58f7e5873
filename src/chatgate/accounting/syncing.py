"""The thread that brings a journal's files to the disk itself, so that they outlive the machine's power.

Owns the grouping: whoever asks while the disk is busy is served by the next round, all together. Used by `journal`, and
only when it is asked for; without it, records outlive the process but not the machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future


class Syncer:
    """One thread, which waits until it is asked."""

    def __init__(self, sync: Callable[[int], None]) -> None:
        """`sync` brings an open file's data to the disk, as `os.fdatasync`; it raises OSError."""
        self._sync = sync
        self._changed = threading.Condition()
        self._asked: list[tuple[int, Future[None]]] = []
        self._retired: list[int] = []
        self._failed: dict[int, OSError] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="chatgate-journal", daemon=True)
        self._thread.start()

    def ask(self, file: int) -> Future[None]:
        """Return what is done once all that was written to a file before is on the disk; it may raise OSError.

        A file that failed once keeps failing: the kernel may have dropped what it could not write, and says so only
        one time.
        """
        future: Future[None] = Future()
        with self._changed:
            self._asked.append((file, future))
            self._changed.notify()
        return future

    def has_failed(self, file: int) -> bool:
        """Tell whether a file can no longer be trusted."""
        return file in self._failed

    def retire(self, file: int) -> None:
        """Sync a file for the last time and close it."""
        with self._changed:
            self._retired.append(file)
            self._changed.notify()

    def close(self) -> None:
        """Serve who has asked, close the retired files and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._asked or self._retired or self._closing):
                    self._changed.wait()
                asked, self._asked = self._asked, []
                retired, self._retired = self._retired, []
                closing = self._closing
            for file in {file for file, _ in asked} | set(retired):
                self._bring(file)
            for file, future in asked:
                error = self._failed.get(file)
                if not future.set_running_or_notify_cancel():
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
            for file in retired:
                self._failed.pop(file, None)
                os.close(file)
            if closing:
                return

    def _bring(self, file: int) -> None:
        if file in self._failed:
            return
        try:
            self._sync(file)
        except OSError as error:
            self._failed[file] = error
