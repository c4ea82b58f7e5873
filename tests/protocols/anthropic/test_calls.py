"""A caller's Anthropic request: what is read of it at once, and what targets of either protocol are sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from chatgate.protocols.anthropic.call import decode_call
from chatgate.protocols.anthropic.message import UNSIGNED
from chatgate.vocabulary.chat import Foreign
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

UPSTREAM = Upstream("up", "openai_compatible", Origin("https", "up.invalid", 443), "/v1")


def asked(**fields: Any) -> bytes:
    """Write a caller's body."""
    turns = [{"role": "user", "content": "Hi"}]
    return json.dumps({"model": "m", "max_tokens": 5, "messages": turns, **fields}).encode()


def foreign(body: bytes, *, drops_parts: bool = False) -> Foreign:
    """Return what a body says in its own protocol."""
    found = decode_call(body, drops_parts=drops_parts).foreign
    assert found is not None
    return found


def test_what_decides_is_read() -> None:
    """The model, the stream and the limit; the system text stands first among the turns."""
    chat = decode_call(asked(system="Be brief.", stream=True), drops_parts=False).chat
    assert (chat.asked_model, chat.stream, chat.max_tokens, chat.choices) == ("m", True, 5, 1)
    assert [turn.role for turn in chat.turns] == ["system", "user"]


def test_marks_for_a_cache_make_no_other_conversation() -> None:
    """Clients move them from turn to turn; what is sent keeps them."""
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}

    def contents(*marked: Any) -> list[bytes]:
        blocks = [{"type": "text", "text": 'say ,"cache_control":{}', **more} for more in marked]
        chat = decode_call(asked(system=blocks, messages=[{"role": "user", "content": blocks}]), drops_parts=False).chat
        return [bytes(turn.content) for turn in chat.turns if not isinstance(turn.content, str)]

    assert contents(mark, {}) == contents({}, mark) == contents({}, {})
    body = asked(system=[{**mark, "type": "text", "text": "a"}])
    assert foreign(body).encode_own(None) == body


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"max_tokens": None}, "max_tokens", "missing_field"),
        ({"max_tokens": -1}, "max_tokens", "invalid_field"),
        ({"messages": []}, "messages", "invalid_field"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_field"),
        ({"model": " "}, "model", "invalid_field"),
        ({"stream": "yes"}, "stream", "wrong_type"),
        ({"stop_sequences": "x"}, "stop_sequences", "wrong_type"),
    ],
)
def test_what_decides_has_to_be_right(fields: dict[str, Any], param: str, reason: str) -> None:
    """The refusal names the field."""
    with pytest.raises(CallerError) as caught:
        decode_call(asked(**fields), drops_parts=False)
    assert (caught.value.kind, caught.value.param, caught.value.reason) == (Kind.INVALID_VALUE, param, reason)


def test_its_own_protocol_gets_it_as_it_came() -> None:
    """Every byte but the model's name, whatever is in it."""
    body = b'{ "model" : "m","max_tokens":5, "messages":[{"role":"user","content":"Hi"}],"new":{"a":1.50} }'
    assert foreign(body).encode_own(None) == body
    assert foreign(body).encode_own("claude") == body.replace(b'"m"', b'"claude"')


def test_thinking_that_nobody_signed_is_not_shown_to_anthropic() -> None:
    """A dialogue may come back from a target of the other protocol; the provider would refuse its thinking."""
    ours = {"type": "thinking", "thinking": "Hm", "signature": UNSIGNED}
    theirs = {"type": "thinking", "thinking": "Hm", "signature": "c2ln"}
    said = {"type": "text", "text": "a"}
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [ours, said]},
        {"role": "assistant", "content": [ours]},
        {"role": "assistant", "content": [theirs, said]},
    ]
    sent = json.loads(foreign(asked(messages=turns)).encode_own(None))
    assert [turn["content"] for turn in sent["messages"]] == ["Hi", [said], [theirs, said]]


def test_an_openai_target_gets_a_chat() -> None:
    """With its own model and parameter names, and in a stream with the request for usage."""
    renamed = structs.replace(UPSTREAM, renamed={"max_tokens": "max_completion_tokens"})
    body, dropped = foreign(asked(stream=True)).encode_chat(Target(renamed, "theirs"))
    assert json.loads(body) == {
        "model": "theirs",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert dropped == ()


def test_a_strict_target_refuses_what_others_take() -> None:
    """`top_k` goes to compatible servers, and to OpenAI only where the operator allows that it goes missing."""
    strict = Target(structs.replace(UPSTREAM, is_strict=True))
    assert json.loads(foreign(asked(top_k=3)).encode_chat(Target(UPSTREAM))[0])["top_k"] == 3
    with pytest.raises(CallerError, match="not_carried"):
        foreign(asked(top_k=3)).encode_chat(strict)
    body, dropped = foreign(asked(top_k=3), drops_parts=True).encode_chat(strict)
    assert ("top_k" in json.loads(body), dropped) == (False, ("top_k",))
