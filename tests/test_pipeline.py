"""What calls leave behind in the process that has carried them."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from chatgate.app.life import App
from chatgate.attempts.stream import Stream
from chatgate.settings import load
from fakes import http_client as http
from fakes import scripts
from fakes.upstream import FakeUpstream

EVENTS = scripts.text_events("one two")


@pytest.mark.parametrize("leaves", [False, True])
async def test_nothing_is_kept_of_a_stream_after_its_end(tmp_path: Path, *, leaves: bool) -> None:
    """Not what the caller was sent of it either, whether they have heard the end or have left."""
    async with FakeUpstream() as upstream:
        environment = {"OPENAI_BASE_URL": upstream.base_url, "API_KEY": "sk-test-server-0600"}
        app = App(load({"data": str(tmp_path)}, environment, tmp_path, {}), write_log=lambda _: None)
        async with app.listening("127.0.0.1", 0) as (_, port):
            script = scripts.stream(EVENTS)
            if leaves:
                script = scripts.stream(EVENTS, end=b"", close=False, then="hang")
            upstream.queue(*[script] * 3)
            for _ in range(3):
                async with http.open_stream(port, "/v1/chat/completions", http.chat("Hi", stream=True)) as stream:
                    await (stream.until(EVENTS[-1]) if leaves else stream.rest())
                await upstream.last_call()
            gc.collect()
            assert [each for each in gc.get_objects() if isinstance(each, Stream)] == []
