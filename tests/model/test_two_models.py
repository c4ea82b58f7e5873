"""A stream that breaks at one real model is gone on with at another, and the caller gets one text."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from fakes import http_client as http
from fakes.gateway import StartGateway
from model.running import KEY, MODEL, running_model

CHAT = "/v1/chat/completions"
CUT_AFTER_BYTES = 2500
"""Some words into the answer: the head and about ten chunks."""

ASKED = {
    "model": "story",
    "messages": [{"role": "user", "content": "Count from one to twenty in words."}],
    "temperature": 0,
    "seed": 1,
    "max_tokens": 40,
}


@pytest.fixture(scope="module")
def addresses() -> Iterator[tuple[str, str]]:
    """Run two models, each in a process of its own, and return their addresses."""
    with running_model() as first, running_model() as second:
        yield first, second


@contextlib.asynccontextmanager
async def cutting_relay(address: str) -> AsyncIterator[tuple[str, list[int]]]:
    """Relay to a model, and end each connection after so many bytes of its answer; yield the address and the cuts."""
    host, port = address.removeprefix("http://").split(":")
    cuts: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        model_reader, model_writer = await asyncio.open_connection(host, int(port))

        async def forth() -> None:
            while data := await reader.read(65536):
                model_writer.write(data)

        forwarding = asyncio.create_task(forth())
        passed = 0
        while passed < CUT_AFTER_BYTES and (data := await model_reader.read(CUT_AFTER_BYTES - passed)):
            passed += len(data)
            writer.write(data)
            await writer.drain()
        cuts.append(passed)
        forwarding.cancel()
        writer.close()
        model_writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", cuts


async def test_a_stream_is_restarted_between_two_models(
    addresses: tuple[str, str], start_gateway: StartGateway
) -> None:
    """The first model's connection breaks after some words; the second one says them again and goes on."""
    async with cutting_relay(addresses[0]) as (relay, cuts):
        gateway = await start_gateway(
            {},
            f"""
            [retry]
            max_retries = 0
            [[upstreams]]
            name = "first"
            base_url = "{relay}/v1"
            api_key = "{KEY}"
            [[upstreams]]
            name = "second"
            base_url = "{addresses[1]}/v1"
            api_key = "{KEY}"
            [[models]]
            name = "story"
            targets = [{{ upstream = "first", model = "{MODEL}" }}]
            fallbacks = ["alone"]
            [[models]]
            name = "alone"
            targets = [{{ upstream = "second", model = "{MODEL}" }}]
            """,
        )
        async with http.open_stream(gateway.port, CHAT, {**ASKED, "stream": True}) as stream:
            assert stream.head.header("x-chatgate-attempts") == "1"
            body = await stream.rest()
        assert cuts == [CUT_AFTER_BYTES]
        whole = (await http.post_json(gateway.port, CHAT, {**ASKED, "model": "alone"})).json()
    *chunks, end = http.events_of(body)
    assert end == b"[DONE]"
    assert not any("error" in json.loads(chunk) for chunk in chunks)
    choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
    said = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert said == whole["choices"][0]["message"]["content"]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == [
        whole["choices"][0]["finish_reason"]
    ]
    assert len({json.loads(chunk)["id"] for chunk in chunks}) == 1
