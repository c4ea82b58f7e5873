"""An open server without a key: callers bring their own, and it goes to the default upstream and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
CALLER_KEY = "sk-test-caller-0100"
NO_KEY = ["none", "empty", "chatgate", "-", "NONE", "ChatGate"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway without any key, in front of the default upstream."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url, "ROUTE": "api"})


SHOWN = [
    ("bearer", "", [("Authorization", f"Bearer {CALLER_KEY}")]),
    ("bearer in another case", "", [("authorization", f"bearer {CALLER_KEY}")]),
    ("x-api-key", "", [("x-api-key", CALLER_KEY)]),
    ("api-key", "", [("api-key", CALLER_KEY)]),
    ("x-goog-api-key", "", [("x-goog-api-key", CALLER_KEY)]),
    ("query", f"?key={CALLER_KEY}", []),
]


@pytest.mark.parametrize("path", [CHAT, "/api"])
@pytest.mark.parametrize(("query", "headers"), [each[1:] for each in SHOWN], ids=[each[0] for each in SHOWN])
async def test_a_key_is_read_wherever_clients_put_it(
    gateway: Gateway, upstream: FakeUpstream, path: str, query: str, headers: list[tuple[str, str]]
) -> None:
    """The key is found in every usual place, and goes upstream once, as a bearer, and never in the URL."""
    body = http.chat("Hi") if path.startswith("/v1") else {"user_content": "Hi"}
    response = await http.post_json(gateway.port, path + query, body, headers)
    assert response.status == 200, response.body
    call = await upstream.last_call()
    assert call.header("authorization") == f"Bearer {CALLER_KEY}"
    assert (call.head + call.body).count(CALLER_KEY.encode()) == 1
    assert call.target == CHAT


async def test_without_a_key_the_plain_api_says_how_to_go_on(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The reason says what is missing, and that a demo model answers without a key."""
    response = await http.post_json(gateway.port, "/api", {"user_content": "Hi"})
    assert response.status == 400
    reason = response.json()["data"]["response"]
    assert "api_key" in reason
    assert "demo/echo" in reason
    assert response.json()["error"]["code"] == "missing_key"
    assert upstream.calls == []


async def test_without_a_key_the_openai_surface_answers_401(gateway: Gateway, upstream: FakeUpstream) -> None:
    """An SDK is told in its own terms, before anything is sent anywhere."""
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert response.status == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert upstream.calls == []


@pytest.mark.parametrize("word", NO_KEY)
async def test_words_that_mean_no_key_are_no_key(gateway: Gateway, upstream: FakeUpstream, word: str) -> None:
    """What people write where a client insists on a key is not sent to anybody."""
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"), [http.bearer(word)])
    assert response.status == 401
    assert (await http.post_json(gateway.port, "/api", {"user_content": "Hi", "api_key": word})).status == 400
    assert upstream.calls == []


@pytest.mark.parametrize("word", ["", *NO_KEY])
async def test_the_demo_models_need_no_key(gateway: Gateway, upstream: FakeUpstream, word: str) -> None:
    """The built-in models answer everyone."""
    headers = [http.bearer(word)] if word else []
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", "demo/echo"), headers)
    assert response.json()["choices"][0]["message"]["content"] == "Hi"
    response = await http.post_json(gateway.port, "/api", {"user_content": "Hi", "model": "demo/echo"}, headers)
    assert response.json()["current_response"] == "Hi"
    assert upstream.calls == []


@pytest.mark.parametrize("path", [CHAT, "/api"])
async def test_a_gateway_key_that_nobody_knows_is_refused_here(
    gateway: Gateway, upstream: FakeUpstream, path: str
) -> None:
    """A key that looks like one of ours is judged here and never shown to a provider."""
    body = http.chat("Hi") if path.startswith("/v1") else {"user_content": "Hi"}
    response = await http.post_json(gateway.port, path, body, [http.bearer("sk-cg-test-unknown-0001")])
    assert response.status == 401
    assert b"sk-cg-test" not in response.body
    assert upstream.calls == []


HOSTILE_KEYS = [
    ("line break", b"Bearer sk-test\r\nX-Evil: 1"),
    ("bare CR", b"Bearer sk-test\rX"),
    ("NUL", b"Bearer sk-test\x00"),
    ("bytes", b"Bearer sk-test-\xff\xfe"),
    ("UTF-8", "Bearer sk-тест".encode()),
    ("smart quotes", "Bearer “sk-test”".encode()),
    ("space inside", b"Bearer sk-test a b"),
    ("64 KiB", b"Bearer " + b"k" * 65536),
]


@pytest.mark.parametrize("value", [each[1] for each in HOSTILE_KEYS], ids=[each[0] for each in HOSTILE_KEYS])
async def test_a_key_that_is_no_token_goes_nowhere(gateway: Gateway, upstream: FakeUpstream, value: bytes) -> None:
    """A key with bytes that no key has is refused, and cannot smuggle anything into the head sent upstream."""
    body = b'{"model":"gpt-fake-small","messages":[{"role":"user","content":"Hi"}]}'
    async with await http.connect(gateway.port) as connection:
        connection.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: "
            + value
            + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        response = await connection.read_response()
    if value == HOSTILE_KEYS[0][1]:  # This is two header lines: an ordinary key and a header that stops here.
        assert response.status == 200
        assert b"Evil" not in (await upstream.last_call()).head
    else:
        assert response.status in {400, 401, 431}
        assert upstream.calls == []


async def test_a_key_in_the_body_cannot_smuggle_either(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The plain API's own key field is held to the same."""
    for key in ("sk-test\r\nX-Evil: 1", "sk-test\x00", "sk-тест", "k" * 70_000, "sk test"):
        response = await http.post_json(gateway.port, "/api", {"user_content": "Hi", "api_key": key})
        assert response.status in {400, 401}, response.body
    assert upstream.calls == []


async def test_no_field_of_a_call_chooses_where_it_goes(gateway: Gateway, upstream: FakeUpstream) -> None:
    """URLs, proxies and keys inside an OpenAI call are a provider's business at most: nobody here obeys them."""
    async with FakeUpstream() as evil:
        choices: dict[str, Any] = {
            "api_base": evil.base_url,
            "base_url": evil.base_url,
            "api_key": "sk-test-other-0001",
            "custom_llm_provider": "openai",
            "extra_headers": {"Authorization": "Bearer sk-test-other-0002"},
            "proxy": f"http://127.0.0.1:{evil.port}",
            "metadata": {"api_base": evil.base_url},
        }
        headers = [
            http.bearer(CALLER_KEY),
            ("X-Portkey-Custom-Host", evil.base_url),
            ("X-Forwarded-Host", f"127.0.0.1:{evil.port}"),
            ("Host", f"127.0.0.1:{evil.port}"),
            ("Forwarded", f"host=127.0.0.1:{evil.port}"),
            ("Cookie", "session=1"),
        ]
        response = await http.post_json(gateway.port, CHAT, http.chat("Hi", **choices), headers)
        assert response.status == 200
        call = await upstream.last_call()
        assert call.header("authorization") == f"Bearer {CALLER_KEY}"
        assert call.header("host") == f"127.0.0.1:{upstream.port}"
        forbidden = {"cookie", "forwarded", "x-forwarded-host", "x-forwarded-for", "x-portkey-custom-host"}
        assert not forbidden & {name for name, _ in call.headers}
        assert evil.connections == []


async def test_a_redirect_is_not_followed(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A provider that points elsewhere is a provider that failed: the key goes nowhere else."""
    async with FakeUpstream() as evil:
        for status in (301, 302, 307, 308):
            upstream.queue(
                *[scripts.whole(b"", status, [("Location", f"{evil.base_url}/chat/completions")]) for _ in range(4)]
            )
            response = await http.post_json(gateway.port, CHAT, http.chat("Hi"), [http.bearer(CALLER_KEY)])
            assert response.status == 502
            assert response.header("location") is None
            upstream.forget()
        assert evil.connections == []


async def test_a_callers_key_goes_to_the_default_upstream_only(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """A model at another upstream is called with the operator's key for that one, or with none."""
    async with FakeUpstream() as other, FakeUpstream() as keyless:
        config = f"""
[[upstreams]]
name = "main"
provider = "openai"
base_url = "{upstream.base_url}"
[[upstreams]]
name = "other"
base_url = "{other.base_url}"
api_key = "sk-test-other-0101"
[[upstreams]]
name = "keyless"
base_url = "{keyless.base_url}"
[[models]]
name = "at-main"
targets = [{{ upstream = "main", model = "gpt-fake-small" }}]
[[models]]
name = "at-other"
targets = [{{ upstream = "other", model = "gpt-fake-small" }}]
[[models]]
name = "at-keyless"
targets = [{{ upstream = "keyless", model = "gpt-fake-small" }}]
"""
        gateway = await start_gateway({}, config)

        async def status(model: str) -> int:
            return (await http.post_json(gateway.port, CHAT, http.chat("Hi", model), [http.bearer(CALLER_KEY)])).status

        assert [await status("at-main"), await status("at-other"), await status("at-keyless")] == [200] * 3
        assert (await upstream.last_call()).header("authorization") == f"Bearer {CALLER_KEY}"
        assert (await other.last_call()).header("authorization") == "Bearer sk-test-other-0101"
        assert (await keyless.last_call()).header("authorization") is None
        await gateway.stop_now()
        assert await gateway.ended() == 0
