"""Errors under /v1 have OpenAI's shape, whatever went wrong: an SDK must always find what it looks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway with a key of its own."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": "sk-test-server-0300"})


def refusal(response: http.Response, status: int, code: str) -> dict[str, Any]:
    """Check the shape of an error and return it."""
    assert response.status == status, response.body
    assert response.header("content-type") == "application/json"
    assert response.header("x-request-id") == response.header("request-id")
    assert (response.header("x-request-id") or "").startswith("req_")
    body: dict[str, Any] = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert body["error"]["message"]
    assert isinstance(body["error"]["type"], str)
    assert body["error"]["code"] == code
    error: dict[str, Any] = body["error"]
    return error


CASES: list[tuple[str, str, str, list[tuple[str, str]], bytes, int, str]] = [
    ("unknown path", "POST", "/v1/chat/complete", [http.JSON], b"{}", 404, "not_found"),
    ("unknown path below", "GET", "/v1/", [], b"", 404, "not_found"),
    ("wrong method", "GET", CHAT, [], b"", 405, "method_not_allowed"),
    ("wrong method on models", "POST", "/v1/models", [http.JSON], b"{}", 405, "method_not_allowed"),
    ("wrong method that is rare", "DELETE", CHAT, [], b"", 405, "method_not_allowed"),
    ("unknown gateway key", "POST", CHAT, [http.JSON, http.bearer("sk-cg-nobody")], b"{}", 401, "invalid_api_key"),
    ("not JSON", "POST", CHAT, [http.JSON], b"{", 400, "invalid_json"),
    ("no body", "POST", CHAT, [http.JSON], b"", 400, "invalid_json"),
    ("compressed", "POST", CHAT, [http.JSON, ("Content-Encoding", "gzip")], b"\x1f\x8b", 415, "unsupported_media_type"),
    ("a form", "POST", CHAT, [("Content-Type", "multipart/form-data")], b"--", 415, "unsupported_media_type"),
    ("too large", "POST", CHAT, [http.JSON, ("Content-Length", "99999999")], b"", 413, "request_too_large"),
    ("unknown model", "GET", "/v1/models/nobody-knows-it", [], b"", 404, "model_not_found"),
    (
        "unknown demo model",
        "POST",
        CHAT,
        [http.JSON],
        json.dumps(http.chat("Hi", "demo/x")).encode(),
        404,
        "model_not_found",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
async def test_every_refusal_has_the_shape(
    gateway: Gateway,
    upstream: FakeUpstream,
    case: tuple[str, str, str, list[tuple[str, str]], bytes, int, str],
) -> None:
    """Status, code and shape are what SDKs expect, and no chat reaches the provider."""
    _, method, path, headers, body, status, code = case
    response = await http.request(gateway.port, method, path, headers, body)
    refusal(response, status, code)
    if status == 405:
        assert response.header("allow")
    assert [call for call in upstream.calls if call.method == "POST"] == []


WRONG_FIELDS = [
    ({"messages": [{"role": "user", "content": "Hi"}]}, "model"),
    ({"model": "m"}, "messages"),
    ({"model": "m", "messages": []}, "messages"),
    ({"model": 4, "messages": [{"role": "user", "content": "Hi"}]}, "model"),
    ({"model": "m", "messages": [{"role": 4, "content": "Hi"}]}, "messages[0].role"),
    ({"model": "m", "messages": [{"role": "user", "content": "Hi"}, {"content": "Hi"}]}, "messages[1].role"),
    ({"model": "m", "messages": [{"role": "user", "content": 4}]}, "messages[0].content"),
    ({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": "true"}, "stream"),
    ({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": -1}, "max_tokens"),
]


@pytest.mark.parametrize(("body", "param"), WRONG_FIELDS)
async def test_a_wrong_field_is_named(
    gateway: Gateway, upstream: FakeUpstream, body: dict[str, Any], param: str
) -> None:
    """`param` is the path of the field at fault."""
    error = refusal(await http.post_json(gateway.port, CHAT, body), 400, "invalid_value")
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert upstream.calls == []


async def test_request_ids_are_ours_and_never_the_same(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The id names one request here; what the caller or the provider call it does not matter."""
    mine = [("X-Request-Id", "mine"), ("Request-Id", "mine")]
    ids = set()
    for _ in range(5):
        response = await http.post_json(gateway.port, CHAT, http.chat("Hi"), mine)
        assert response.status == 200
        assert response.header("x-request-id") == response.header("request-id")
        ids.add(response.header("x-request-id"))
    assert len(ids) == 5
    assert "mine" not in ids
    assert len(upstream.calls) == 5


async def test_the_message_speaks_the_callers_language(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Under /v1 the message follows Accept-Language too, and the code stays."""
    response = await http.post_json(gateway.port, CHAT, {}, [("Accept-Language", "ru")])
    message = refusal(response, 400, "invalid_value")["message"]
    assert any("\u0400" <= letter <= "\u04ff" for letter in message)
    assert upstream.calls == []


async def test_head_tells_the_same_without_a_body(gateway: Gateway, upstream: FakeUpstream) -> None:
    """HEAD is answered with a head only, and the connection goes on."""
    async with await http.connect(gateway.port) as connection:
        for path in ("/", "/v1/models", "/healthz", "/nowhere"):
            response = await connection.request("HEAD", path)
            assert response.status in {200, 404, 405}
        assert (await connection.request("GET", "/healthz")).status == 200
    assert [call for call in upstream.calls if call.method == "POST"] == []
