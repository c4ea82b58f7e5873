"""The current `openai` package for Python brings files and takes sound, as it does at OpenAI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, PermissionDeniedError

from fakes.gateway import Gateway, StartGateway
from fakes.media import MediaProvider
from fakes.raw_server import answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRANSCRIPT = {
    "text": "Good day.",
    "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 4, "total_tokens": 18},
}
CONFIG = """
[[upstreams]]
name = "default"
base_url = "{url}"
[[budgets]]
amount_usd = "1000"
per = "day"
scope = "global"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[MediaProvider]:
    """Run a provider of pictures and sound."""
    provider = MediaProvider()
    async with provider.server:
        yield provider


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(provider: MediaProvider, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of it."""
    return await start_gateway({"OPENAI_BASE_URL": provider.url})


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """Return a client as an application makes it."""
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-test-caller-2100", max_retries=0) as made:
        yield made


def said(body: bytes, kind: bytes = b"application/json") -> bytes:
    """Return an answer of a type."""
    return answer(body, b"Content-Type: " + kind)


@pytest.mark.parametrize("size", [1000, 3 << 20])
async def test_a_transcript(client: AsyncOpenAI, provider: MediaProvider, tmp_path: Path, size: int) -> None:
    """A file is sent and a transcript comes back; streamed, its events."""
    recording = tmp_path / "a.mp3"
    recording.write_bytes(bytes(size))
    provider.answers.append(said(json.dumps(TRANSCRIPT).encode()))
    with recording.open("rb") as file:
        transcript = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file)
    assert transcript.text == "Good day."
    assert (provider.taken[-1].is_whole, provider.taken[-1].size > size) == (True, True)
    delta = {"type": "transcript.text.delta", "delta": "Good day."}
    events = (delta, {"type": "transcript.text.done", **TRANSCRIPT})
    provider.answers.append(
        said(b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events), b"text/event-stream")
    )
    with recording.open("rb") as file:
        stream = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, stream=True)
        assert [event.type async for event in stream] == ["transcript.text.delta", "transcript.text.done"]


async def test_speech_to_a_file(client: AsyncOpenAI, provider: MediaProvider, tmp_path: Path) -> None:
    """Sound is streamed to a file."""
    sound = bytes(range(256)) * 1000
    provider.answers.append(said(sound, b"audio/mpeg"))
    speech = client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Good day."
    )
    async with speech as response:
        await response.stream_to_file(tmp_path / "said.mp3")
    assert (tmp_path / "said.mp3").read_bytes() == sound


async def test_pictures(client: AsyncOpenAI, provider: MediaProvider) -> None:
    """Pictures are made, streamed, and changed."""
    picture = {"created": 1, "data": [{"b64_json": "AAAA"}]}
    provider.answers.append(said(json.dumps(picture).encode()))
    made = await client.images.generate(model="gpt-image-2", prompt="a gate")
    assert made.data is not None
    assert made.data[0].b64_json == "AAAA"
    partial = {"type": "image_generation.partial_image", "b64_json": "AA", "partial_image_index": 0}
    done = {"type": "image_generation.completed", "b64_json": "AAAA"}
    body = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in (partial, done))  # type: ignore[attr-defined]
    provider.answers.append(said(body, b"text/event-stream"))
    stream = await client.images.generate(model="gpt-image-2", prompt="a gate", stream=True, partial_images=1)
    assert [event.type async for event in stream] == [partial["type"], done["type"]]
    provider.answers.append(said(json.dumps(picture).encode()))
    changed = await client.images.edit(
        model="gpt-image-2", prompt="more", image=[("a.png", bytes(1 << 20)), ("b.png", bytes(1 << 20))]
    )
    assert changed.created == 1
    assert provider.taken[-1].body.count(b'filename="a.png"') == 1


async def test_under_a_budget(provider: MediaProvider, start_gateway: StartGateway) -> None:
    """What nobody can price is refused before anything is sent; what is counted is not."""
    gateway = await start_gateway(config=CONFIG.format(url=provider.url))
    before = len(provider.taken)
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(PermissionDeniedError):
            await client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Good day.")
        for model in ("gpt-image-2", "unheard-of"):
            with pytest.raises(PermissionDeniedError):
                await client.images.generate(model=model, prompt="a gate")
        with pytest.raises(PermissionDeniedError):
            await client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", bytes(1000)))
        assert len(provider.taken) == before
        provider.answers.append(said(json.dumps(TRANSCRIPT).encode()))
        await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.mp3", bytes(1 << 20)))
    [line] = await gateway.logged("call", operation="transcription", outcome="completed")
    assert line["cost_usd"] == "0.000075"
