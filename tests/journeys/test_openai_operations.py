"""Embeddings, legacy completions and moderations go to whoever speaks OpenAI's protocol, under the same rules."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream
from fakes.vendor_schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = http.bearer("sk-test-caller-5001")
PATHS = ("/embeddings", "/v1/responses")
VECTOR = {"object": "embedding", "index": 0, "embedding": [0.25, -1.0]}
EMBEDDINGS = {
    "object": "list",
    "data": [VECTOR],
    "model": "embed-1",
    "usage": {"prompt_tokens": 1000, "total_tokens": 1000},
}
CONFIG = """
[[upstreams]]
name = "default"
base_url = "{url}"
[[upstreams]]
name = "claude"
provider = "anthropic"
base_url = "{url}"
api_key = "sk-ant-test-5000"
[[prices]]
model = "embed"
input_usd_per_million = "0.02"
output_usd_per_million = "0"
[[models]]
name = "embed"
targets = [{{ upstream = "default", model = "embed-1" }}]
[[models]]
name = "either"
targets = [{{ upstream = "claude", model = "claude-1", priority = 0 }},
           {{ upstream = "default", model = "embed-1", priority = 1 }}]
[[models]]
name = "claude"
targets = [{{ upstream = "claude", model = "claude-1" }}]
[[models]]
name = "omni-moderation-latest"
targets = [{{ upstream = "default" }}]
[retry]
max_retries = 1
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of a provider of OpenAI's protocol, and one of another."""
    return await start_gateway(config=CONFIG.format(url=upstream_of_file.base_url))


async def test_embeddings_pass_and_are_charged(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Byte for byte but for the model's name; what went in is what it costs. A failure is tried again."""
    said = json.dumps(EMBEDDINGS, indent=1).encode()
    upstream.queue(scripts.whole(scripts.error_body("Down."), 503), scripts.whole(said))
    body = '{ "model":"embed","input":["a","ü"],"encoding_format":"float","new":1.0 }'.encode()
    response = await http.request(gateway.port, "POST", "/v1/embeddings", [http.JSON], body)
    assert (response.status, response.body) == (200, said)
    assert response.header("x-chatgate-attempts") == "2"
    call = await upstream.called(2)
    assert (call.target, call.body) == ("/v1/embeddings", body.replace(b'"embed"', b'"embed-1"'))
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    facts = (line["operation"], line["surface"], line["input_tokens"], line["output_tokens"], line["cost_usd"])
    assert facts == ("embedding", "embeddings", 1000, 0, "0.00002")


async def test_a_legacy_completion_streams(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Its chunks pass, the count that the gateway asked for does not; a stream that breaks off says so."""
    chunks = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("Good", " day")]
    events = [
        scripts.event(chunk) for chunk in (*chunks, {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    ]
    counted = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    upstream.queue(scripts.stream([*events, scripts.event(counted)]))
    asked = {"model": "embed", "prompt": "Hi", "stream": True}
    response = await http.post_json(gateway.port, "/v1/completions", asked)
    assert response.body == b"".join(events) + scripts.DONE
    call = await upstream.last_call()
    assert (call.target, call.json()["stream_options"]) == ("/v1/completions", {"include_usage": True})
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (line["operation"], line["input_tokens"], line["output_tokens"]) == ("completion", 3, 2)
    upstream.queue(scripts.stream(events[:1], end=b"", then="reset", close=False))
    broken = await http.post_json(gateway.port, "/v1/completions", asked)
    assert json.loads(broken.events()[-1])["error"]["code"] == "upstream_error"
    assert scripts.DONE not in broken.body


async def test_a_moderation_needs_no_model(gateway: Gateway, upstream: FakeUpstream) -> None:
    """It goes to who does that by default."""
    upstream.queue(scripts.whole({"id": "modr-1", "model": "omni", "results": [{"flagged": False}]}))
    response = await http.post_json(gateway.port, "/v1/moderations", {"input": "Hi"})
    assert (response.status, response.json()["id"]) == (200, "modr-1")
    call = await upstream.last_call()
    assert call.target == "/v1/moderations"
    assert call.json() == {"input": "Hi", "model": "omni-moderation-latest"}


async def test_who_does_not_offer_it_is_not_asked(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Another target of the model is; without one the caller is told, in OpenAI's shape."""
    upstream.queue(scripts.whole(EMBEDDINGS))
    response = await http.post_json(gateway.port, "/v1/embeddings", {"model": "either", "input": "a"})
    assert response.status == 200
    assert [call.target for call in upstream.calls] == ["/v1/embeddings"]
    for model in ("claude", "demo/echo"):
        refused = await http.post_json(gateway.port, "/v1/embeddings", {"model": model, "input": "a"})
        assert (refused.status, refused.json()["error"]["param"]) == (400, "model")
        check("openai", "ErrorResponse", refused.json())
    assert len(upstream.calls) == 1


async def test_limits_are_those_of_chats(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """One window counts them all."""
    gateway = await start_gateway({"OPENAI_BASE_URL": upstream.base_url, "HOUR_LIMIT": "1"})
    upstream.queue(scripts.whole(EMBEDDINGS))
    asked = {"model": "gpt-fake-small", "input": "a"}
    statuses = [(await http.post_json(gateway.port, path, asked, [KEY])).status for path in PATHS]
    assert statuses == [200, 429]
