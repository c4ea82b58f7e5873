"""Inbound HTTP/1.1: from bytes on a socket to an `Envelope` and a body, and from a `Reply` back to bytes.

    limits      what a connection may cost: bytes, seconds, connections
    head        bytes → `Head`: the one place that judges a request's head
    known       heads that came before, for all connections
    body        bytes → body: framing by length or by chunks
    answer      the writing half of a connection: the `CallerPort` of the gateway
    talk        a connection that has become a WebSocket
    writing     what both write with: slow readers and the hard end
    upload      bodies on their way in, and those that are handed on while they arrive
    connection  the reading half: one request at a time, and what happens when a rule is broken
    state       what the connections of one server share
    serving     the listener, the sweep over deadlines, the drain
    workers     several such processes on one port, and the parent that watches them

It knows the gateway only as `Gate`, and decides nothing that is not about the wire: no URL, no key, no JSON. `app`
builds a `Server`; nobody else imports from here.
"""

from chatgate.server.limits import WireLimits
from chatgate.server.serving import Server

__all__ = ["Server", "WireLimits"]
