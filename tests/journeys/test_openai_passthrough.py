"""OpenAI in, OpenAI out: what a caller and a provider say to each other passes through byte for byte."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import Exchange, FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
ODD_BODY = (
    '{ "messages" : [{"role":"user","content":"h\\u00ebllo \\/ ünï \U0001f600"}],\n'
    ' "model":"gpt-fake-small", "unheard_of": {"deep":[1, 2.50, -0, 1e3, null, {"a":{}}]},\t"seed":9007199254740993,'
    ' "metadata":{"__proto__":"x"} , "logit_bias":{"50256":-100}}'
).encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway with a key of its own."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": "sk-test-server-0200"})


async def test_the_body_goes_upstream_byte_for_byte(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Spaces, escapes, order, long numbers and fields that nobody here knows arrive as they were written."""
    response = await http.request(gateway.port, "POST", CHAT, [http.JSON], ODD_BODY)
    assert response.status == 200
    assert (await upstream.last_call()).body == ODD_BODY


async def test_the_answer_comes_back_byte_for_byte(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The provider's answer is the caller's answer, unknown fields and odd spacing included."""
    said = json.dumps(scripts.completion("höi"), ensure_ascii=True, indent=1).replace("{", '{ "new_field": [1.0],', 1)
    upstream.queue(scripts.whole(said.encode()))
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert response.body == said.encode()
    assert response.header("content-type") == "application/json"


async def test_only_what_is_ours_goes_in_the_head(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The request upstream has one Host, one length, one key, asks for no compression, and nothing of the caller's."""
    headers = [("X-Secret-Of-Mine", "1"), ("Cookie", "a=b"), ("Accept-Encoding", "gzip, br"), ("User-Agent", "me/1")]
    await http.request(gateway.port, "POST", CHAT, [http.JSON, *headers], ODD_BODY)
    call = await upstream.last_call()
    assert call.header("host") == f"127.0.0.1:{upstream.port}"
    assert call.header("content-length") == str(len(ODD_BODY))
    assert call.header("content-type") == "application/json"
    assert call.header("authorization") == "Bearer sk-test-server-0200"
    assert call.header("accept-encoding") in {None, "identity"}
    assert not {"cookie", "x-secret-of-mine", "x-forwarded-for"} & {name for name, _ in call.headers}


PIECES = [
    *scripts.text_events("grüße 你好")[:2],
    b": a comment\n\n",
    b'event: unheard.of\nid: 7\nretry: 10\ndata: {"type":"unheard.of","x": [1,  2]}\n\n',
    b'data:{"choices":[{"index":0,"delta":{"content":"no space"},"finish_reason":null}],"timings":{}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
]


async def test_a_stream_passes_byte_for_byte(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Events, comments and event names that nobody here knows arrive as the provider sent them."""
    upstream.queue(scripts.stream(PIECES))
    async with http.open_stream(gateway.port, CHAT, http.chat("Hi", stream=True)) as stream:
        assert stream.head.status == 200
        assert (stream.head.header("content-type") or "").startswith("text/event-stream")
        assert await stream.rest() == b"".join(PIECES) + scripts.DONE


async def test_it_does_not_matter_how_the_stream_was_cut_into_pieces(gateway: Gateway, upstream: FakeUpstream) -> None:
    """One byte at a time, through the middle of letters and line ends, gives the same bytes."""
    said = b"".join(PIECES).replace(b"\n", b"\r\n")
    upstream.queue(scripts.stream([said[at : at + 1] for at in range(len(said))]))
    async with http.open_stream(gateway.port, CHAT, http.chat("Hi", stream=True)) as stream:
        assert await stream.rest() == said + scripts.DONE


async def test_a_stream_in_one_piece_is_one_stream(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A provider that sends all at once is passed on the same."""
    upstream.queue(scripts.stream([b"".join(PIECES) + scripts.DONE], end=b""))
    async with http.open_stream(gateway.port, CHAT, http.chat("Hi", stream=True)) as stream:
        assert await stream.rest() == b"".join(PIECES) + scripts.DONE


async def test_usage_is_asked_for_and_kept_from_who_did_not_ask(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The gateway needs the counts; the caller who did not ask for the extra chunk does not see it."""
    async with http.open_stream(gateway.port, CHAT, http.chat("one two", stream=True)) as stream:
        said = await stream.rest()
    assert said == b"".join(scripts.text_events("one two")) + scripts.DONE
    assert (await upstream.last_call()).json()["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("options", [{"include_usage": True}, {"include_usage": True, "include_obfuscation": False}])
async def test_usage_is_shown_to_who_asked(gateway: Gateway, upstream: FakeUpstream, options: dict[str, Any]) -> None:
    """The caller who asked gets the extra chunk, and the body goes upstream untouched."""
    body = http.chat("one two", stream=True, stream_options=options)
    async with http.open_stream(gateway.port, CHAT, body) as stream:
        said = await stream.rest()
    assert said == b"".join(scripts.text_events("one two", usage=True)) + scripts.DONE
    assert (await upstream.last_call()).body == json.dumps(body).encode()


async def test_other_stream_options_survive(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Asking for usage keeps what else the caller asked of the stream."""
    options = {"include_usage": False, "include_obfuscation": True}
    body = http.chat("one", stream=True, stream_options=options, odd=[1])
    async with http.open_stream(gateway.port, CHAT, body) as stream:
        assert b'"usage"' not in await stream.rest()
    sent = (await upstream.last_call()).json()
    assert sent.pop("stream_options") == {"include_usage": True, "include_obfuscation": True}
    assert sent == {key: value for key, value in body.items() if key != "stream_options"}


async def test_usage_on_the_last_text_chunk_is_left_there(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Some servers count on the chunk that ends the text: that chunk is the caller's."""
    last = scripts.event(scripts.chunk({}, finish="stop", usage={"prompt_tokens": 1, "completion_tokens": 1}))
    upstream.queue(scripts.stream([*scripts.text_events("one")[:2], last]))
    async with http.open_stream(gateway.port, CHAT, http.chat("Hi", stream=True)) as stream:
        assert last in await stream.rest()


async def test_a_missing_end_mark_is_added_to_a_finished_stream(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A provider that ends after its last words without `[DONE]` has ended well."""
    upstream.queue(scripts.stream(PIECES, end=b""))
    async with http.open_stream(gateway.port, CHAT, http.chat("Hi", stream=True)) as stream:
        assert await stream.rest() == b"".join(PIECES) + scripts.DONE


async def test_nothing_follows_the_end_mark(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The body ends at once after `[DONE]`, though the provider goes on, or keeps its body open."""
    upstream.queue(scripts.stream([*PIECES, scripts.DONE, b'data: {"late":1}\n\n'], end=b"", close=False, then="hang"))
    async with http.open_stream(gateway.port, CHAT, http.chat("Hi", stream=True)) as stream:
        assert await stream.rest() == b"".join(PIECES) + scripts.DONE


@pytest.mark.parametrize("path", [CHAT, "/chat/completions", "/v1/v1/chat/completions"])
async def test_clients_disagree_on_the_path_and_all_are_right(
    gateway: Gateway, upstream: FakeUpstream, path: str
) -> None:
    """With or without /v1, or with two of them: it is the same call, and never a redirect."""
    response = await http.post_json(gateway.port, path, http.chat("Hi"))
    assert response.json()["choices"][0]["message"]["content"] == "Hi"
    assert (await upstream.last_call()).target == CHAT


async def test_compressed_answers_are_not_passed_off_as_plain(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A provider that compresses although nobody asked is a provider that failed."""
    packed = gzip.compress(json.dumps(scripts.completion("Hi")).encode())
    upstream.queue(*[scripts.whole(packed, 200, [("Content-Encoding", "gzip")]) for _ in range(4)])
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert response.status == 502
    assert response.json()["error"]["code"] == "upstream_error"


async def test_connections_upstream_are_used_again(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A series of calls, streamed and not, needs one connection."""
    for number in range(6):
        if number % 2:
            async with http.open_stream(gateway.port, CHAT, http.chat("one", stream=True)) as stream:
                assert (await stream.rest()).endswith(scripts.DONE)
        else:
            assert (await http.post_json(gateway.port, CHAT, http.chat("Hi"))).status == 200
    assert len({id(call.connection) for call in upstream.calls}) == 1


async def test_a_connection_whose_stream_ends_a_moment_late_is_used_again(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    """Most providers end the body a moment after `[DONE]`: the caller does not wait, and the connection is kept."""
    go_on = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await scripts.stream(PIECES, close=False)(exchange)
        await go_on.wait()
        await exchange.send(scripts.framed(b""))

    upstream.queue(late)
    async with http.open_stream(gateway.port, CHAT, http.chat("Hi", stream=True)) as stream:
        assert await stream.rest() == b"".join(PIECES) + scripts.DONE
    go_on.set()
    assert (await upstream.last_call()).ended == "answered"
    assert (await http.request(gateway.port, "GET", "/healthz")).status == 200  # It has read the end by now.
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi"))).status == 200
    assert upstream.calls[0].connection is upstream.calls[1].connection


async def test_the_providers_refusals_of_a_request_reach_the_caller(gateway: Gateway, upstream: FakeUpstream) -> None:
    """What the provider says about the request itself is what the caller needs to know."""
    upstream.queue(scripts.whole(scripts.error_body("temperature must be below 3", "bad_temperature"), 400))
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", temperature=9))
    assert response.status == 400
    assert "temperature must be below 3" in response.json()["error"]["message"]
    assert len(upstream.calls) == 1
