"""What a real server said once, said again to callers of every protocol: the same words, reasons and counts.

`tests/recordings` has the bodies and how they were made. They arrive cut anywhere, also inside of a letter.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import messages, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECORDINGS = Path(__file__).parents[1] / "recordings"
PROVIDERS = {"chat": "openai_compatible", "messages": "anthropic", "responses": "openai_responses"}
QUESTIONS = ("words", "cut", "foreign")
CALLERS = ("chat", "messages", "responses", "gemini", "ollama", "plain")
FINISHES = {
    "chat": ("stop", "length"),
    "messages": ("end_turn", "max_tokens"),
    "responses": ("completed", "incomplete"),
    "gemini": ("STOP", "MAX_TOKENS"),
    "ollama": ("stop", "length"),
    "plain": (None, None),
}
"""How each protocol says that an answer is complete, and that it was cut short."""

Json = dict[str, Any]
Said = tuple[str, str | None, tuple[int, int] | None]
"""The words, why they end, and the tokens both ways; None for what a protocol does not tell."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway that knows the recordings' server by each of its protocols."""
    blocks = (
        f'[[upstreams]]\nname = "{name}"\nprovider = "{provider}"\nbase_url = "{upstream_of_file.base_url}"\n'
        f'api_key = "sk-test-recorded-01"\n[[models]]\nname = "{name}"\n'
        f'targets = [{{ upstream = "{name}", model = "smollm2" }}]\n'
        for name, provider in PROVIDERS.items()
    )
    return await start_gateway(config="[retry]\nmax_retries = 0\n" + "".join(blocks))


def recorded(protocol: str, question: str, manner: str) -> bytes:
    """Return a body as it came."""
    return (RECORDINGS / f"{protocol}-{question}-{manner}.body").read_bytes()


def truth(protocol: str, question: str) -> tuple[str, bool, tuple[int, int]]:
    """Return the words of a recording, whether it was cut short, and its counts, read without the gateway's help."""
    told: Json = json.loads(recorded(protocol, question, "whole"))
    match protocol:
        case "chat":
            choice, usage = told["choices"][0], told["usage"]
            counts = usage["prompt_tokens"], usage["completion_tokens"]
            return choice["message"]["content"], choice["finish_reason"] == "length", counts
        case "messages":
            usage = told["usage"]
            counts = usage["input_tokens"] + usage["cache_read_input_tokens"], usage["output_tokens"]
            return told["content"][0]["text"], told["stop_reason"] == "max_tokens", counts
        case _:
            usage = told["usage"]
            # That an answer was cut short is not told by this server in this protocol.
            return told["output"][0]["content"][0]["text"], False, (usage["input_tokens"], usage["output_tokens"])


def cut(body: bytes, chance: random.Random) -> list[bytes]:
    """Cut a body anywhere."""
    places = sorted(chance.sample(range(1, len(body)), 40))
    return [body[begin:end] for begin, end in zip([0, *places], [*places, len(body)], strict=True)]


async def ask(gateway: Gateway, caller: str, model: str, *, stream: bool) -> http.Response:
    """Ask as a caller of a protocol does."""
    said = [{"role": "user", "content": "Hi"}]
    asked: dict[str, tuple[str, Json]] = {
        "chat": ("/v1/chat/completions", {"messages": said, "stream_options": {"include_usage": True}}),
        "messages": ("/v1/messages", {"messages": said, "max_tokens": 40}),
        "responses": ("/v1/responses", {"input": "Hi"}),
        "gemini": ("", {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
        "ollama": ("/api/chat", {"messages": said}),
        "plain": ("/", {"user_content": "Hi"}),
    }
    path, body = asked[caller]
    if caller == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path = f"/v1beta/models/{model}:{method}"
    else:
        body = {**body, "model": model, "stream": stream}
    if not stream:
        body.pop("stream_options", None)
    response = await http.post_json(gateway.port, path, body)
    assert response.status == 200, response.body
    return response


def said_whole(caller: str, told: Json) -> Said:
    """Return what a whole answer says."""
    match caller:
        case "chat":
            choice, usage = told["choices"][0], told["usage"]
            counts = usage["prompt_tokens"], usage["completion_tokens"]
            return choice["message"]["content"], choice["finish_reason"], counts
        case "messages":
            usage = told["usage"]
            sent = usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0)
            return told["content"][0]["text"], told["stop_reason"], (sent, usage["output_tokens"])
        case "responses":
            usage = told.get("usage")
            text = told["output"][0]["content"][0]["text"]
            return text, told["status"], usage and (usage["input_tokens"], usage["output_tokens"])
        case "gemini":
            candidate, usage = told["candidates"][0], told["usageMetadata"]
            counts = usage["promptTokenCount"], usage["candidatesTokenCount"]
            return "".join(part["text"] for part in candidate["content"]["parts"]), candidate["finishReason"], counts
        case "ollama":
            evaluated = (told["prompt_eval_count"], told["eval_count"]) if "eval_count" in told else None
            return told["message"]["content"], told["done_reason"], evaluated
        case _:
            return told["data"]["response"], None, None


def said_streamed(caller: str, response: http.Response) -> Said:
    """Return what a stream says, put together as a client does."""
    if caller == "ollama":
        lines = [json.loads(line) for line in response.body.splitlines()]
        return "".join(each["message"]["content"] for each in lines), *said_whole("ollama", lines[-1])[1:]
    if caller == "messages":
        told = messages.assembled(messages.read(response.body))
        return said_whole("messages", told)
    events = [json.loads(event) for event in response.events() if event != b"[DONE]"]
    if caller == "responses":
        return said_whole("responses", events[-1]["response"])
    if caller == "gemini":
        pieces = [part["text"] for each in events for part in each["candidates"][0]["content"].get("parts", ())]
        usage = events[-1].get("usageMetadata")
        counts = usage and (usage["promptTokenCount"], usage["candidatesTokenCount"])
        return "".join(pieces), events[-1]["candidates"][0]["finishReason"], counts
    if caller == "plain":
        return "".join(str(each.get("delta") or "") for each in events), None, None
    assert response.events()[-1] == b"[DONE]"
    choices = [choice for each in events for choice in each["choices"]]
    usage = next((each["usage"] for each in reversed(events) if each.get("usage")), None)
    words = "".join(choice["delta"].get("content") or "" for choice in choices)
    finish = next(choice["finish_reason"] for choice in reversed(choices) if choice["finish_reason"])
    return words, finish, usage and (usage["prompt_tokens"], usage["completion_tokens"])


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("protocol", PROVIDERS)
@pytest.mark.parametrize("caller", CALLERS)
async def test_every_pair_says_what_was_said(
    gateway: Gateway, upstream: FakeUpstream, caller: str, protocol: str, question: str
) -> None:
    """Whole and streamed, however the bytes are cut; nothing is added, lost or turned.

    Of a stream whose first token is half a letter this server forgets the beginning in one protocol: then the words are
    there, and no counts.
    """
    words, was_cut, counts = truth(protocol, question)
    finish = FINISHES[caller][was_cut]
    expected: Said = (words, finish, None if caller == "plain" else counts)
    if caller == protocol == "responses":
        expected = (words, "completed", counts)  # As it came.
    upstream.queue(scripts.whole(recorded(protocol, question, "whole")))
    whole = await ask(gateway, caller, protocol, stream=False)
    assert said_whole(caller, whole.json()) == expected
    stream = recorded(protocol, question, "stream")
    has_beginning = protocol != "messages" or b"message_start" in stream
    if not has_beginning and caller == "messages":
        return  # It would get what no client of that protocol reads, as it came.
    upstream.queue(scripts.stream(cut(stream, random.Random(f"{caller} {protocol} {question}")), end=b""))
    streamed = await ask(gateway, caller, protocol, stream=True)
    assert said_streamed(caller, streamed) == (expected if has_beginning else (*expected[:2], None))
    for response, output_tokens in ((whole, counts[1]), (streamed, counts[1] if has_beginning else None)):
        [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
        assert line["outcome"] == "completed"
        assert line.get("output_tokens") == output_tokens
