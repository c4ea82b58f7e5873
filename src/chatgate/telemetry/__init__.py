"""What the operator sees: one log line per call, metrics, and the guard that keeps secrets out of both.

log         structured lines, written in batches off the event loop
metrics     counters that are cheap to add to and are rendered when scraped
shared      what several worker processes count in, and the lock on their output
redaction   the known secrets, and what looks like one, taken out of a text
"""

from chatgate.telemetry.log import Log, LogHandler
from chatgate.telemetry.metrics import Metrics
from chatgate.telemetry.redaction import Redaction
from chatgate.telemetry.shared import Share, Shared

__all__ = ["Log", "LogHandler", "Metrics", "Redaction", "Share", "Shared"]
