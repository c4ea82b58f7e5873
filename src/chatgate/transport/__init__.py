"""Outbound HTTP/1.1: carries requests to upstreams and their answers back.

Owns sockets, TLS, proxies, framing, the pool of idle connections and the deadlines of calls. Must not know what is in
a body, retry what an upstream has begun to answer, follow redirects or decompress. The pipeline calls it through the
`Sender` and `Answer` ports of the vocabulary.

    client      Transport: takes or dials a connection, sends, waits for the head
    pool        idle connections per origin, and the one sweep that ends what takes too long
    dialling    names to sockets, directly or through a proxy, and TLS on top
    proxies     what proxies want to hear before they relay
    connection  one socket: framing, limits, back-pressure
    upload      one socket for a request whose body is still arriving
    answer      what the reader of an answer holds
"""

from chatgate.transport.client import Transport

__all__ = ["Transport"]
