"""What breaks a rule of HTTP is refused or cut off, never served, and harms nobody else."""

from __future__ import annotations

import pytest

from server.running import RunningServer, send_until_stuck

HOST = b"Host: gate.test\r\n"
POST = b"POST /echo HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def get(line: bytes) -> bytes:
    """Return a request with a request line of its own."""
    return line + b"\r\n" + HOST + b"\r\n"


def with_host(value: bytes) -> bytes:
    """Return a request with a Host of its own."""
    return b"GET /echo HTTP/1.1\r\nHost:" + value + b"\r\n\r\n"


def with_line(line: bytes) -> bytes:
    """Return a request with one more header line."""
    return b"GET /echo HTTP/1.1\r\n" + HOST + line + b"\r\n\r\n"


BAD_REQUEST_LINES = {
    "no version": get(b"GET /echo"),
    "version 0.9": get(b"GET /echo HTTP/0.9"),
    "version 1.2": get(b"GET /echo HTTP/1.2"),
    "version 1.10": get(b"GET /echo HTTP/1.10"),
    "version 2.0": get(b"GET /echo HTTP/2.0"),
    "version 3": get(b"GET /echo HTTP/3"),
    "version in lower case": get(b"GET /echo http/1.1"),
    "RTSP": get(b"GET /echo RTSP/1.0"),
    "ICE": get(b"SOURCE /echo ICE/1.0"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "method in lower case": get(b"get /echo HTTP/1.1"),
    "method with NUL": get(b"GET\0 /echo HTTP/1.1"),
    "method of 8 KiB": get(b"A" * 8192 + b" /echo HTTP/1.1"),
    "unknown method": get(b"FROB /echo HTTP/1.1"),
    "no method": get(b" /echo HTTP/1.1"),
    "CONNECT to a host": get(b"CONNECT gate.test:443 HTTP/1.1"),
    "CONNECT to a path": get(b"CONNECT /echo HTTP/1.1"),
    "two spaces before the target": get(b"GET  /echo HTTP/1.1"),
    "two spaces after the target": get(b"GET /echo  HTTP/1.1"),
    "tabs instead of spaces": get(b"GET\t/echo\tHTTP/1.1"),
    "space after the version": get(b"GET /echo HTTP/1.1 "),
    "space before the method": get(b" GET /echo HTTP/1.1"),
    "space in the target": get(b"GET /ec ho HTTP/1.1"),
    "asterisk": get(b"OPTIONS * HTTP/1.1"),
    "absolute target": get(b"GET http://gate.test/echo HTTP/1.1"),
    "absolute target, other scheme": get(b"GET file:///etc/passwd HTTP/1.1"),
    "relative target": get(b"GET echo HTTP/1.1"),
    "target is a query": get(b"GET ?a=b HTTP/1.1"),
    "backslashes": get(b"GET \\\\evil HTTP/1.1"),
    "fragment": get(b"GET /echo#part HTTP/1.1"),
    "NUL in the target": get(b"GET /ec\0ho HTTP/1.1"),
    "control in the target": get(b"GET /ec\x01ho HTTP/1.1"),
    "DEL in the target": get(b"GET /ec\x7fho HTTP/1.1"),
    "tab in the target": get(b"GET /ec\tho HTTP/1.1"),
    "form feed in the target": get(b"GET /ec\x0cho HTTP/1.1"),
    "bytes above ASCII in the target": get(b"GET /\xc3\xa9cho HTTP/1.1"),
    "bare LF": b"GET /echo HTTP/1.1\nHost: gate.test\n\n",
    "bare LF after the request line": b"GET /echo HTTP/1.1\nHost: gate.test\r\n\r\n",
    "bare LF after a header": b"GET /echo HTTP/1.1\r\nHost: gate.test\n\r\n",
    "bare LF at the end": b"GET /echo HTTP/1.1\r\nHost: gate.test\r\n\n",
    "bare CR": b"GET /echo HTTP/1.1\rHost: gate.test\r\r",
    "LF CR": b"GET /echo HTTP/1.1\n\rHost: gate.test\n\r\n\r",
    "two empty lines first": b"\r\n\r\n" + get(b"GET /echo HTTP/1.1"),
    "bare LF first": b"\n" + get(b"GET /echo HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMTP": b"EHLO gate.test\r\n",
    "NUL bytes": bytes(64),
    "high bytes": b"\xff" * 64,
    "JSON": b'{"model": "demo/echo"}\r\n\r\n',
}
BAD_HOSTS = {
    "no Host": b"GET /echo HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /echo HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "two Hosts, one in upper case": b"GET /echo HTTP/1.1\r\n" + HOST + b"HOST: evil.test\r\n\r\n",
    "empty Host": with_host(b""),
    "blank Host": with_host(b"   "),
    "Host with a path": with_host(b" x/v1?"),
    "Host with a fragment": with_host(b" x#"),
    "Host with a query": with_host(b" x?y"),
    "Host with a user": with_host(b" a@b"),
    "Host with a space": with_host(b" a b"),
    "Host list": with_host(b" a, b"),
    "Host with a scheme": with_host(b" http://a"),
    "Host of 64 KiB": with_host(b" " + b"a" * 65_536),
    "Host of 300 bytes": with_host(b" " + b"a" * 300),
    "port 99999": with_host(b" x:99999"),
    "port 65536": with_host(b" x:65536"),
    "port 0": with_host(b" x:0"),
    "port -1": with_host(b" x:-1"),
    "port of six digits": with_host(b" x:000080"),
    "empty port": with_host(b" x:"),
    "port in words": with_host(b" x:http"),
    "two ports": with_host(b" x:80:80"),
    "only a port": with_host(b" :80"),
    "IPv6 without brackets": with_host(b" ::1"),
    "IPv6 half open": with_host(b" [::1"),
    "IPv6 nonsense": with_host(b" [:::]"),
    "IPv6 with a zone": with_host(b" [fe80::1%25eth0]"),
    "IPv6 with a tail": with_host(b" [::1]x"),
    "IPv6 empty": with_host(b" []"),
    "Host above ASCII": with_host(b" \xc3\xa9.test"),
    "Host with wide digits": with_host(" x:\uff18\uff10".encode()),
    "Host with quotes": with_host(b' "x"'),
    "Host with a backslash": with_host(b" x\\y"),
    "bad Host in HTTP/1.0": b"GET /echo HTTP/1.0\r\nHost: a/b\r\n\r\n",
}
BAD_HEADERS = {
    "folded line": with_line(b"X-A: b\r\n c"),
    "folded line, tab": with_line(b"X-A: b\r\n\tc"),
    "fold before the first header": b"GET /echo HTTP/1.1\r\n X-A: b\r\n" + HOST + b"\r\n",
    "blank line of spaces": with_line(b" "),
    "NUL in a value": with_line(b"X-A: b\0c"),
    "control in a value": with_line(b"X-A: b\x01c"),
    "escape in a value": with_line(b"X-A: \x1b[31m"),
    "DEL in a value": with_line(b"X-A: b\x7fc"),
    "vertical tab in a value": with_line(b"X-A: b\x0bc"),
    "CR in a value": with_line(b"X-A: b\rc"),
    "CR NUL in a value": with_line(b"X-A: b\r\0c"),
    "LF in a value": with_line(b"X-A: b\nX-B: c"),
    "no name": with_line(b": b"),
    "no colon": with_line(b"X-A"),
    "space before the colon": with_line(b"X-A : b"),
    "tab before the colon": with_line(b"X-A\t: b"),
    "space in a name": with_line(b"X A: b"),
    "parenthesis in a name": with_line(b"X(A: b"),
    "quote in a name": with_line(b'X"A: b'),
    "slash in a name": with_line(b"X/A: b"),
    "high byte in a name": with_line(b"X\xffA: b"),
    "NUL in a name": with_line(b"X\0A: b"),
    "two Authorizations": with_line(b"Authorization: Bearer sk-test-a\r\nauthorization: Bearer sk-test-b"),
    "two x-api-keys": with_line(b"x-api-key: sk-test-a\r\nX-Api-Key: sk-test-a"),
    "two api-keys": with_line(b"api-key: sk-test-a\r\napi-key: sk-test-a"),
    "two x-goog-api-keys": with_line(b"x-goog-api-key: sk-test-a\r\nx-goog-api-key: sk-test-a"),
    "two Content-Types": with_line(b"Content-Type: text/plain\r\nContent-Type: application/json"),
}
BAD_LENGTHS = {
    name: POST + b"Content-Length:" + value + b"\r\n\r\nabc"
    for name, value in {
        "twice the same": b" 3\r\nContent-Length: 3",
        "twice, different": b" 3\r\nContent-Length: 4",
        "list": b" 3, 3",
        "semicolon": b" 3;",
        "two numbers": b" 3 3",
        "plus": b" +3",
        "minus": b" -3",
        "hexadecimal": b" 0x3",
        "empty": b"",
        "blank": b"  ",
        "word": b" three",
        "Arabic digit": " \u0663".encode(),
        "fraction": b" 3.0",
        "exponent": b" 3e0",
        "underscore": b" 1_0",
        "24 digits": b" " + b"9" * 24,
        "5000 zeros": b" " + b"0" * 5000 + b"3",
        "with chunks": b" 3\r\nTransfer-Encoding: chunked",
        "vertical tab": b" 3\x0b",
    }.items()
}
BAD_CODINGS = {
    name: POST + b"Transfer-Encoding:" + value + b"\r\n\r\n" + LAST
    for name, value in {
        "coding and length": b" chunked\r\nContent-Length: 5",
        "identity": b" identity",
        "gzip": b" gzip",
        "gzip, chunked": b" gzip, chunked",
        "chunked, gzip": b" chunked, gzip",
        "chunked, chunked": b" chunked, chunked",
        "chunked, identity": b" chunked, identity",
        "two lines": b" chunked\r\nTransfer-Encoding: chunked",
        "two lines, first gzip": b" gzip\r\nTransfer-Encoding: chunked",
        "empty": b"",
        "comma": b" ,chunked",
        "vertical tab": b" chunked\x0b",
        "quoted": b' "chunked"',
        "parameter": b" chunked;q=1",
        "x-chunked": b" xchunked",
        "space before the colon": b" x\r\nTransfer-Encoding : chunked",
        "folded": b"\r\n chunked",
        "NUL": b" chunked\0",
    }.items()
} | {"HTTP/1.0": b"POST /echo HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + LAST}
BAD_CHUNKS = {
    name: CHUNKED + chunks
    for name, chunks in {
        "0x": b"0x3\r\nabc\r\n" + LAST,
        "space before the size": b" 3\r\nabc\r\n" + LAST,
        "space after the size": b"3 \r\nabc\r\n" + LAST,
        "tab after the size": b"3\t\r\nabc\r\n" + LAST,
        "plus": b"+3\r\nabc\r\n" + LAST,
        "minus": b"-3\r\nabc\r\n" + LAST,
        "no size": b"\r\nabc\r\n" + LAST,
        "no hexadecimal": b"g\r\nabc\r\n" + LAST,
        "17 digits": b"10000000000000003\r\nabc\r\n" + LAST,
        "bare LF after the size": b"3\nabc\r\n" + LAST,
        "bare CR after the size": b"3\rabc\r\n" + LAST,
        "bare LF after the data": b"3\r\nabc\n" + LAST,
        "too much data": b"3\r\nabcd\r\n" + LAST,
        "too little data": b"3\r\nab\r\n" + LAST,
        "no end of the data": b"3\r\nabc" + LAST,
        "LF at the end": b"3\r\nabc\r\n0\n\n",
        "NUL in an extension": b"3;a\0b\r\nabc\r\n" + LAST,
        "LF in an extension": b"3;a\nb\r\nabc\r\n" + LAST,
        "CR in an extension": b"3;a\rb\r\nabc\r\n" + LAST,
        "high byte in an extension": b"3;\xff\r\nabc\r\n" + LAST,
        "extension of 64 KiB": b"3;" + b"a" * 65_536 + b"\r\nabc\r\n" + LAST,
        "size of 64 KiB of zeros": b"0" * 65_536 + b"3\r\nabc\r\n" + LAST,
        "trailer without a colon": b"0\r\nX-A\r\n\r\n",
        "trailer with NUL": b"0\r\nX-A: b\0\r\n\r\n",
        "Content-Length in the trailers": b"0\r\nContent-Length: 5\r\n\r\nhello",
        "Transfer-Encoding in the trailers": b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
        "10 000 trailers": b"0\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
    }.items()
}
TOO_LARGE = {
    "a head of 33 KiB": with_line(b"X-A: " + b"a" * (33 << 10)),
    "a head of 33 KiB in 66 lines": with_line(b"\r\n".join(b"X-%d: " % n + b"a" * 512 for n in range(66))),
    "101 headers": with_line(b"\r\n".join(b"X-%d: a" % n for n in range(100))),
    "101 lines of one header": with_line(b"\r\n".join([b"X-A: a"] * 100)),
    "2000 headers": with_line(b"\r\n".join(b"X-%d: a" % n for n in range(2000))),
    "a target of 9 KiB": get(b"GET /" + b"a" * (9 << 10) + b" HTTP/1.1"),
    "a name of 40 KiB": with_line(b"A" * (40 << 10) + b": b"),
    "a cookie of 70 KiB": with_line(b"Cookie: " + b"a" * (70 << 10)),
}


def rows(*tables: dict[str, bytes]) -> list[object]:
    """Return the tables as parameters with readable names."""
    return [pytest.param(data, id=name) for table in tables for name, data in table.items()]


@pytest.mark.parametrize(
    "data", rows(BAD_REQUEST_LINES, BAD_HOSTS, BAD_HEADERS, BAD_LENGTHS, BAD_CODINGS, BAD_CHUNKS, TOO_LARGE)
)
def test_refuses_what_breaks_a_rule(server: RunningServer, data: bytes) -> None:
    """A malformed request gets one 400 or 431 and the end of its connection, and is never served."""
    got = server.exchange(data)
    assert got.startswith((b"HTTP/1.1 400 Bad Request\r\n", b"HTTP/1.1 431 "))
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in got
    assert server.gate.served == []
    assert server.ask("/echo", b"still here") == (200, b"still here")


@pytest.mark.parametrize("data", rows(TOO_LARGE))
def test_names_what_is_too_large(server: RunningServer, data: bytes) -> None:
    """A head that is too large is told so with 431."""
    assert server.exchange(data).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert server.gate.errors == [("headers_too_large", {})]


ACCEPTED = {
    "plain": get(b"GET /echo HTTP/1.1"),
    "one empty line first": b"\r\n" + get(b"GET /echo HTTP/1.1"),
    "HTTP/1.0 without Host": b"GET /echo HTTP/1.0\r\n\r\n",
    "double slash": get(b"GET //evil HTTP/1.1"),
    "dots": get(b"GET /v1/%2e%2e/admin HTTP/1.1"),
    "percent NUL": get(b"GET /%00 HTTP/1.1"),
    "percent nonsense": get(b"GET /%zz HTTP/1.1"),
    "semicolon": get(b"GET /;x= HTTP/1.1"),
    "TRACE": get(b"TRACE /echo HTTP/1.1"),
    "body on GET": b"GET /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc",
    "no body on POST": POST + b"\r\n",
    "leading zeros": POST + b"Content-Length: 0003\r\n\r\nabc",
    "space after the length": POST + b"Content-Length: 3 \r\n\r\nabc",
    "CHUNKED": POST + b"Transfer-Encoding: CHUNKED\r\n\r\n" + LAST,
    "tab before chunked": POST + b"Transfer-Encoding:\tchunked\r\n\r\n" + LAST,
    "chunk extension": CHUNKED + b'3;a=b;c="d"\r\nabc\r\n' + LAST,
    "chunk extension of 5000 bytes": CHUNKED + b"3;" + b"a" * 5000 + b"\r\nabc\r\n" + LAST,
    "1 KiB of zeros before the size": CHUNKED + b"0" * 1024 + b"3\r\nabc\r\n" + LAST,
    "size in upper case": CHUNKED + b"A\r\n0123456789\r\n" + LAST,
    "trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX-A: b\r\n\r\n",
    "port": with_host(b" gate.test:5000"),
    "IPv4": with_host(b" 127.0.0.1:65535"),
    "IPv6": with_host(b" [::1]:5000"),
    "trailing dot": with_host(b" gate.test."),
    "underscore": with_host(b" my_service"),
    "no space before the Host": with_host(b"gate.test"),
    "tabs around a value": with_line(b"X-A:\t b\tc \t"),
    "empty value": with_line(b"X-A:"),
    "bytes above ASCII in a value": with_line(b"X-A: \xc3\xa9\xff"),
    "100 headers": with_line(b"\r\n".join(b"X-%d: a" % n for n in range(99))),
    "cookie of 16 KiB": with_line(b"Cookie: " + b"a" * 16_384),
    "odd expectation": with_line(b"Expect: 200-maybe"),
    "identity coding": with_line(b"Content-Encoding: identity"),
    "upgrade to anything": with_line(b"Connection: upgrade\r\nUpgrade: anything"),
    "WebSocket": with_line(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"),
}


@pytest.mark.parametrize("data", rows(ACCEPTED))
def test_serves_what_is_only_odd(server: RunningServer, data: bytes) -> None:
    """Odd requests that keep the rules are served, once."""
    with server.connect() as connection:
        connection.sendall(data)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(server.gate.served) == 1


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"gzip, gzip", b"unknown", b"identity, gzip"])
def test_refuses_encoded_bodies(server: RunningServer, coding: bytes) -> None:
    """A body in a content coding is refused with 415, so that nothing is ever decompressed."""
    status, body = server.ask("/echo", b"abc", lines=b"Content-Encoding: %b\r\n" % coding)
    assert (status, body) == (415, b"content_encoding_unsupported")
    assert server.gate.served == []


@pytest.mark.parametrize(
    "tail",
    [
        b"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
        b"abc",
        b"\0" * 10,
    ],
)
def test_a_good_request_before_a_bad_one_is_served(server: RunningServer, tail: bytes) -> None:
    """Pipelined rubbish takes nothing from the request before it, and is refused after it."""
    got = server.exchange(POST + b"Content-Length: 3\r\n\r\nabc" + tail)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.count(b"HTTP/1.1 ") == 2
    assert b"\r\n\r\nabcHTTP/1.1 400 Bad Request\r\n" in got
    assert server.gate.served == [("/echo", b"abc")]


def test_an_endless_head_is_cut_off(server: RunningServer) -> None:
    """A head that never ends is refused once it is over the cap, long before it costs memory."""
    with server.connect() as connection:
        connection.sendall(b"GET /echo HTTP/1.1\r\nX-A: ")
        assert send_until_stuck(connection, b"a" * 1024, 40_000) < 8192
    assert server.gate.errors == [("headers_too_large", {})]


def test_an_endless_chunk_extension_is_cut_off(server: RunningServer) -> None:
    """Framing that carries no body is bounded."""
    with server.connect() as connection:
        connection.sendall(CHUNKED + b"1;")
        assert send_until_stuck(connection, b"a" * 1024, 40_000) < 8192
    assert server.gate.errors == [("bad_request", {})]
