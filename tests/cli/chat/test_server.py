"""Asking a server, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from chatgate.cli.chat.server import ChatFailureError, Said, Server, read_address
from chatgate.cli.chat.wire import OPENAI, PLAIN, Dialect, Question
from chatgate.transport import Transport
from fakes.scripts import (
    STREAM_HEAD,
    chunk,
    completion,
    error_body,
    event,
    framed,
    head,
    raw,
    stream,
    text_events,
    whole,
)
from fakes.upstream import FakeUpstream, Tap

SUCCESS = event({"code": 200, "msg": "success", "data": {"response": "Hello you"}, "current_response": "Hello you"})


@contextlib.asynccontextmanager
async def server_at(upstream: FakeUpstream, path: str = "/v1", key: str = "") -> AsyncIterator[Server]:
    """Give a client of the upstream, over the real transport."""
    transport = Transport()
    transport.start()
    try:
        yield Server(transport, read_address(f"http://127.0.0.1:{upstream.port}{path}"), key)
    finally:
        await transport.close()


async def failure_of(server: Server, question: Question) -> tuple[str, str]:
    """Return what was written before the failure, and its reason."""
    parts: list[str] = []
    with pytest.raises(ChatFailureError) as caught:
        await server.ask(question, parts.append)
    return "".join(parts), str(caught.value)


@pytest.mark.parametrize(
    ("url", "dialect", "path", "origin"),
    [
        ("http://host", OPENAI, "/v1", "http://host:80"),
        ("https://host:5000", OPENAI, "/v1", "https://host:5000"),
        ("http://host:5000/v1/", OPENAI, "/v1", "http://host:5000"),
        ("https://host/v1/chat/completions", OPENAI, "/v1", "https://host:443"),
        ("https://host/proxy/v1beta/openai", OPENAI, "/proxy/v1beta/openai", "https://host:443"),
        ("http://host:5000/", PLAIN, "/", "http://host:5000"),
        ("http://host:5000/api", PLAIN, "/api", "http://host:5000"),
        ("http://host:5000/a b/вход", PLAIN, "/a%20b/%D0%B2%D1%85%D0%BE%D0%B4", "http://host:5000"),
        ("http://[::1]:5000/api", PLAIN, "/api", "http://::1:5000"),
        ("http://bücher.example/api", PLAIN, "/api", "http://xn--bcher-kva.example:80"),
    ],
)
def test_the_path_tells_the_protocol(url: str, dialect: Dialect, path: str, origin: str) -> None:
    """No path is the gateway's /v1, a version in the path is OpenAI's protocol, any other path the plain API."""
    address = read_address(url)
    assert (address.dialect, address.path, repr(address.origin)) == (dialect, path, origin)


@pytest.mark.parametrize(
    "url", ["", "host:5000", "ftp://host/", "http://", "http://host:99999", "http://host:x", "http://me:pw@host/"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """Other schemes, missing hosts, impossible ports and user names are no address."""
    with pytest.raises(ValueError, match="is not an address like"):
        read_address(url)


async def test_a_streamed_answer_is_written_as_it_arrives() -> None:
    """Each delta is written before the next one has been sent, and the whole is returned."""
    async with FakeUpstream() as upstream, server_at(upstream, key="sk-test-1") as server:
        tap = Tap()
        upstream.queue(stream(text_events("one two"), tap=tap))
        arrived: asyncio.Queue[str] = asyncio.Queue()
        asking = asyncio.create_task(server.ask(Question("q", model="m"), arrived.put_nowait))
        tap.let(2)
        assert await arrived.get() == "one"
        assert not asking.done()
        tap.let(3)
        assert await asking == Said("one two", cut_at_limit=False)
        call = await upstream.last_call()
        assert (call.target, call.header("authorization")) == ("/v1/chat/completions", "Bearer sk-test-1")
        assert call.header("host") == f"127.0.0.1:{upstream.port}"


async def test_without_a_key_none_is_shown() -> None:
    """An empty key sends no Authorization header."""
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        await server.ask(Question("q", model="m"), lambda _delta: None)
        assert (await upstream.last_call()).header("authorization") is None


async def test_a_plain_stream_ends_with_its_success_object() -> None:
    """The plain API's deltas are written and its last event ends the answer; the key goes into the header."""
    async with FakeUpstream() as upstream, server_at(upstream, "/api?x=1", "sk-test-1") as server:
        upstream.queue(stream([event({"delta": "Hello "}), event({"delta": "you"})], end=SUCCESS))
        parts: list[str] = []
        said = await server.ask(Question("q"), parts.append)
        assert (parts, said.text) == (["Hello ", "you"], "Hello you")
        call = await upstream.last_call()
        assert (call.target, call.header("authorization")) == ("/api?x=1", "Bearer sk-test-1")
        assert "api_key" not in call.json()


@pytest.mark.parametrize("path", ["/v1", "/api"])
async def test_a_server_that_does_not_stream_is_understood(path: str) -> None:
    """A JSON body instead of a stream is written at once."""
    body = completion("Hello you") if path == "/v1" else {"code": 200, "data": {"response": "Hello you"}}
    async with FakeUpstream() as upstream, server_at(upstream, path) as server:
        upstream.queue(whole(body))
        parts: list[str] = []
        assert (await server.ask(Question("q"), parts.append)).text == "Hello you"
        assert parts == ["Hello you"]


async def test_a_plain_stream_without_deltas_still_has_its_answer() -> None:
    """When only the success object comes, its text is written."""
    async with FakeUpstream() as upstream, server_at(upstream, "/") as server:
        upstream.queue(stream([], end=SUCCESS))
        parts: list[str] = []
        await server.ask(Question("q"), parts.append)
        assert parts == ["Hello you"]


async def test_events_cut_anywhere_are_put_together() -> None:
    """A stream sent byte by byte, with CRLF and comments in it, gives the same text."""
    data = b": hello\r\n\r\n" + event(chunk({"content": "héllo ✓"})).replace(b"\n", b"\r\n")
    data += event(chunk({}, finish="stop")) + b"data: [DONE]\n\n"
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        upstream.queue(raw(STREAM_HEAD + b"".join(framed(bytes([byte])) for byte in data) + framed(b"")))
        assert (await server.ask(Question("q"), lambda _delta: None)).text == "héllo ✓"


async def test_the_token_limit_is_noticed() -> None:
    """An answer that the limit ended is whole but says so."""
    events = [event(chunk({"content": "half"})), event(chunk({}, finish="length"))]
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        upstream.queue(stream(events))
        assert await server.ask(Question("q"), lambda _delta: None) == Said("half", cut_at_limit=True)


async def test_a_refusal_gives_the_reason_of_the_server_and_the_wait() -> None:
    """OpenAI's message is the reason, and Retry-After is told."""
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        upstream.queue(whole(error_body("too many calls"), 429, [("Retry-After", "12")]))
        assert await failure_of(server, Question("q")) == ("", "too many calls (try again in 12 s)")
        upstream.queue(whole(error_body("later"), 503, [("Retry-After", "Fri, 27 Nov 2026 10:00:00 GMT")]))
        assert (await failure_of(server, Question("q")))[1] == "later (try again after Fri, 27 Nov 2026 10:00:00 GMT)"


async def test_a_plain_refusal_gives_the_reason_in_the_language_of_the_server() -> None:
    """The plain API's `data.response` is the reason, whether the status says it or only the body."""
    body = {"code": 429, "msg": "failed", "data": {"response": "请求过于频繁"}}
    async with FakeUpstream() as upstream, server_at(upstream, "/api") as server:
        for status in (429, 200):
            upstream.queue(whole(body, status))
            assert await failure_of(server, Question("q")) == ("", "请求过于频繁")


async def test_an_error_without_a_reason_tells_its_status_or_where_it_points() -> None:
    """A page of HTML is not shown; a redirect is not followed but told."""
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        upstream.queue(whole(b"<html>Bad gateway", 502, [("Content-Type", "text/html")]))
        assert (await failure_of(server, Question("q")))[1] == "the server answered with HTTP status 502"
        upstream.queue(whole(b"", 301, [("Location", "https://host.example/v1")]))
        assert (await failure_of(server, Question("q")))[1].endswith("status 301 and points to https://host.example/v1")
        upstream.queue(whole(b"<html>Welcome", 200, [("Content-Type", "text/html")]))
        assert "not understood" in (await failure_of(server, Question("q")))[1]


@pytest.mark.parametrize("path", ["/v1", "/api"])
async def test_an_error_event_inside_a_stream_is_a_failure(path: str) -> None:
    """What came before it was written, but there is no answer."""
    before = event(chunk({"content": "half"})) if path == "/v1" else event({"delta": "half"})
    error = (
        error_body("it broke") if path == "/v1" else {"code": 500, "msg": "failed", "data": {"response": "it broke"}}
    )
    async with FakeUpstream() as upstream, server_at(upstream, path) as server:
        upstream.queue(stream([before, event(error)], end=b""))
        assert await failure_of(server, Question("q")) == ("half", "it broke")


@pytest.mark.parametrize("close", [True, False], ids=["body ends", "connection ends"])
@pytest.mark.parametrize("path", ["/v1", "/api"])
async def test_a_stream_that_stops_before_its_end_is_a_failure(path: str, *, close: bool) -> None:
    """A truncated answer is never taken for a whole one, however it was cut."""
    before = event(chunk({"content": "half"})) if path == "/v1" else event({"delta": "half"})
    async with FakeUpstream() as upstream, server_at(upstream, path) as server:
        upstream.queue(stream([before], end=b"", close=close, then="close"))
        written, reason = await failure_of(server, Question("q"))
        assert written == "half"
        assert "in the middle of the answer" in reason


async def test_a_missing_done_is_no_failure_after_the_model_said_it_finished() -> None:
    """Some servers end the body without `[DONE]`."""
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        upstream.queue(stream(text_events("one two"), end=b""))
        assert (await server.ask(Question("q"), lambda _delta: None)).text == "one two"


async def test_an_answer_without_text_is_a_failure() -> None:
    """A model that only calls tools has said nothing."""
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        upstream.queue(stream([event(chunk({}, finish="tool_calls"))]))
        assert (await failure_of(server, Question("q")))[1] == "the answer holds no text"


async def test_cancelling_closes_the_connection_at_once() -> None:
    """The server sees the client leave in the middle of its stream."""
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        upstream.queue(stream([event(chunk({"content": "half"}))], end=b"", close=False, then="hang"))
        begun = asyncio.Event()
        asking = asyncio.create_task(server.ask(Question("q"), lambda _delta: begun.set()))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await upstream.last_call()).ended == "gateway_left"


async def test_a_server_that_is_not_there_is_named() -> None:
    """The reason names the address and what the operating system said."""
    async with FakeUpstream() as upstream:
        port = upstream.port
    async with server_at(upstream) as server:
        reason = (await failure_of(server, Question("q")))[1]
        assert reason.startswith(f"http://127.0.0.1:{port} cannot be reached: ")


async def test_the_first_real_model_is_chosen() -> None:
    """Demo models are passed over, and used when there is nothing else."""
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        assert await server.first_model() == "gpt-fake-large"
        upstream.queue(whole({"data": [{"id": "demo/echo"}, {"id": "real"}]}))
        assert await server.first_model() == "real"
        upstream.queue(whole({"data": [{"id": "demo/slow"}]}))
        assert await server.first_model() == "demo/echo"


async def test_a_list_that_is_none_is_a_failure() -> None:
    """An answer that is no model list, or a refusal, is not taken for an empty list."""
    async with FakeUpstream() as upstream, server_at(upstream) as server:
        for script, reason in [
            (whole({"models": []}), "not understood"),
            (whole(error_body("who are you?"), 401), "who are you"),
            (raw(head(200, [("Content-Length", "9")]) + b"{", then="close"), "in the middle"),
        ]:
            upstream.queue(script)
            with pytest.raises(ChatFailureError, match=reason):
                await server.models()
