"""Two hundred requests that nobody means well with: each is answered properly, none is a 500, none passes broken.

What is malformed never reaches the provider. What is merely odd but valid JSON may: the provider judges it, and what
arrives there is exactly what was sent.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
MIB = 1024 * 1024
HI = [{"role": "user", "content": "Hi"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway."""
    environment = {"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": "sk-test-server-1100", "ROUTE": "api"}
    return await start_gateway(environment)


def with_field(name: str, raw: str) -> bytes:
    """Return a chat call with one more field, whose value is written as given."""
    return f'{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],"{name}":{raw}}}'.encode()


def with_content(raw: bytes) -> bytes:
    """Return a chat call whose content is the bytes inside a JSON string."""
    return b'{"model":"m","messages":[{"role":"user","content":"' + raw + b'"}]}'


def nested(depth: int) -> bytes:
    """Return a chat call with a field so deep that the whole body is nested `depth` deep."""
    inside = depth - 1
    return with_field("metadata", '{"a":' * inside + "1" + "}" * inside)


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \r\n\t",
    "null": b"null",
    "array": b"[]",
    "text": b'"x"',
    "number": b"0",
    "truth": b"true",
    "word": b"chat",
    "trailing comma": b'{"model":"m","messages":[{"role":"user","content":"Hi"}],}',
    "trailing text": with_field("n", "1") + b"x",
    "two objects": with_field("n", "1") * 2,
    "single quotes": b"{'model':'m'}",
    "comment": b'{"model":"m"/*x*/}',
    "BOM": b"\xef\xbb\xbf" + with_field("n", "1"),
    "UTF-16": with_field("n", "1").decode().encode("utf-16"),
    "UTF-32": with_field("n", "1").decode().encode("utf-32"),
    "0xFF": with_content(b"\xff"),
    "overlong": with_content(b"\xc0\xaf"),
    "encoded surrogate": with_content(b"\xed\xa0\x80"),
    "cut letter": with_content(b"\xe4\xbd"),
    "lone surrogate": with_content(b"\\ud800"),
    "inverted surrogates": with_content(b"\\udc00\\ud800"),
    "raw control": with_content(b"\x01"),
    "raw newline": with_content(b"\n"),
    "raw NUL": with_content(b"\x00"),
    "bad escape": with_content(b"\\x41"),
    "NaN": with_field("temperature", "NaN"),
    "Infinity": with_field("temperature", "Infinity"),
    "-Infinity": with_field("temperature", "-Infinity"),
    "1e400": with_field("temperature", "1e400"),
    "-1e400 deep": with_field("metadata", '{"a":[-1e400]}'),
    "10^5000": with_field("seed", "1" + "0" * 5000),
    "2^64": with_field("seed", str(2**64)),
    "2^70": with_field("seed", str(2**70)),
    "million digits": with_field("temperature", "0." + "1" * MIB),
    "leading zero": with_field("n", "01"),
    "plus": with_field("n", "+1"),
    "leading point": with_field("temperature", ".5"),
    "hex": with_field("n", "0x1"),
    "depth 65": nested(65),
    "depth 1023": nested(1023),
    "depth 1025": nested(1025),
    "depth 100000": nested(100_000),
    "open brackets": b"[" * (5 * MIB),
    "open objects": b'{"a":' * MIB,
    "two models": b'{"model":"a","messages":[],"model":"b"}',
    "two messages": b'{"model":"m","messages":[{"role":"user","content":"a"}],"messages":[]}',
    "two streams": b'{"model":"m","stream":true,"messages":[{"role":"user","content":"a"}],"stream":false}',
    "two models, one escaped": b'{"model":"a","messages":[{"role":"user","content":"a"}],"mod\\u0065l":"b"}',
    "two unknown fields": with_field("x", '1,"x":2'),
    "unfinished": with_field("n", "1")[:-1],
    "unfinished text": b'{"model":"m',
    "unfinished escape": b'{"model":"\\u00',
    "one brace": b"{",
    "form": b"model=m&messages=Hi",
    "multipart": b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--',
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
}

WRONG: dict[str, Any] = {
    "no model": {"messages": HI},
    "no messages": {"model": "m"},
    "nothing": {},
    "model null": {"model": None, "messages": HI},
    "model number": {"model": 0, "messages": HI},
    "model empty": {"model": "", "messages": HI},
    "model list": {"model": ["m"], "messages": HI},
    "model object": {"model": {"a": 1}, "messages": HI},
    "model 10 KiB": {"model": "m" * 10240, "messages": HI},
    "model with space": {"model": "m ", "messages": HI},
    "model with line break": {"model": "m\r\nX: 1", "messages": HI},
    "model with NUL": {"model": "m\x00", "messages": HI},
    "model with ESC": {"model": "m\x1b[2J", "messages": HI},
    "messages null": {"model": "m", "messages": None},
    "messages empty": {"model": "m", "messages": []},
    "messages object": {"model": "m", "messages": {}},
    "messages text": {"model": "m", "messages": "Hi"},
    "messages of null": {"model": "m", "messages": [None]},
    "messages of text": {"model": "m", "messages": ["Hi"]},
    "messages of lists": {"model": "m", "messages": [HI]},
    "role missing": {"model": "m", "messages": [{"content": "Hi"}]},
    "role null": {"model": "m", "messages": [{"role": None, "content": "Hi"}]},
    "role number": {"model": "m", "messages": [{"role": 1, "content": "Hi"}]},
    "content number": {"model": "m", "messages": [{"role": "user", "content": 1}]},
    "content truth": {"model": "m", "messages": [{"role": "user", "content": True}]},
    "content object": {"model": "m", "messages": [{"role": "user", "content": {}}]},
    "max_tokens 0": {"model": "m", "messages": HI, "max_tokens": 0},
    "max_tokens -1": {"model": "m", "messages": HI, "max_tokens": -1},
    "max_tokens 1.5": {"model": "m", "messages": HI, "max_tokens": 1.5},
    "max_tokens text": {"model": "m", "messages": HI, "max_tokens": "10"},
    "max_tokens truth": {"model": "m", "messages": HI, "max_tokens": True},
    "n 0": {"model": "m", "messages": HI, "n": 0},
    "n -1": {"model": "m", "messages": HI, "n": -1},
    "n a million": {"model": "m", "messages": HI, "n": 10**6},
    "temperature text": {"model": "m", "messages": HI, "temperature": "1"},
    "stream text": {"model": "m", "messages": HI, "stream": "true"},
    "stream number": {"model": "m", "messages": HI, "stream": 1},
    "stream_options text": {"model": "m", "messages": HI, "stream": True, "stream_options": "usage"},
    "stream_options list": {"model": "m", "messages": HI, "stream": True, "stream_options": []},
    "include_usage text": {"model": "m", "messages": HI, "stream": True, "stream_options": {"include_usage": "yes"}},
    "stop number": {"model": "m", "messages": HI, "stop": 1},
    "user object": {"model": "m", "messages": HI, "user": {}},
    "2^63": {"model": "m", "messages": HI, "max_tokens": 2**63},
}

PLAIN_WRONG: dict[str, Any] = {
    "empty question": {"user_content": ""},
    "blank question": {"user_content": " \n\t"},
    "no question": {"prompt": "Hi", "messages": HI},
    "question list": {"user_content": HI},
    "question object": {"user_content": {"$ne": ""}},
    "huge bound": {"user_content": "Hi", "max_tokens": 10**9},
    "bound 2^63": {"user_content": "Hi", "max_tokens": 2**63},
    "bound null text": {"user_content": "Hi", "max_tokens": "null"},
    "dialogue of numbers": {"user_content": "Hi", "continuous": [1]},
    "dialogue of dialogues": {"user_content": "Hi", "continuous": [[HI]]},
    "role of another type": {"user_content": "Hi", "continuous": [{"role": [], "content": ""}]},
    "content of another type": {"user_content": "Hi", "continuous": [{"role": "user", "content": 1}]},
    "model with line break": {"user_content": "Hi", "model": "m\nX: 1"},
    "model 10 KiB": {"user_content": "Hi", "model": "m" * 10240},
    "key with line break": {"user_content": "Hi", "api_key": "sk\r\nX-Evil: 1"},
    "key with NUL": {"user_content": "Hi", "api_key": "sk\x00"},
    "key object": {"user_content": "Hi", "api_key": {}},
    "stream null text": {"user_content": "Hi", "stream": "null"},
}

ODD: dict[str, bytes] = {
    "depth 64": nested(64),
    "-0": with_field("temperature", "-0"),
    "1e-400": with_field("temperature", "1e-400"),
    "2^53+1": with_field("seed", str(2**53 + 1)),
    "2^63-1": with_field("seed", str(2**63 - 1)),
    "escaped NUL": with_content(b"\\u0000"),
    "U+202E": with_content("\u202e".encode() * 1000),
    "U+2028": with_content("\u2028\u0085".encode() * 1000),
    "joiners": with_content("\u200d".encode() * 100_000),
    "combining": with_content("\u0301".encode() * 1000),
    "nested duplicates": with_field("metadata", '{"a":1,"a":2}'),
    "100000 fields": with_field("metadata", "{" + ",".join(f'"k{n}":{n}' for n in range(100_000)) + "}"),
    "100000 items": with_field("x", "[" + ",".join(map(str, range(100_000))) + "]"),
    "field name of 1 MiB": with_field("k" * MIB, "1"),
    "a megabyte of blanks": b" " * MIB + with_field("n", "1"),
    "prototype": with_field("__proto__", '{"admin":true}'),
    "operator": with_field("$where", '"sleep(10000)"'),
    "template": with_content(b"{{7*7}} ${jndi:ldap://x} ' OR 1=1-- <script>"),
    "file image": with_field("image_url", '"file:///etc/passwd"'),
    "tools": with_field(
        "tools", json.dumps([{"type": "function", "function": {"name": f"f{n}"}} for n in range(1000)])
    ),
    "schema that contains itself": with_field("response_format", '{"schema":{"$ref":"#"}}'),
    "10000 stops": with_field("stop", json.dumps([str(n) for n in range(10_000)])),
    "Anthropic's fields": with_field("anthropic_version", '"2023-06-01"'),
    "escaped field name": b'{"mod\\u0065l":"m","messages":[{"role":"user","content":"Hi"}]}',
    "temperature 1e308": with_field("temperature", "1e308"),
    "null options": with_field("stream_options", "null"),
    "unknown role": b'{"model":"m","messages":[{"role":"oracle","content":"Hi"}]}',
    "null content": b'{"model":"m","messages":[{"role":"assistant","content":null},{"role":"user","content":"Hi"}]}',
}

MODELS = [
    "../x",
    "a/b/c",
    "*",
    "m%00",
    "demo",
    "demo/",
    "demo/../echo",
    "Demo/Echo",
    "\u0435cho",
    "m?x=1",
    "m#",
    "${x}",
    "'--",
]

REFUSED_HEADERS: dict[str, tuple[str, str]] = {
    "multipart": ("Content-Type", "multipart/form-data; boundary=" + "x" * 1000),
    "compressed": ("Content-Encoding", "gzip"),
    "compressed twice": ("Content-Encoding", "gzip, gzip"),
    "brotli": ("Content-Encoding", "br"),
    "unknown coding": ("Content-Encoding", "x-mine"),
    "gateway key with a path": ("Authorization", "Bearer sk-cg-../../x"),
    "gateway key with SQL": ("Authorization", "Bearer sk-cg-' OR 1=1--"),
    "gateway key of 4 KiB": ("x-api-key", "sk-cg-" + "x" * 4096),
    "two keys in one": ("Authorization", "Bearer sk-test-a, Bearer sk-test-b"),
}

ODD_HEADERS: dict[str, tuple[str, str]] = {
    "form, as curl says": ("Content-Type", "application/x-www-form-urlencoded"),
    "UTF-16 that is none": ("Content-Type", "application/json; charset=utf-16"),
    "type garbage": ("Content-Type", ";;;"),
    "octets": ("Content-Type", "application/octet-stream"),
    "basic": ("Authorization", "Basic dXNlcjpwYXNz"),
    "basic garbage": ("Authorization", "Basic \xff\xfe"),
    "expectation": ("Expect", "200-maybe"),
    "odd accept": ("Accept", "*/*;q=x, text/~"),
    "languages": ("Accept-Language", "xx;q=9," * 1000),
    "ranges": ("Range", "bytes=" + ",".join(f"{n}-{n}" for n in range(3000))),
    "cookie": ("Cookie", "a=" + "b" * 16384),
    "trace": ("traceparent", "00-xyz-\xe9"),
    "idempotency": ("Idempotency-Key", "x" * 256),
    "underscore twin": ("X_Forwarded_For", "10.0.0.1"),
    "override": ("X-HTTP-Method-Override", "DELETE"),
    "original URL": ("X-Original-URL", "/metrics"),
    "Anthropic's version": ("anthropic-version", "2023-06-01"),
}

CASES: list[tuple[str, str, list[tuple[str, str]], bytes]] = [
    *((f"malformed {name}", CHAT, [http.JSON], body) for name, body in MALFORMED.items()),
    *((f"wrong {name}", CHAT, [http.JSON], json.dumps(body).encode()) for name, body in WRONG.items()),
    *((f"plain {name}", "/api", [http.JSON], body) for name, body in MALFORMED.items()),
    *((f"plain {name}", "/api", [http.JSON], json.dumps(body).encode()) for name, body in PLAIN_WRONG.items()),
]


async def test_there_are_two_hundred_of_them() -> None:
    """The corpus does not shrink unnoticed."""
    assert len(CASES) + len(ODD) + len(MODELS) + len(REFUSED_HEADERS) + len(ODD_HEADERS) >= 200


@pytest.mark.parametrize(("path", "headers", "body"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_what_is_malformed_is_refused_here(
    gateway: Gateway, upstream: FakeUpstream, path: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    """A malformed body is a 400 in the shape of its surface, and the provider never hears of it."""
    response = await http.request(gateway.port, "POST", path, headers, body)
    _check_refusal(response, path, {401} if path == "/api" and b'"sk\\' in body else {400})
    assert upstream.calls == []


@pytest.mark.parametrize("body", list(ODD.values()), ids=list(ODD))
async def test_what_is_only_odd_goes_through_unchanged(gateway: Gateway, upstream: FakeUpstream, body: bytes) -> None:
    """Valid JSON that a provider may understand is its business: it gets what the caller wrote."""
    upstream.queue(scripts.whole(scripts.completion("fine")))
    response = await http.request(gateway.port, "POST", CHAT, [http.JSON], body)
    assert response.status == 200, response.body
    call = await upstream.last_call()
    if b"\\u0065" not in body:
        assert call.body == body
    assert json.loads(call.body) == json.loads(body)


@pytest.mark.parametrize("model", MODELS)
async def test_a_strange_model_name_is_only_a_name(gateway: Gateway, upstream: FakeUpstream, model: str) -> None:
    """A name is never part of a path or a header: it goes into the body as it is, or is refused."""
    upstream.queue(scripts.whole(scripts.completion("fine")))
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", model))
    if response.status == 200:
        call = await upstream.last_call()
        assert call.json()["model"] == model
        assert call.target == CHAT
    else:
        _check_refusal(response, CHAT, {400, 404})
        assert upstream.calls == []


@pytest.mark.parametrize("header", list(REFUSED_HEADERS.values()), ids=list(REFUSED_HEADERS))
async def test_a_hostile_header_is_refused(gateway: Gateway, upstream: FakeUpstream, header: tuple[str, str]) -> None:
    """A header that would change how the body or the caller is read is refused when it is not understood."""
    headers = [header] if header[0] == "Content-Type" else [http.JSON, header]
    response = await http.request(gateway.port, "POST", CHAT, headers, json.dumps(http.chat("Hi")).encode())
    _check_refusal(response, CHAT, {400, 401, 415})
    assert upstream.calls == []


@pytest.mark.parametrize("header", list(ODD_HEADERS.values()), ids=list(ODD_HEADERS))
async def test_a_strange_header_changes_nothing(
    gateway: Gateway, upstream: FakeUpstream, header: tuple[str, str]
) -> None:
    """A header that means nothing here is refused or has no effect, and never travels on."""
    headers = [header] if header[0] == "Content-Type" else [http.JSON, header]
    body = json.dumps(http.chat("Hi")).encode()
    response = await http.request(gateway.port, "POST", CHAT, headers, body)
    if response.status != 200:
        _check_refusal(response, CHAT, {400, 401, 415, 417})
        assert upstream.calls == []
        return
    call = await upstream.last_call()
    assert call.body == body
    assert header[1].encode("latin-1") not in call.head
    assert call.header("authorization") == "Bearer sk-test-server-1100"


async def test_ten_mebibytes_are_the_limit_exactly(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A body of 10 MiB is taken, and one byte more is not, though its length was never stated."""
    for size, status in ((10 * MIB, 200), (10 * MIB + 1, 413)):
        upstream.forget()
        upstream.queue(scripts.whole(scripts.completion("fine")))
        body = with_content(b"x" * (size - len(with_content(b""))))
        pieces = b"".join(scripts.framed(body[at : at + MIB]) for at in range(0, size, MIB)) + scripts.framed(b"")
        async with await http.connect(gateway.port) as connection:
            chunked = (
                f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            )
            connection.send(chunked.encode() + b"\r\n" + pieces)
            response = await connection.read_response()
        assert response.status == status
        assert [len(call.body) for call in upstream.calls] == ([size] if status == 200 else [])


async def test_the_server_is_well_after_all_that(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A hundred good calls are answered, and the memory was given back."""
    answers = await asyncio.gather(*(http.post_json(gateway.port, CHAT, http.chat("Hi")) for _ in range(100)))
    assert [answer.status for answer in answers] == [200] * 100
    assert len(upstream.calls) == 100
    assert gateway.resident_kib() < 300 * 1024


def _check_refusal(response: http.Response, path: str, statuses: set[int]) -> None:
    assert response.status in statuses, response.body[:300]
    body = response.json()
    if path == CHAT:
        assert set(body["error"]) == {"message", "type", "param", "code"}
    else:
        assert body["code"] == response.status
        assert body["msg"] == "failed"
    assert len(response.body) < 2000, "a refusal does not repeat what it refuses"
