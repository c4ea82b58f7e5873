"""What the transport's tests send, and the clock they send it by.

Owns nothing; the transport's tests use it together with `raw_server`.
"""

from __future__ import annotations

from chatgate.vocabulary.exchange import OutboundRequest
from chatgate.vocabulary.upstreams import Origin, Scheme, Timeouts


class HandClock:
    """A monotonic clock that stands still until a test assigns `now`, in seconds."""

    def __init__(self) -> None:
        """Start somewhere that is not zero."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


def outbound(
    port: int,
    *,
    scheme: Scheme = "http",
    host: str = "127.0.0.1",
    proxy: str | None = None,
    timeouts: Timeouts | None = None,
    body: bytes = b'{"model":"m"}',
) -> OutboundRequest:
    """Return a request for a server on a local port."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer sk-test-fake\r\n"
        f"Accept-Encoding: identity\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return OutboundRequest(Origin(scheme, host, port, proxy), head.encode(), body, timeouts or Timeouts())
