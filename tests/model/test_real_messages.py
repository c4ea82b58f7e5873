"""A real server that speaks several protocols itself: each pair of caller and upstream says the same through us.

At temperature 0 the small model gives one answer, so all ways can be compared word by word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import messages
from fakes.gateway import Gateway, StartGateway
from fakes.vendor_schemas import check
from model.running import KEY, MODEL, running_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

SYSTEM = "Answer in one short sentence."
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
PROVIDERS = {"chat": "openai_compatible", "messages": "anthropic", "responses": "openai_responses"}


@pytest.fixture(scope="module")
def model_address() -> Iterator[str]:
    """Run the model and return its address."""
    with running_model() as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(model_address: str, start_gateway: StartGateway) -> Gateway:
    """Run a gateway that knows the model's server by each of the protocols that it speaks."""
    return await start_gateway(
        config="".join(
            f"""
[[upstreams]]
name = "{name}"
provider = "{provider}"
base_url = "{model_address}/v1"
api_key = "{KEY}"
[[models]]
name = "{name}"
targets = [{{ upstream = "{name}", model = "{MODEL}" }}]
"""
            for name, provider in PROVIDERS.items()
        )
    )


def asked(path: str, model: str, **more: Any) -> dict[str, Any]:
    """Return the question in the protocol of a path."""
    question = {"role": "user", "content": QUESTION}
    common = {"model": model, "max_tokens": 30, "temperature": 0, **more}
    if path == "/v1/messages":
        return {**common, "system": SYSTEM, "messages": [question]}
    return {**common, "messages": [{"role": "system", "content": SYSTEM}, question]}


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_whole_answers_are_the_same_in_every_pair(gateway: Gateway, path: str, model: str) -> None:
    """Text, reason to stop and counts, in the caller's protocol."""
    response = await http.post_json(gateway.port, path, asked(path, model))
    assert response.status == 200, response.body
    answer = response.json()
    if path == "/v1/messages":
        told = (answer["content"][0]["text"], answer["stop_reason"])
        counted = answer["usage"]["input_tokens"] + (answer["usage"].get("cache_read_input_tokens") or 0)
    else:
        told = (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"])
        counted = answer["usage"]["prompt_tokens"]
    assert told == (ANSWER, "end_turn" if path == "/v1/messages" else "stop")
    assert 20 < counted < 60
    (line,) = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert line["input_tokens"] == counted


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_streams_are_the_same_in_every_pair(gateway: Gateway, path: str, model: str) -> None:
    """Word by word, and whole by the rules of the caller's protocol."""
    body = asked(path, model, stream=True)
    if path == "/v1/messages":
        response = await http.post_json(gateway.port, path, body)
        found = messages.read(response.body)
        said = messages.assembled(found)
        assert (said["content"][0]["text"], said["stop_reason"]) == (ANSWER, "end_turn")
        assert said["usage"]["output_tokens"] > 3
        if model != "messages":
            check("anthropic", "Message", {**said, "usage": found[0]["message"]["usage"]})
        return
    events = (await http.post_json(gateway.port, path, body)).events()
    assert events.pop() == b"[DONE]"
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == ANSWER


async def test_the_server_counts_tokens(gateway: Gateway) -> None:
    """By its own tokenizer, through the gateway."""
    body = asked("/v1/messages", "messages")
    counted = await http.post_json(gateway.port, "/v1/messages/count_tokens", body)
    assert counted.header("x-chatgate-estimated") is None
    assert 20 < counted.json()["input_tokens"] < 60


@pytest.mark.parametrize("model", ["chat", "messages"])
async def test_a_context_that_is_too_small_is_told(gateway: Gateway, model: str) -> None:
    """The server's refusal has the caller's shape, whatever protocol it came in."""
    body = {**asked("/v1/messages", model), "messages": [{"role": "user", "content": "word " * 4000}]}
    response = await http.post_json(gateway.port, "/v1/messages", body)
    assert response.status == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
