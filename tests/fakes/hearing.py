"""What a caller hears of an answer, on either surface, whole or streamed, and whether it was told the truth.

Owns the judgement of what came: whose words, whole or broken, and by which error. It is as strict as a careful client:
two ends, words after the end, or an end and an error fail the test at once. Journeys call it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fakes import http_client as http

Surface = Literal["openai", "plain"]

Way = tuple[Surface, bool]
"""A surface, and whether the answer is streamed."""

WAYS: list[Way] = [("openai", False), ("openai", True), ("plain", False), ("plain", True)]
"""Both surfaces, whole and streamed."""

PATHS = {"openai": "/v1/chat/completions", "plain": "/api"}
"""Where the surfaces are; the plain one when ROUTE is `api`."""


@dataclass(slots=True)
class Heard:
    """An answer, or what there was of one.

    `text` is every word that came, `is_whole` says that the answer was declared complete, `code` and `message` are the
    error's, "" without one. `ids`, `roles` and `models` are those named in a stream, in their order and once each.
    """

    head: http.Head
    body: bytes
    text: str = ""
    is_whole: bool = False
    code: str = ""
    message: str = ""
    ids: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    usage: Mapping[str, int] | None = None

    @property
    def attempts(self) -> str | None:
        """Return how many requests were sent upstream until the head, as the answer says."""
        return self.head.header("x-chatgate-attempts")

    @property
    def model(self) -> str | None:
        """Return which model answered, as the head says."""
        return self.head.header("x-chatgate-model")


def asking(way: Way, text: str, model: str, **more: Any) -> dict[str, Any]:
    """Return the body of a call."""
    surface, streamed = way
    if surface == "openai":
        return {**http.chat(text, model), "stream": streamed, **more}
    return {"user_content": text, "model": model, "stream": streamed, **more}


async def ask(
    port: int,
    way: Way,
    text: str,
    model: str,
    *,
    headers: http.Headers = (),
    on_words: Callable[[], object] | None = None,
    **more: Any,
) -> Heard:
    """Call, and return all that was heard; `on_words` is called once the first words of a stream have come.

    A connection that ends inside an answer raises `http.Truncated`.
    """
    surface, _ = way
    async with http.open_stream(port, PATHS[surface], asking(way, text, model, **more), headers) as call:
        while on_words is not None:
            if not await call.next_piece():
                break
            if _has_words(call.so_far):
                on_words()
                break
        return judged(surface, call.head, await call.rest())


def judged(surface: Surface, head: http.Head, body: bytes) -> Heard:
    """Return what an answer says."""
    heard = Heard(head, body)
    if (head.header("content-type") or "").startswith("text/event-stream"):
        assert head.status == 200, (head.status, body)
        assert body.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")), body[-200:]
        events = http.events_of(body)
        (_hear_chunks if surface == "openai" else _hear_deltas)(heard, events)
        assert heard.is_whole != bool(heard.code), body
    elif head.status == 200:
        _hear_whole(heard, surface, json.loads(body))
    else:
        _hear_error(heard, surface, json.loads(body))
    return heard


def _has_words(body: bytes) -> bool:
    """Tell whether there are more than comments and roles."""
    for data in http.events_of(body[: body.rfind(b"\n\n") + 2]):
        event = json.loads(data) if data != b"[DONE]" else {}
        if event.get("delta") or any(choice.get("delta", {}).get("content") for choice in event.get("choices", [])):
            return True
    return False


def _note(found: list[str], value: str) -> None:
    if value not in found:
        found.append(value)


def _hear_chunks(heard: Heard, events: list[bytes]) -> None:
    finished = False
    for data in events:
        assert not heard.is_whole, f"words after the end: {heard.body!r}"
        assert not heard.code, f"words after an error: {heard.body!r}"
        if data == b"[DONE]":
            assert finished, f"an end without a reason: {heard.body!r}"
            heard.is_whole = True
            continue
        event = json.loads(data)
        assert isinstance(event, dict), f"no chunk: {heard.body!r}"
        if "error" in event:
            _hear_error(heard, "openai", event)
            continue
        if "id" in event:
            _note(heard.ids, event["id"])
            _note(heard.models, event["model"])
        heard.usage = event.get("usage") or heard.usage
        for choice in event.get("choices", []):
            assert not finished, f"words after a reason to end: {heard.body!r}"
            delta = choice["delta"]
            if "role" in delta:
                heard.roles.append(delta["role"])
            heard.text += delta.get("content") or ""
            finished = bool(choice["finish_reason"])


def _hear_deltas(heard: Heard, events: list[bytes]) -> None:
    for data in events:
        assert not heard.is_whole, f"words after the end: {heard.body!r}"
        assert not heard.code, f"words after an error: {heard.body!r}"
        event = json.loads(data)
        if "delta" in event:
            assert set(event) == {"delta"}
            heard.text += event["delta"]
        elif event["msg"] == "success":
            said, heard.text = heard.text, ""
            _hear_whole(heard, "plain", event)
            assert heard.text == said, "the whole answer is not the sum of its parts"
        else:
            _hear_error(heard, "plain", event)


def _hear_whole(heard: Heard, surface: Surface, answer: Mapping[str, Any]) -> None:
    heard.is_whole = True
    if surface == "openai":
        heard.text = answer["choices"][0]["message"]["content"]
        heard.models, heard.usage = [answer["model"]], answer["usage"]
        return
    assert (answer["code"], answer["msg"]) == (200, "success")
    heard.text = answer["data"]["response"]
    heard.models, heard.usage = [answer["data"]["model"]], answer["data"]["usage"]
    assert answer["current_response"] == heard.text


def _hear_error(heard: Heard, surface: Surface, answer: Mapping[str, Any]) -> None:
    if surface == "openai":
        assert set(answer) == {"error"}, answer
        heard.code, heard.message = answer["error"]["code"], answer["error"]["message"]
        return
    assert answer["msg"] == "failed"
    heard.code, heard.message = answer["error"]["code"], answer["data"]["response"]
