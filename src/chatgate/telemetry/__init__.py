"""What the operator sees: one log line per call, metrics, and the guard that keeps secrets out of both.

calls       those that have ended, until the log and the metrics are told of them
log         structured lines, written in batches off the event loop
metrics     counters that many calls are added to at once, rendered when scraped
shared      what several worker processes count in, and the lock on their output
redaction   the known secrets, and what looks like one, taken out of a text
"""

from chatgate.telemetry.calls import MOST_UNCOUNTED, Calls
from chatgate.telemetry.log import Log, LogHandler
from chatgate.telemetry.metrics import Metrics
from chatgate.telemetry.redaction import Redaction
from chatgate.telemetry.shared import Share, Shared

__all__ = ["MOST_UNCOUNTED", "Calls", "Log", "LogHandler", "Metrics", "Redaction", "Share", "Shared"]
