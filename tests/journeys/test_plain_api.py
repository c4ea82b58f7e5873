"""The plain API as its callers know it: every spelling, every form of body, every refusal, in every language."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import Call, FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER_KEY = "sk-test-server-0001"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run the gateway as the seed was run: a key, a route, a default model."""
    return await start_gateway(
        {
            "OPENAI_BASE_URL": upstream_of_file.base_url,
            "API_KEY": SERVER_KEY,
            "ROUTE": "api",
            "DEFAULT_MODEL": "gpt-fake-default",
        }
    )


def refusal(response: http.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check the shape of a failure and return it."""
    assert response.status == status, response.body
    assert response.header("content-type") == "application/json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"code", "msg", "data", "error"}
    assert body["code"] == status
    assert body["msg"] == "failed"
    assert isinstance(body["data"]["response"], str)
    assert body["data"]["response"]
    assert body["error"]["request_id"] == response.header("x-request-id")
    if code is not None:
        assert body["error"]["code"] == code
    return body


def max_tokens_of(call: Call) -> int:
    """Return the bound on the answer's tokens, under either of its names upstream."""
    asked = call.json()
    value: int = asked.get("max_tokens", asked.get("max_completion_tokens"))
    return value


async def test_one_field_is_enough(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A question alone gets the whole success object, and the provider gets the server's key, model and bound."""
    response = await http.post_json(gateway.port, "/api", {"user_content": "How are you?"})
    assert response.status == 200
    assert response.header("content-type") == "application/json"
    assert response.json() == {
        "code": 200,
        "msg": "success",
        "data": {
            "response": "How are you?",
            "model": "gpt-fake-default",
            "usage": {"input_tokens": 7, "output_tokens": 3},
        },
        "current_response": "How are you?",
        "result": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "How are you?"}],
    }
    call = await upstream.last_call()
    assert call.target == "/v1/chat/completions"
    assert call.header("authorization") == f"Bearer {SERVER_KEY}"
    assert call.json()["messages"] == [{"role": "user", "content": "How are you?"}]
    assert call.json()["model"] == "gpt-fake-default"
    assert max_tokens_of(call) == 100


@pytest.mark.parametrize("spelling", ["sys_content", "system_content"])
async def test_either_spelling_of_the_system_instruction(
    gateway: Gateway, upstream: FakeUpstream, spelling: str
) -> None:
    """The system instruction comes first, under either name."""
    response = await http.post_json(gateway.port, "/api", {"user_content": "Hi", spelling: "Be brief."})
    assert response.status == 200
    assert (await upstream.last_call()).json()["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize("spelling", ["continuous", "continuous_dialogue"])
async def test_either_spelling_of_the_dialogue(gateway: Gateway, upstream: FakeUpstream, spelling: str) -> None:
    """Earlier messages go along and come back in `result`, under either name."""
    earlier = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}]
    response = await http.post_json(gateway.port, "/api", {"user_content": "Three", spelling: earlier})
    question = {"role": "user", "content": "Three"}
    assert (await upstream.last_call()).json()["messages"] == [*earlier, question]
    assert response.json()["result"] == [*earlier, question, {"role": "assistant", "content": "Three"}]


async def test_the_dialogue_can_be_handed_back_as_it_came(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A caller who sends `result` back as `continuous` goes on with the dialogue."""
    first = await http.post_json(gateway.port, "/api", {"user_content": "One", "sys_content": "Count."})
    second = await http.post_json(
        gateway.port,
        "/api",
        {"user_content": "Two", "sys_content": "Count.", "continuous": first.json()["result"]},
    )
    assert second.status == 200
    roles = [message["role"] for message in (await upstream.last_call()).json()["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


async def test_a_given_system_instruction_replaces_the_dialogues(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A system message inside the dialogue gives way to `sys_content`, and the system message leads."""
    dialogue = [{"role": "user", "content": "One"}, {"role": "system", "content": "Old"}]
    await http.post_json(gateway.port, "/api", {"user_content": "Two", "sys_content": "New", "continuous": dialogue})
    assert (await upstream.last_call()).json()["messages"] == [
        {"role": "system", "content": "New"},
        {"role": "user", "content": "One"},
        {"role": "user", "content": "Two"},
    ]


async def test_the_dialogues_system_message_leads_when_no_other_is_given(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    """The system message always comes first, wherever it stood."""
    dialogue = [{"role": "user", "content": "One"}, {"role": "system", "content": "Old"}]
    await http.post_json(gateway.port, "/api", {"user_content": "Two", "continuous": dialogue})
    roles = [message["role"] for message in (await upstream.last_call()).json()["messages"]]
    assert roles == ["system", "user", "user"]


async def test_both_spellings_may_agree(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Both spellings with one value are fine."""
    body = {"user_content": "Hi", "sys_content": "Same", "system_content": "Same"}
    assert (await http.post_json(gateway.port, "/api", body)).status == 200
    assert len(upstream.calls) == 1


async def test_unknown_fields_are_ignored(gateway: Gateway, upstream: FakeUpstream) -> None:
    """What is not a field of the plain API is neither refused nor passed on."""
    body = {"user_content": "Hi", "temperature": 2, "base_url": "http://127.0.0.1:9/", "messages": []}
    assert (await http.post_json(gateway.port, "/api", body)).status == 200
    assert set((await upstream.last_call()).json()) <= {"model", "messages", "max_tokens", "max_completion_tokens"}


@pytest.mark.parametrize("asked", [None, "text-davinci-003"])
async def test_no_model_or_the_retired_one_means_the_default(
    gateway: Gateway, upstream: FakeUpstream, asked: str | None
) -> None:
    """Old clients ask for a model that is no more, and get the server's default."""
    body = {"user_content": "Hi"} | ({"model": asked} if asked else {})
    await http.post_json(gateway.port, "/api", body)
    assert (await upstream.last_call()).json()["model"] == "gpt-fake-default"


async def test_a_named_model_is_asked_for(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The caller's model goes upstream, and the answer says which one answered."""
    response = await http.post_json(gateway.port, "/api", {"user_content": "Hi", "model": "gpt-fake-large"})
    assert (await upstream.last_call()).json()["model"] == "gpt-fake-large"
    assert response.json()["data"]["model"] == "gpt-fake-large"


@pytest.mark.parametrize("amount", [1, 3000, 3500])
async def test_the_callers_bound_on_tokens_is_used(gateway: Gateway, upstream: FakeUpstream, amount: int) -> None:
    """`max_tokens` from 1 to 3500 reaches the provider."""
    await http.post_json(gateway.port, "/api", {"user_content": "Hi", "max_tokens": amount})
    assert max_tokens_of(await upstream.last_call()) == amount


@pytest.mark.parametrize("where", ["body", "header"])
async def test_the_callers_own_key_is_used(gateway: Gateway, upstream: FakeUpstream, where: str) -> None:
    """A key that the caller brings, in the body or in the header, goes upstream in place of the server's."""
    body = {"user_content": "Hi"} | ({"api_key": "sk-test-caller-0001"} if where == "body" else {})
    headers = [http.bearer("sk-test-caller-0001")] if where == "header" else []
    assert (await http.post_json(gateway.port, "/api", body, headers)).status == 200
    call = await upstream.last_call()
    assert call.header("authorization") == "Bearer sk-test-caller-0001"
    assert SERVER_KEY.encode() not in call.head + call.body


async def test_a_form_is_understood(gateway: Gateway, upstream: FakeUpstream) -> None:
    """An HTML form's fields are the same fields."""
    body = b"user_content=Good+day%2C+%C3%BC%21&sys_content=Be+kind&max_tokens=7"
    form = ("Content-Type", "application/x-www-form-urlencoded")
    response = await http.request(gateway.port, "POST", "/api", [form], body)
    assert response.json()["current_response"] == "Good day, ü!"
    call = await upstream.last_call()
    assert call.json()["messages"][0] == {"role": "system", "content": "Be kind"}
    assert max_tokens_of(call) == 7


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", None])
async def test_bare_text_is_the_question(gateway: Gateway, upstream: FakeUpstream, media_type: str | None) -> None:
    """`curl -d 'question'` asks the question, whatever curl says the body is."""
    headers = [("Content-Type", media_type)] if media_type else []
    response = await http.request(gateway.port, "POST", "/api", headers, "what is 1+1? 答案".encode())
    assert response.json()["current_response"] == "what is 1+1? 答案"
    assert len(upstream.calls) == 1


REFUSED: list[tuple[str, Any, str]] = [
    ("not JSON", b"{user_content: 1}", "invalid_json"),
    ("cut JSON", b'{"user_content": "Hi"', "invalid_json"),
    ("empty", b"", "invalid_json"),
    ("an array", b'[{"user_content": "Hi"}]', "invalid_json"),
    ("a string", b'"Hi"', "invalid_json"),
    ("not UTF-8", b'{"user_content": "\xff"}', "invalid_json"),
    ("a field twice", b'{"user_content": "a", "user_content": "b"}', "invalid_json"),
    ("no question", {"sys_content": "Hi"}, "invalid_value"),
    ("an empty question", {"user_content": ""}, "invalid_value"),
    ("a question of another type", {"user_content": 7}, "invalid_value"),
    ("a list for a question", {"user_content": ["Hi"]}, "invalid_value"),
    ("a question that is null", {"user_content": None}, "invalid_value"),
    ("an instruction of another type", {"user_content": "Hi", "sys_content": {}}, "invalid_value"),
    ("a model of another type", {"user_content": "Hi", "model": 4}, "invalid_value"),
    ("a key of another type", {"user_content": "Hi", "api_key": 4}, "invalid_value"),
    ("no tokens", {"user_content": "Hi", "max_tokens": 0}, "invalid_value"),
    ("negative tokens", {"user_content": "Hi", "max_tokens": -1}, "invalid_value"),
    ("too many tokens", {"user_content": "Hi", "max_tokens": 3501}, "invalid_value"),
    ("half a token", {"user_content": "Hi", "max_tokens": 1.5}, "invalid_value"),
    ("tokens as text", {"user_content": "Hi", "max_tokens": "100"}, "invalid_value"),
    ("tokens as truth", {"user_content": "Hi", "max_tokens": True}, "invalid_value"),
    ("a dialogue that is no list", {"user_content": "Hi", "continuous": "Hi"}, "invalid_value"),
    ("a dialogue of texts", {"user_content": "Hi", "continuous": ["Hi"]}, "invalid_value"),
    ("a turn without a role", {"user_content": "Hi", "continuous": [{"content": "Hi"}]}, "invalid_value"),
    ("a turn without content", {"user_content": "Hi", "continuous": [{"role": "user"}]}, "invalid_value"),
    ("a turn of nobody's", {"user_content": "Hi", "continuous": [{"role": "x", "content": "Hi"}]}, "invalid_value"),
    ("a stream as text", {"user_content": "Hi", "stream": "yes"}, "invalid_value"),
    ("two instructions", {"user_content": "Hi", "sys_content": "a", "system_content": "b"}, "invalid_value"),
    (
        "two dialogues",
        {"user_content": "Hi", "continuous": [], "continuous_dialogue": [{"role": "user", "content": "a"}]},
        "invalid_value",
    ),
]


@pytest.mark.parametrize(("body", "code"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
async def test_a_malformed_call_is_refused(gateway: Gateway, upstream: FakeUpstream, body: Any, code: str) -> None:
    """What is malformed is answered 400 with a reason, and nothing of it reaches the provider."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    refusal(await http.request(gateway.port, "POST", "/api", [http.JSON], data), 400, code)
    assert upstream.calls == []


async def test_the_reason_names_the_field_and_its_range(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A caller can mend the call from what the reason says."""
    response = await http.post_json(gateway.port, "/api", {"user_content": "Hi", "max_tokens": 9999})
    reason = refusal(response, 400)["data"]["response"]
    assert "max_tokens" in reason
    assert "3500" in reason
    assert upstream.calls == []


async def test_each_language_says_it_in_its_own_words(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The reason follows Accept-Language; for other languages it follows the server's own."""
    asked = ["en", "zh-CN", "zh-TW", "ru-RU,ru;q=0.9", "fr"]
    reasons = [
        refusal(await http.post_json(gateway.port, "/api", {}, [("Accept-Language", language)]), 400)["data"][
            "response"
        ]
        for language in asked
    ]
    english, simplified, traditional, russian, other = reasons
    assert len({english, simplified, traditional, russian}) == 4
    assert all(ord(letter) < 0x250 or letter in "\u2018\u2019\u201c\u201d\u2026\u2013" for letter in english)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in simplified)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in traditional)
    assert any("\u0400" <= letter <= "\u04ff" for letter in russian)
    assert other == english
    assert upstream.calls == []


async def test_a_body_of_another_type_is_refused(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A body that nobody can read as a call is answered 415."""
    headers = [("Content-Type", "application/xml")]
    refusal(await http.request(gateway.port, "POST", "/api", headers, b"<q/>"), 415, "unsupported_media_type")
    assert upstream.calls == []


async def test_a_body_too_large_is_refused(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A body over 10 MiB is answered 413 from its stated length."""
    headers = [http.JSON, ("Content-Length", str(10 * 1024 * 1024 + 1))]
    refusal(await http.request(gateway.port, "POST", "/api", headers), 413, "request_too_large")
    assert upstream.calls == []


UNKNOWN_PATHS = [
    "/apis",
    "/API",
    "//api",
    "/./api",
    "/x/../api",
    "/%61pi",
    "/api;x",
    "/api%00",
    "/api%2f",
    "/api/x",
    "/%",
]


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
async def test_an_unknown_path_is_refused(gateway: Gateway, upstream: FakeUpstream, path: str) -> None:
    """There is nothing beside the route, and no other way to spell it."""
    refusal(await http.post_json(gateway.port, path, {"user_content": "Hi"}), 404, "not_found")
    assert upstream.calls == []


async def test_the_root_is_not_the_route(gateway: Gateway, upstream: FakeUpstream) -> None:
    """With a route set, the root takes no calls."""
    refusal(await http.post_json(gateway.port, "/", {"user_content": "Hi"}), 405, "method_not_allowed")
    assert upstream.calls == []


async def test_a_program_that_gets_is_told_to_post(gateway: Gateway, upstream: FakeUpstream) -> None:
    """GET on the route by a program is answered 403, as ever."""
    refusal(await http.request(gateway.port, "GET", "/api"), 403)
    assert upstream.calls == []


async def test_a_browser_that_gets_is_shown_how_to_call(gateway: Gateway, upstream: FakeUpstream) -> None:
    """GET on the route by a browser is answered with a page that names the address to call."""
    browser = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"), ("Host", f"127.0.0.1:{gateway.port}")]
    response = await http.request(gateway.port, "GET", "/api", browser)
    assert response.status == 200
    assert response.header("content-type") == "text/html; charset=utf-8"
    assert f"127.0.0.1:{gateway.port}/api".encode() in response.body
    assert "default-src 'none'" in (response.header("content-security-policy") or "")
    assert upstream.calls == []


async def test_a_stream_comes_word_by_word_and_ends_with_the_whole(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A stream is deltas and then the whole success object, and then the body ends."""
    tap = Tap(2)
    upstream.queue(scripts.stream(scripts.text_events("one two three", usage=True), tap=tap))
    question = {"user_content": "Count", "stream": True}
    async with http.open_stream(gateway.port, "/api", question) as stream:
        assert stream.head.status == 200
        assert (stream.head.header("content-type") or "").startswith("text/event-stream")
        await stream.until(b'{"delta":"one"}')
        assert b"two" not in stream.so_far
        tap.let(20)
        *deltas, last = [json.loads(each) for each in http.events_of(await stream.rest())]
    assert deltas == [{"delta": "one"}, {"delta": " two"}, {"delta": " three"}]
    assert last["code"] == 200
    assert last["current_response"] == last["data"]["response"] == "one two three"
    assert last["data"]["usage"] == {"input_tokens": 7, "output_tokens": 3}
    assert last["result"][-1] == {"role": "assistant", "content": "one two three"}
    assert (await upstream.last_call()).json()["stream_options"] == {"include_usage": True}


async def test_a_stream_that_breaks_says_so(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A stream that the provider cuts ends with a failure, never with a success object."""
    upstream.queue(scripts.stream(scripts.text_events("one two three")[:3], end=b"", close=False, then="close"))
    async with http.open_stream(gateway.port, "/api", {"user_content": "Count", "stream": True}) as stream:
        *deltas, last = [json.loads(each) for each in http.events_of(await stream.rest())]
    assert deltas == [{"delta": "one"}, {"delta": " two"}]
    assert last["msg"] == "failed"
    assert last["error"]["code"] == "upstream_error"


async def test_a_provider_that_fails_is_a_500_with_its_reason(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The provider's failure is told apart from the caller's, and from ours."""
    for _ in range(5):
        upstream.queue(scripts.whole(scripts.error_body("boom"), 500))
    refusal(await http.post_json(gateway.port, "/api", {"user_content": "Hi"}), 500, "upstream_error")


async def test_a_provider_that_refuses_the_key_is_a_401(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A key that the provider does not take is the caller's to mend, and is not repeated to anybody."""
    upstream.queue(scripts.refuse_key)
    response = await http.post_json(gateway.port, "/api", {"user_content": "Hi", "api_key": "sk-test-caller-0002"})
    refusal(response, 401)
    assert b"sk-test-caller-0002" not in response.body


async def test_a_provider_that_does_not_know_the_model_is_a_400(gateway: Gateway, upstream: FakeUpstream) -> None:
    """An unknown model is the caller's to mend, and the reason names it."""
    upstream.queue(scripts.whole(scripts.error_body("The model does not exist", "model_not_found"), 404))
    response = await http.post_json(gateway.port, "/api", {"user_content": "Hi", "model": "gpt-nobody"})
    assert "gpt-nobody" in refusal(response, 400)["data"]["response"]


async def test_a_demo_model_answers_without_any_provider(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The built-in echo goes through the plain API too."""
    response = await http.post_json(gateway.port, "/api", {"user_content": "Anyone there?", "model": "demo/echo"})
    assert response.json()["current_response"] == "Anyone there?"
    assert upstream.calls == []
