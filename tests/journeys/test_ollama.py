"""Ollama's clients are at home, whoever answers; and Ollama's servers answer everyone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.scripts import Script
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = """
[[upstreams]]
name = "default"
base_url = "{openai}"
[[upstreams]]
name = "local"
provider = "ollama"
base_url = "{ollama}"
[[prices]]
model = "llama"
input_usd_per_million = "1"
output_usd_per_million = "2"
[[models]]
name = "gpt"
targets = [{{ upstream = "default", model = "gpt-fake-small" }}]
[[models]]
name = "llama"
targets = [{{ upstream = "local", model = "llama3.2" }}]
[[models]]
name = "qwen:latest"
targets = [{{ upstream = "local" }}]
[[models]]
name = "pair"
targets = [{{ upstream = "local", model = "llama3.2", priority = 0 }},
           {{ upstream = "default", model = "gpt-fake-small", priority = 1 }}]
[retry]
max_retries = 0
"""
ASK = [{"role": "user", "content": "Hello there"}]
LAST = {"done": True, "done_reason": "stop", "total_duration": 9, "prompt_eval_count": 7, "eval_count": 2}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Tell it.", "parameters": {"type": "object"}},
}


def line(**fields: Any) -> bytes:
    """Return a line of a stream."""
    return json.dumps({"model": "llama3.2", "created_at": "2026-11-23T10:00:00.123456789Z", **fields}).encode() + b"\n"


def said(text: str, **more: Any) -> bytes:
    """Return a line that says something."""
    return line(message={"role": "assistant", "content": text, **more}, done=False)


END = line(message={"role": "assistant", "content": ""}, **LAST)


def lines(*pieces: bytes, **how: Any) -> Script:
    """Answer with lines, cut where the pieces are."""

    async def script(exchange: Any) -> None:
        await exchange.send(
            scripts.head(200, [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")])
        )
        for piece in pieces:
            await exchange.send(scripts.framed(piece))
        if how.get("reset"):
            exchange.cut(reset=True)
        else:
            await exchange.send(scripts.framed(b""))

    return script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local_of_file() -> AsyncIterator[FakeUpstream]:
    """Run an Ollama."""
    async with FakeUpstream() as local:
        yield local


@pytest.fixture
def local(local_of_file: FakeUpstream) -> FakeUpstream:
    """Return it with an empty log."""
    local_of_file.forget()
    return local_of_file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, local_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of both."""
    ollama = local_of_file.base_url.removesuffix("/v1")
    return await start_gateway(config=CONFIG.format(openai=upstream_of_file.base_url, ollama=ollama))


def objects(response: http.Response) -> list[dict[str, Any]]:
    """Return the lines of a stream."""
    assert (response.header("content-type") or "").startswith("application/x-ndjson")
    assert response.body.endswith(b"\n")
    return [json.loads(each) for each in response.body.splitlines()]


@pytest.mark.parametrize("model", ["gpt", "gpt:latest", "demo/echo", "demo/echo:latest"])
async def test_a_chat_over_openai(gateway: Gateway, upstream: FakeUpstream, model: str) -> None:
    """Streamed unless told otherwise; the caller's name of the model comes back, with and without its usual tag."""
    streamed = objects(await http.post_json(gateway.port, "/api/chat", {"model": model, "messages": ASK}))
    assert "".join(each["message"]["content"] for each in streamed) == "Hello there"
    assert [each["done"] for each in streamed] == [False] * (len(streamed) - 1) + [True]
    last = streamed[-1]
    assert {each["model"] for each in streamed} == {model}
    assert (last["done_reason"], last["eval_count"]) == ("stop", 2)
    assert last["total_duration"] >= last["eval_duration"] > 0
    response = await http.post_json(gateway.port, "/api/chat", {"model": model, "messages": ASK, "stream": False})
    whole = response.json()
    assert (whole["message"], whole["done"]) == ({"role": "assistant", "content": "Hello there"}, True)
    assert (whole["prompt_eval_count"] > 0, whole["eval_count"]) == (True, 2)
    assert response.header("content-type") == "application/json"
    assert len(upstream.calls) == (0 if "demo" in model else 2)


async def test_a_completion_over_openai(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A prompt with a system text and a picture becomes a chat, options become fields."""
    asked = {
        "model": "gpt",
        "prompt": "Hello there",
        "system": "Be kind.",
        "images": ["iVBORw0KGgo="],
        "format": {"type": "object"},
        "options": {"temperature": 0.5, "num_predict": 9, "top_k": 3, "num_ctx": 4096, "stop": ["x"]},
        "keep_alive": "5m",
    }
    response = await http.post_json(gateway.port, "/api/generate", asked)
    streamed = objects(response)
    assert "".join(each["response"] for each in streamed) == "Hello there"
    assert "message" not in streamed[-1]
    assert response.header("x-chatgate-dropped") == "options.num_ctx, keep_alive"
    sent = (await upstream.last_call()).json()
    assert sent["messages"] == [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hello there"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            ],
        },
    ]
    facts = (sent["temperature"], sent["max_tokens"], sent["top_k"], sent["stop"], sent["response_format"]["type"])
    assert facts == (0.5, 9, 3, ["x"], "json_schema")
    refused = await http.post_json(gateway.port, "/api/generate", {**asked, "suffix": "!"})
    assert (refused.status, list(refused.json())) == (400, ["error"])
    assert "suffix" in refused.json()["error"]


async def test_tools_over_openai(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A call of a tool comes as a whole, with its arguments as an object; results find their calls."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": text}} for text in ('{"pla', 'ce":"Bern"}')]
    chunks = [scripts.chunk({"tool_calls": [each]}) for each in (call, *pieces)] + [
        scripts.chunk({}, finish="tool_calls")
    ]
    upstream.queue(scripts.stream([scripts.event(each) for each in chunks]))
    response = await http.post_json(gateway.port, "/api/chat", {"model": "gpt", "messages": ASK, "tools": [TOOL]})
    first, last = objects(response)
    [told] = first["message"]["tool_calls"]
    assert told["function"] == {"index": 0, "name": "weather", "arguments": {"place": "Bern"}}
    assert (first["done"], last["done"], last["done_reason"]) == (False, True, "stop")
    assert (await upstream.last_call()).json()["tools"] == [TOOL]
    dialogue = [
        *ASK,
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "Sun.", "tool_name": "weather"},
    ]
    await http.post_json(gateway.port, "/api/chat", {"model": "gpt", "messages": dialogue, "stream": False})
    sent = (await upstream.last_call()).json()["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


async def test_ollama_to_ollama_passes(gateway: Gateway, local: FakeUpstream) -> None:
    """Bytes pass both ways but for the model's name, counts are charged, and a completion is one there too."""
    answer = said("Hello ", odd=1) + said("there") + END
    local.queue(lines(answer[:30], answer[30:100], answer[100:]))
    body = b'{ "model":"llama", "messages":[{"role":"user","content":"Hi"}], "options":{"num_ctx":9}, "new":1 }'
    response = await http.request(gateway.port, "POST", "/api/chat", [http.JSON], body)
    assert (response.status, response.body) == (200, answer)
    call = await local.last_call()
    assert (call.target, call.body) == ("/api/chat", body.replace(b'"llama"', b'"llama3.2"'))
    [told] = await gateway.logged("call", request_id=response.header("x-request-id"))
    facts = (told["surface"], told["input_tokens"], told["output_tokens"], told["cost_usd"], told["target"])
    assert facts == ("ollama", 7, 2, "0.000011", "local/llama3.2")
    whole = line(response="Hello", **LAST)
    local.queue(scripts.whole(whole, headers=[("Content-Type", "application/json; charset=utf-8")]))
    asked = {"model": "llama", "prompt": "Hi", "suffix": "x", "stream": False}
    response = await http.post_json(gateway.port, "/api/generate", asked)
    assert (response.status, response.body) == (200, whole)
    assert (await local.last_call()).target == "/api/generate"
    local.queue(lines(line(response="Hel", done=False), line(response="lo", **LAST)))
    assert len(objects(await http.post_json(gateway.port, "/api/generate", {**asked, "stream": True}))) == 2


@pytest.mark.parametrize("name", ["qwen", "qwen:latest"])
async def test_a_name_with_its_tag(gateway: Gateway, local: FakeUpstream, name: str) -> None:
    """A model that is named with its tag is found without it."""
    local.queue(scripts.whole(line(message={"role": "assistant", "content": "Hi"}, **LAST)))
    response = await http.post_json(gateway.port, "/api/chat", {"model": name, "messages": ASK, "stream": False})
    assert response.status == 200
    assert (await local.last_call()).json()["model"] in {name, "qwen:latest"}


async def test_openai_to_ollama(gateway: Gateway, local: FakeUpstream) -> None:
    """An OpenAI client gets its chunks and its answer, with thoughts, tools and counts."""
    call = {"function": {"name": "weather", "arguments": {"place": "Bern"}}}
    local.queue(
        lines(
            said("", thinking="Hm.") + said("Hello") + said("", tool_calls=[call])[:-40],
            said("", tool_calls=[call])[-40:] + END,
        )
    )
    asked = {
        "model": "llama",
        "messages": [{"role": "developer", "content": "Be kind."}, *ASK],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "tools": [TOOL],
        "reasoning_effort": "none",
        "user": "me",
    }
    streamed = {**asked, "stream": True, "stream_options": {"include_usage": True}}
    response = await http.post_json(gateway.port, "/v1/chat/completions", streamed)
    assert response.header("x-chatgate-dropped") == "user"
    *chunks, done = response.events()
    assert done == b"[DONE]"
    told = [json.loads(each) for each in chunks]
    deltas = [choice["delta"] for each in told for choice in each["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello"
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "Hm."
    [calls] = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"] == {"name": "weather", "arguments": '{"place":"Bern"}'}
    assert [each["choices"][0]["finish_reason"] for each in told if each["choices"]][-1] == "tool_calls"
    assert told[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    sent = (await local.last_call()).json()
    assert sent == {
        "model": "llama3.2",
        "messages": [{"role": "system", "content": "Be kind."}, *ASK],
        "stream": True,
        "options": {"temperature": 0.5, "num_predict": 9},
        "tools": [TOOL],
        "think": False,
    }
    local.queue(scripts.whole(line(message={"role": "assistant", "content": "Hello"}, **LAST)))
    whole = (await http.post_json(gateway.port, "/v1/chat/completions", asked)).json()
    assert (whole["choices"][0]["message"]["content"], whole["usage"]["total_tokens"]) == ("Hello", 9)
    refused = await http.post_json(gateway.port, "/v1/chat/completions", {**asked, "logit_bias": {"1": 2}})
    assert (refused.status, refused.json()["error"]["param"]) == (400, "logit_bias")


async def test_anthropic_to_ollama(gateway: Gateway, local: FakeUpstream) -> None:
    """Two protocols that are neither OpenAI's meet."""
    local.queue(lines(said("Hello "), said("there"), END))
    asked = {"model": "llama", "max_tokens": 9, "messages": ASK, "stream": True}
    response = await http.post_json(gateway.port, "/v1/messages", asked, [("anthropic-version", "2023-06-01")])
    deltas = [json.loads(each) for each in response.events()]
    assert deltas[-1]["type"] == "message_stop"
    assert (
        "".join(each["delta"].get("text", "") for each in deltas if each["type"] == "content_block_delta")
        == "Hello there"
    )


def whole_error(status: int, message: str) -> Script:
    """Refuse as Ollama does."""
    return scripts.whole({"error": message}, status)


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        (whole_error(404, "model 'llama3.2' not found"), 404, "not found"),
        (whole_error(400, "does not support thinking"), 400, "thinking"),
        (whole_error(500, "out of memory"), 502, "out of memory"),
    ],
)
async def test_refusals(gateway: Gateway, local: FakeUpstream, script: Script, status: int, words: str) -> None:
    """What Ollama says goes on, in the caller's shape."""
    shapes: list[tuple[str, Callable[[Any], str]]] = [
        ("/api/chat", lambda body: str(body["error"])),
        ("/v1/chat/completions", lambda body: str(body["error"]["message"])),
    ]
    for path, message in shapes:
        local.queue(script)
        response = await http.post_json(gateway.port, path, {"model": "llama", "messages": ASK})
        assert response.status == status
        assert words in message(response.json())


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "script",
    [
        lines(said("Hello"), said(" there")),
        lines(said("Hello"), said(" there")[:-20]),
        lines(said("Hello"), line(error="the runner died")),
        lines(said("Hello"), reset=True),
    ],
)
async def test_half_an_answer_is_never_a_whole_one(
    gateway: Gateway, local: FakeUpstream, path: str, script: Script
) -> None:
    """Without its last line, or with an error in it, a stream ends with an error."""
    local.queue(script)
    response = await http.post_json(gateway.port, path, {"model": "llama", "messages": ASK, "stream": True})
    if response.status != 200:  # The error was there before the first word had left.
        assert "error" in response.json()
    elif path == "/api/chat":
        told = objects(response)
        assert "error" in told[-1]
        assert not any(each.get("done") for each in told)
    else:
        assert "error" in json.loads(response.events()[-1])
        assert b"[DONE]" not in response.body
    [row] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert row["outcome"] == "upstream_failed"


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_a_broken_stream_goes_on_elsewhere(
    gateway: Gateway, local: FakeUpstream, upstream: FakeUpstream, path: str
) -> None:
    """When Ollama breaks off, an upstream of OpenAI's protocol goes on with the same words."""
    local.queue(lines(said("One two"), reset=True))
    upstream.queue(scripts.stream(scripts.text_events("One two three four", usage=True)))
    response = await http.post_json(gateway.port, path, {"model": "pair", "messages": ASK, "stream": True})
    if path == "/api/chat":
        told = objects(response)
        assert "".join(each["message"]["content"] for each in told) == "One two three four"
        assert (told[-1]["done"], told[-1]["eval_count"]) == (True, 4)
    else:
        assert response.body.endswith(scripts.DONE)


async def test_lists(gateway: Gateway, local: FakeUpstream) -> None:
    """Clients find models, the version, and nothing that is loaded."""
    tags = (await http.request(gateway.port, "GET", "/api/tags")).json()["models"]
    assert {"gpt", "llama", "qwen:latest", "demo/echo"} <= {each["name"] for each in tags}
    assert all(each["model"] == each["name"] for each in tags)
    shown = await http.post_json(gateway.port, "/api/show", {"model": "gpt:latest"})
    assert (shown.status, "completion" in shown.json()["capabilities"]) == (200, True)
    missing = await http.post_json(gateway.port, "/api/show", {"model": "unheard-of"})
    assert (missing.status, list(missing.json())) == (404, ["error"])
    assert (await http.request(gateway.port, "GET", "/api/version")).json()["version"]
    assert (await http.request(gateway.port, "GET", "/api/ps")).json() == {"models": []}
    for path in ("/api/pull", "/api/delete", "/api/blobs/sha256:1"):
        refused = await http.post_json(gateway.port, path, {"model": "x"})
        assert (refused.status, list(refused.json())) == (404, ["error"])
    assert local.calls == []


async def test_vectors(gateway: Gateway, local: FakeUpstream, upstream: FakeUpstream) -> None:
    """Both ways of asking, over both kinds of upstream."""
    vectors = {"data": [{"embedding": [0.5, 1.0]}, {"embedding": [2.0]}], "usage": {"prompt_tokens": 5}}
    upstream.queue(scripts.whole(vectors), scripts.whole(vectors))
    response = await http.post_json(gateway.port, "/api/embed", {"model": "gpt", "input": ["a", "b"], "truncate": True})
    assert (response.json()["embeddings"], response.json()["prompt_eval_count"]) == ([[0.5, 1.0], [2.0]], 5)
    assert upstream.calls[0].target == "/v1/embeddings"
    assert upstream.calls[0].json() == {"model": "gpt-fake-small", "input": ["a", "b"], "encoding_format": "float"}
    response = await http.post_json(gateway.port, "/api/embeddings", {"model": "gpt", "prompt": "a"})
    assert response.json() == {"embedding": [0.5, 1.0]}
    own = {"model": "llama3.2", "embeddings": [[1.5]], "prompt_eval_count": 3}
    local.queue(scripts.whole(own))
    response = await http.post_json(gateway.port, "/api/embed", {"model": "llama", "input": "a"})
    assert response.json() == own
    call = await local.last_call()
    assert (call.target, call.json()["model"]) == ("/api/embed", "llama3.2")
    [row] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (row["operation"], row["input_tokens"], row["output_tokens"]) == ("embedding", 3, 0)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/api/chat", {"model": "gpt"}),
        ("/api/chat", {"model": "gpt", "messages": []}),
        ("/api/chat", {"model": "gpt", "messages": [{"role": "tool", "content": "x"}]}),
        ("/api/generate", {"model": "gpt"}),
        ("/api/generate", {"model": "gpt", "prompt": "x", "raw": True}),
        ("/api/embed", {"model": "gpt"}),
        ("/api/show", {}),
    ],
)
async def test_what_is_wrong_is_said(
    gateway: Gateway, upstream: FakeUpstream, path: str, asked: dict[str, Any]
) -> None:
    """A request that cannot be carried is refused in Ollama's shape."""
    response = await http.post_json(gateway.port, path, asked)
    assert (response.status, list(response.json())) == (400, ["error"])
    assert upstream.calls == []
