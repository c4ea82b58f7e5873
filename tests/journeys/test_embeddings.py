"""OpenAI's embeddings by providers that speak Ollama's or Gemini's protocol."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from fakes import candidates, scripts
from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream
from fakes.vendor_schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = """
[[upstreams]]
name = "ollama"
provider = "ollama"
base_url = "{root}"
[[upstreams]]
name = "gemini"
provider = "gemini"
base_url = "{root}"
api_key = "sk-test-gemini-0001"
[[models]]
name = "ollama"
targets = [{{ upstream = "ollama", model = "minilm" }}]
[[models]]
name = "gemini"
targets = [{{ upstream = "gemini", model = "embedding-1" }}]
[[prices]]
model = "minilm"
input_usd_per_million = "1"
output_usd_per_million = "1"
[retry]
max_retries = 0
"""
VECTORS = [[0.5, -0.25], [1.0, 0.0]]
ANSWERS: dict[str, dict[str, Any]] = {
    "ollama": {"model": "minilm", "embeddings": VECTORS, "prompt_eval_count": 5},
    "gemini": {"embeddings": [{"values": vector} for vector in VECTORS], "usageMetadata": {"promptTokenCount": 5}},
}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "ollama": ("/api/embed", {"model": "minilm", "input": ["a", "b"], "dimensions": 2}),
    "gemini": (
        "/v1beta/models/embedding-1:batchEmbedContents",
        {
            "requests": [
                {"model": "models/embedding-1", "content": {"parts": [{"text": text}]}, "outputDimensionality": 2}
                for text in ("a", "b")
            ]
        },
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> AsyncIterator[Gateway]:
    """Run a gateway in front of both."""
    yield await start_gateway(config=CONFIG.format(root=upstream_of_file.base_url.removesuffix("/v1")))


async def post(gateway: Gateway, model: str, given: Any, **more: Any) -> http.Response:
    """Ask for vectors."""
    return await http.post_json(gateway.port, "/v1/embeddings", {"model": model, "input": given, **more})


@pytest.mark.parametrize("model", ANSWERS)
async def test_texts_become_vectors(gateway: Gateway, upstream: FakeUpstream, model: str) -> None:
    """Asked as each provider has it, answered as OpenAI does, counted and charged."""
    upstream.queue(scripts.whole(ANSWERS[model]))
    response = await post(gateway, model, ["a", "b"], dimensions=2, user="ann")
    assert response.status == 200, response.body
    answer = response.json()
    check("openai", "CreateEmbeddingResponse", answer)
    assert [each["embedding"] for each in answer["data"]] == VECTORS
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert response.header("x-chatgate-dropped") == "user"
    call = await upstream.last_call()
    assert (call.target, call.json()) == ASKED[model]
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (line["input_tokens"], line["output_tokens"]) == (5, 0)
    assert line.get("cost_usd") == ("0.000005" if model == "ollama" else None)


@pytest.mark.parametrize("model", ANSWERS)
async def test_the_openai_package_gets_them(gateway: Gateway, upstream: FakeUpstream, model: str) -> None:
    """It asks for base64, and reads that."""
    upstream.queue(scripts.whole(ANSWERS[model]))
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-test-caller-0001", max_retries=0)
    async with client:
        found = await client.embeddings.create(model=model, input=["a", "b"])
    assert [each.embedding for each in found.data] == VECTORS
    raw = base64.b64encode(struct.pack("<2f", *VECTORS[0])).decode()
    upstream.queue(scripts.whole(ANSWERS[model]))
    assert (await post(gateway, model, "a", encoding_format="base64")).json()["data"][0]["embedding"] == raw


@pytest.mark.parametrize("model", ANSWERS)
async def test_tokens_and_nonsense_are_refused(gateway: Gateway, upstream: FakeUpstream, model: str) -> None:
    """By the field's name, before anybody is asked."""
    for given in ([1, 2], [[1], [2]], 5, [], [None]):
        response = await post(gateway, model, given)
        assert (response.status, response.json()["error"]["param"]) == (400, "input"), given
    assert not upstream.calls


async def test_a_refusal_and_a_bad_answer(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A provider's own words stay; what are no vectors is no answer."""
    upstream.queue(scripts.whole({"error": "no such thing"}, 400))
    response = await post(gateway, "ollama", "a")
    assert (response.status, response.json()["error"]["message"]) == (400, "no such thing")
    upstream.queue(scripts.whole(candidates.error(400, "INVALID_ARGUMENT", "too long"), 400))
    response = await post(gateway, "gemini", "a")
    assert (response.status, response.json()["error"]["message"]) == (400, "too long")
    bad_ones: tuple[dict[str, Any], ...] = (
        {"embeddings": [["x"]]},
        {"embeddings": [5]},
        {"embeddings": [{}]},
        {"x": []},
    )
    for bad in bad_ones:
        upstream.queue(scripts.whole(bad))
        assert (await post(gateway, "ollama", "a")).status == 502
