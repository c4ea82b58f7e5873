"""Every file of the catalogue does what it says: a call by it has the vendor's form, and its errors are understood.

One gateway has an upstream for each file, at the vendor's own path on the fake provider, and one more with a model of
its own for each error and way to ask, since a refused key or a full upstream would disturb the next call.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from chatgate.providers import spec
from chatgate.vocabulary.upstreams import FailureClass
from fakes import fleet, hearing, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import WAYS, Way
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CATALOGUE = {name: vendor for name, vendor in spec.load().items() if vendor.protocol == "openai_chat"}
"""Those who speak OpenAI's protocol; what the others say is held by the tests of theirs."""
FAILURES = [(name, said) for name, provider in CATALOGUE.items() for said in provider.failures]
KEY = "sk-test-vendor-0001"
WORDS = "Something is wrong"

MEANING: dict[FailureClass, str] = {
    "key": "invalid_api_key",
    "quota": "insufficient_quota",
    "pace": "rate_limit_exceeded",
    "content": "content_filter",
    "length": "context_length_exceeded",
    "model": "model_not_found",
    "down": "upstream_error",
}
"""What a caller of the OpenAI surface is told; the plain API has a code of its own for two of them."""

STATUSES = {
    "AccountOverdueError": 403,
    "Arrearage": 400,
    "InputTextSensitiveContentDetected": 400,
    "OperationDenied.ServiceOverdue": 403,
    "SensitiveContentDetected": 400,
    "content_filter": 400,
    "exceeded_current_quota_error": 429,
    "insufficient_quota": 429,
}
"""The statuses that go with codes and types."""

PLAIN = {"content_filter": "invalid_value", "context_length_exceeded": "invalid_value"}


def path_of(name: str) -> str:
    """Return the path of a vendor's base URL."""
    provider = CATALOGUE[name]
    return urlsplit(provider.base_url or provider.example_url or "https://any.invalid/v1").path


def documented(name: str, said: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the body with which a vendor says this, as its file's sources show them."""
    match name:
        case "minimax":
            body = {"id": "1", "choices": None, "base_resp": {"status_code": int(said), "status_msg": WORDS}}
            return 200, body
        case "openrouter":
            return 200, {"error": {"code": int(said), "message": WORDS}}
        case "siliconflow" if said == "20012":
            return 400, {"code": 20012, "message": WORDS, "data": None}
        case "moonshot":
            return STATUSES[said], {"error": {"type": said, "message": WORDS}}
        case "zhipu":
            return 429, {"error": {"code": said, "message": WORDS}}
    error = {"message": WORDS, "type": "invalid_request_error", "param": None}
    return (int(said), {"error": error}) if said.isdigit() else (STATUSES[said], {"error": {**error, "code": said}})


def model_of(name: str, said: str, way: Way) -> str:
    """Return the model whose only target fails so, and is asked in one way only."""
    return f"{name}-{said.replace('.', '-')}-{way[0]}-{way[1]}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway with all vendors."""
    config = fleet.QUICK + "[retry]\nmax_retries = 0\n"

    def one(model: str, provider: str) -> str:
        url = f"http://127.0.0.1:{upstream_of_file.port}{path_of(provider)}"
        return fleet.upstream(model, url, provider=provider, api_key=KEY) + fleet.model(
            model, [fleet.target(model, model)]
        )

    config += "".join(one(f"{name}-well", name) for name in CATALOGUE)
    config += "".join(one(model_of(name, said, way), name) for name, said in FAILURES for way in WAYS)
    return await start_gateway({"ROUTE": "api"}, config)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", CATALOGUE)
async def test_a_call_has_the_vendors_form(gateway: Gateway, upstream: FakeUpstream, name: str, way: Way) -> None:
    """Path, key and parameters are those that the vendor knows, and its answer comes through."""
    provider, model = CATALOGUE[name], f"{name}-well"
    upstream.on_model(model, scripts.telling("Well, hello there", by="vendor"))
    more: dict[str, Any] = {"max_tokens": 9} if way[0] == "plain" else {"max_completion_tokens": 9, "seed": 5}
    heard = await hearing.ask(gateway.port, way, "Hi", model, **more)
    assert heard.is_whole
    assert heard.text == "Well, hello there"
    (call,) = upstream.calls
    assert call.target == path_of(name) + "/chat/completions"
    header, _, value = provider.auth.partition(": ")
    assert call.header(header.lower()) == value.format(key=KEY)
    assert sum(KEY in line for _, line in call.headers) == 1
    asked = call.json()
    assert asked["model"] == model
    limit, renamed = ("max_tokens", provider.parameters.rename)
    if way[0] == "openai":
        limit, renamed = ("max_completion_tokens", provider.parameters.unknown)
        assert asked[renamed.get("seed", "seed")] == 5
    assert asked[renamed.get(limit, limit)] == 9
    assert not renamed.keys() & asked.keys()
    wanted = {"include_usage": True} if way[1] and provider.takes_stream_options else None
    assert asked.get("stream_options") == wanted


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("name", "said"), FAILURES)
async def test_an_error_is_understood(gateway: Gateway, upstream: FakeUpstream, name: str, said: str, way: Way) -> None:
    """An error of the vendor's documented form becomes what it means, whichever status it came with."""
    model = model_of(name, said, way)
    status, body = documented(name, said)
    upstream.on_model(model, scripts.whole(body, status))
    heard = await hearing.ask(gateway.port, way, "Hi", model)
    meaning = MEANING[CATALOGUE[name].failures[said]]
    assert heard.code == (PLAIN.get(meaning, meaning) if way[0] == "plain" else meaning)
    assert not heard.text
    assert len(upstream.calls) == 1
    told = [WORDS in heard.message, meaning == "invalid_api_key"]
    assert any(told), heard.message
    assert KEY not in heard.message
