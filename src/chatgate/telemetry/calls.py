"""Calls that have ended, until the log and the metrics are told of them, many at once: that is much cheaper.

Owns no more than the wait. Filled by whoever ends calls; told by `app` several times a second, and by a scrape.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.telemetry.log import Log
    from chatgate.telemetry.metrics import Metrics
    from chatgate.vocabulary.exchange import Settled


MOST_UNCOUNTED: Final = 1000
"""When there are more, calls are counted at the latest; until then only whoever looks at the metrics needs it."""


class Calls:
    """Takes what there is to say about each call at its end, with `note`.

    `note` is given when the call ended, in seconds since the epoch, and its facts, which do not change any more.
    """

    def __init__(self, log: Log, metrics: Metrics, *, most_uncounted: int = MOST_UNCOUNTED) -> None:
        """Begin with none. The metrics are told when there are more than `most_uncounted`; 0 is each time."""
        self._ended: list[tuple[float, Settled]] = []
        self._uncounted: list[Settled] = []
        self._most_uncounted = most_uncounted
        self._log = log
        self._metrics = metrics
        self.note: Callable[[tuple[float, Settled]], None] = self._ended.append
        metrics.catch_up = self._catch_up

    def tell(self) -> None:
        """Tell the log of the calls that have ended since the last time, and the metrics when there are many."""
        if not self._ended:
            return
        ended = self._ended.copy()
        self._ended.clear()
        self._log.calls(ended)
        self._uncounted += map(itemgetter(1), ended)
        if len(self._uncounted) > self._most_uncounted:
            self._catch_up()

    def _catch_up(self) -> None:
        """Have every call counted that has ended."""
        self.tell()
        uncounted, self._uncounted = self._uncounted, []
        self._metrics.count(uncounted)
