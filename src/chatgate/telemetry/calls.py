"""Calls that have ended, until the log and the metrics are told of them, many at once: that is much cheaper.

Owns no more than the wait. Filled by whoever ends calls; emptied by `app` several times a second, and by a scrape.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.telemetry.log import Log
    from chatgate.telemetry.metrics import Metrics
    from chatgate.vocabulary.exchange import Settled


class Calls:
    """Takes what there is to say about each call at its end, with `note`.

    `note` is given when the call ended, in seconds since the epoch, and its facts, which do not change any more.
    """

    def __init__(self, log: Log, metrics: Metrics, *, counts_at_once: bool = False) -> None:
        """Begin with none. With `counts_at_once` the metrics are told of each at once, for processes beside this."""
        self._ended: list[tuple[float, Settled]] = []
        self._log = log
        self._metrics = metrics
        self._counts_at_once = counts_at_once
        self.note: Callable[[tuple[float, Settled]], None] = self._ended.append
        if counts_at_once:
            self.note = self._note_at_once
        else:
            metrics.catch_up = self.tell

    def tell(self) -> None:
        """Tell the log and the metrics of the calls that have ended since the last time."""
        if not self._ended:
            return
        ended = self._ended.copy()
        self._ended.clear()
        self._log.calls(ended)
        if not self._counts_at_once:
            self._metrics.count(map(itemgetter(1), ended))

    def _note_at_once(self, ended: tuple[float, Settled]) -> None:
        self._ended.append(ended)
        self._metrics.count([ended[1]])
