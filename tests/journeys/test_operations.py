"""What operators and their machines look at: health, metrics, models, the first lines, the demo models."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
DEMO = {"demo/echo", "demo/story", "demo/tools", "demo/slow", "demo/429", "demo/500", "demo/cut"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway with no route, so that the plain API is at the root."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": "sk-test-server-0800"})


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_answered_without_a_key(gateway: Gateway, path: str) -> None:
    """An orchestrator learns that the gateway is alive and may take traffic."""
    assert (await http.request(gateway.port, "GET", path)).status == 200


async def test_the_root_is_the_plain_api_when_no_route_is_set(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Without ROUTE the plain API is `POST /`, and `HEAD /` is a probe."""
    response = await http.post_json(gateway.port, "/", {"user_content": "Hi"})
    assert response.json()["current_response"] == "Hi"
    assert len(upstream.calls) == 1
    assert (await http.request(gateway.port, "HEAD", "/")).status == 200


async def test_metrics_count_what_happened(gateway: Gateway, upstream: FakeUpstream) -> None:
    """/metrics is in Prometheus' text format and its counters move with the calls."""

    async def total() -> float:
        response = await http.request(gateway.port, "GET", "/metrics")
        assert response.status == 200
        assert (response.header("content-type") or "").startswith("text/plain")
        lines = response.body.decode().splitlines()
        assert all(re.fullmatch(r"#.*|[a-z_:]+(\{[^}]*\})? \S+", line) for line in lines), lines
        found = [line for line in lines if re.match(r"chatgate_\w*(requests|calls)_total\{", line)]
        assert found, lines
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    before = await total()
    for _ in range(3):
        await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert await total() - before >= 3
    assert len(upstream.calls) == 3


async def test_callers_cannot_make_the_metrics_grow(gateway: Gateway, upstream: FakeUpstream) -> None:
    """What callers make up (models, paths, methods, keys) is no label: the metrics stay as long as they were."""

    async def lines() -> int:
        return (await http.request(gateway.port, "GET", "/metrics")).body.count(b"\n")

    async def try_all(number: int) -> None:
        await http.post_json(gateway.port, CHAT, http.chat("Hi", f"made-up-{number}"))
        await http.post_json(gateway.port, CHAT, http.chat("Hi", f"demo/made-up-{number}"))
        await http.request(gateway.port, "GET", f"/made/up/{number}")
        await http.request(gateway.port, "POST", f"/v1/models/made-up-{number}")

    await try_all(0)
    before = await lines()
    for number in range(1, 30):
        await try_all(number)
    assert await lines() <= before + 3
    assert b"made-up" not in (await http.request(gateway.port, "GET", "/metrics")).body
    assert len(upstream.calls) == 30


async def test_the_log_is_one_json_object_a_line_that_nobody_can_forge(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    """Each call is one line with the id that the caller got, and what callers make up stays inside its quotes."""
    forged = '"}\\n{"event":"forged","x":"\u2028\u00e9'
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", forged))
    others = [
        await http.post_json(gateway.port, CHAT, http.chat("Hi", "a\x1b[31m\r\n{}")),
        await http.request(gateway.port, "GET", '/x"\\n{"event":"forged"}'),
        await http.request(gateway.port, "GET", "/healthz"),
    ]
    await asyncio.sleep(0.3)  # Lines are written in batches.
    lines = [line for line in gateway.output().split("\n") if line.startswith("{")]
    told = [json.loads(line) for line in lines]
    assert not [line for line in lines if any(ord(letter) < 0x20 for letter in line)]
    assert not [each for each in told if each["event"] == "forged"]
    of_call = [each for each in told if each.get("request_id") == response.header("x-request-id")]
    assert len(of_call) == 1
    assert (of_call[0]["status"], of_call[0]["stream"], of_call[0]["address"]) == (response.status, False, "127.0.0.1")
    ids = [each.get("request_id") for each in told]
    assert [ids.count(other.header("x-request-id")) for other in others][2] == 0
    assert len(upstream.calls) == (response.status == 200)


async def test_the_description_of_the_api_is_served(gateway: Gateway) -> None:
    """/openapi.json is an OpenAPI document that names the chat path."""
    response = await http.request(gateway.port, "GET", "/openapi.json")
    assert response.status == 200
    described = response.json()
    assert described["openapi"].startswith("3.")
    assert "/v1/chat/completions" in described["paths"]


async def test_models_are_listed_in_openais_shape(gateway: Gateway) -> None:
    """The list has the demo models, and each can be asked for alone."""
    listed = (await http.request(gateway.port, "GET", "/v1/models")).json()
    assert listed["object"] == "list"
    names = {model["id"] for model in listed["data"]}
    assert names >= DEMO
    for model in listed["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert isinstance(model["owned_by"], str)
    one = (await http.request(gateway.port, "GET", "/v1/models/demo/echo")).json()
    assert one["id"] == "demo/echo"
    assert (await http.request(gateway.port, "GET", "/models")).json() == listed


async def test_configured_models_are_listed_and_sent_under_the_providers_name(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """An alias is what callers see and ask for; the provider is asked for the model behind it."""
    config = f"""
[[upstreams]]
name = "backing"
base_url = "{upstream.base_url}"
api_key = "sk-test-backing-0001"
[[models]]
name = "house-model"
targets = [{{ upstream = "backing", model = "gpt-fake-large" }}]
"""
    gateway = await start_gateway({}, config)
    names = {model["id"] for model in (await http.request(gateway.port, "GET", "/v1/models")).json()["data"]}
    assert "house-model" in names
    body = json.dumps(http.chat("Hi", "house-model", odd=[1])).encode()
    response = await http.request(gateway.port, "POST", CHAT, [http.JSON], body)
    assert response.status == 200
    call = await upstream.last_call()
    assert call.body == body.replace(b'"house-model"', b'"gpt-fake-large"')
    assert call.header("authorization") == "Bearer sk-test-backing-0001"
    unknown = await http.post_json(gateway.port, CHAT, http.chat("Hi", "gpt-fake-large"))
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert len(upstream.calls) == 1


async def test_the_first_lines_say_what_an_operator_wants_to_know(gateway: Gateway) -> None:
    """Version, data directory, address: printed at the start, and no key among it."""
    printed = gateway.output()
    first = printed.splitlines()[0]
    assert re.search(r"\d+\.\d+\.\d+", first)
    assert str(gateway.directory / "data") in first
    assert f":{gateway.port}" in printed
    assert "sk-test-server-0800" not in printed


async def test_the_demo_echo_is_the_same_streamed_and_whole(gateway: Gateway) -> None:
    """The built-in echo answers alike in both ways, with usage."""
    whole = (await http.post_json(gateway.port, CHAT, http.chat("Tell me more", "demo/echo"))).json()
    assert whole["choices"][0]["message"]["content"] == "Tell me more"
    assert whole["usage"]["total_tokens"] > 0
    asked = http.chat("Tell me more", "demo/echo", stream=True, stream_options={"include_usage": True})
    async with http.open_stream(gateway.port, CHAT, asked) as stream:
        *events, done = http.events_of(await stream.rest())
    assert done == b"[DONE]"
    chunks = [json.loads(event) for event in events]
    text = "".join(choice["delta"].get("content") or "" for each in chunks for choice in each["choices"])
    assert text == "Tell me more"
    assert chunks[-1]["usage"] == whole["usage"]


async def test_the_demo_story_is_told_word_by_word(gateway: Gateway) -> None:
    """The story streams in many pieces, which are the beginning of what it is as a whole."""
    whole = (await http.post_json(gateway.port, CHAT, http.chat("Tell me", "demo/story"))).json()
    story = whole["choices"][0]["message"]["content"]
    assert len(story.split()) > 100
    async with http.open_stream(gateway.port, CHAT, http.chat("Tell me", "demo/story", stream=True)) as stream:
        while stream.so_far.count(b'"content":"') < 10:
            assert await stream.next_piece()
        chunks = [json.loads(event) for event in http.events_of(stream.so_far)]
    told = "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks)
    assert told
    assert story.startswith(told)


async def test_the_demo_tool_model_calls_the_first_tool(gateway: Gateway) -> None:
    """`demo/tools` answers with a call of the first tool that was offered."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    response = await http.post_json(gateway.port, CHAT, http.chat("Rain?", "demo/tools", tools=tools))
    choice = response.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
    json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])


async def test_the_demo_faults_are_faults(gateway: Gateway) -> None:
    """`demo/429`, `demo/500` and `demo/cut` fail like providers do."""
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi", "demo/429"))).status == 429
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi", "demo/500"))).status == 502
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi", "demo/cut"))).status == 502
    async with http.open_stream(gateway.port, CHAT, http.chat("Hi", "demo/cut", stream=True)) as stream:
        said = await stream.rest()
    assert b"[DONE]" not in said
    assert json.loads(http.events_of(said)[-1])["error"]["code"] == "upstream_error"


async def test_a_caller_may_leave_the_slow_demo(gateway: Gateway) -> None:
    """Leaving `demo/slow` disturbs nobody else."""
    for _ in range(20):
        async with await http.connect(gateway.port) as connection:
            body = json.dumps(http.chat("Hi", "demo/slow", stream=True)).encode()
            connection.send(http.request_bytes("POST", CHAT, [http.JSON], body))
            await asyncio.sleep(0)
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi", "demo/echo"))).status == 200
