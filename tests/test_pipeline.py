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


ENDS = {
    "whole": scripts.stream(EVENTS),
    "left": scripts.stream(EVENTS, end=b"", close=False, then="hang"),
    "cut before its first word": scripts.stream([], end=b""),
    "cut": scripts.stream(EVENTS[:1], end=b""),
    "garbled": scripts.raw(scripts.STREAM_HEAD + b"no size\r\n", then="close"),
    "refused": scripts.whole(scripts.error_body("No."), status=400),
    "failed": scripts.whole(scripts.error_body("No."), status=500),
}


@pytest.mark.parametrize("end", ENDS)
async def test_nothing_is_kept_of_a_stream_after_its_end(tmp_path: Path, end: str) -> None:
    """Not what the caller was sent of it either, however it ends: errors know frames, and frames know errors."""
    async with FakeUpstream() as upstream:
        environment = {"OPENAI_BASE_URL": upstream.base_url, "API_KEY": "sk-test-server-0600"}
        app = App(load({"data": str(tmp_path)}, environment, tmp_path, {}), write_log=lambda _: None)
        gc.collect()
        before = _ids()
        async with app.listening("127.0.0.1", 0) as (_, port):
            upstream.queue(*[ENDS[end]] * 12)
            for _ in range(3):
                async with http.open_stream(port, "/v1/chat/completions", http.chat("Hi", stream=True)) as stream:
                    await (stream.until(EVENTS[-1]) if end == "left" else stream.rest())
                await upstream.last_call()
            gc.collect()
            assert _ids() <= before


def _ids() -> set[int]:
    return {id(each) for each in gc.get_objects() if isinstance(each, Stream)}
