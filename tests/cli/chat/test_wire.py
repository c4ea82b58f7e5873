"""What is said to a server and read from it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.cli.chat.wire import OPENAI, PLAIN, Dialect, Piece, Question, failure_in, model_ids, parse, well_formed
from chatgate.vocabulary.chat import Message

EARLIER = (Message("user", "one"), Message("assistant", "two"))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "message", "error", "data", "response", "msg", "finish_reason", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def written(dialect: Dialect, question: Question) -> Any:
    """Return the body as a server parses it."""
    return json.loads(msgspec.json.encode(dialect.write(question)))


def test_openai_body_puts_the_system_text_first_and_the_question_last() -> None:
    """The messages are system, earlier exchanges, question."""
    body = written(OPENAI, Question("three", EARLIER, "be brief", "m"))
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("system", "be brief"),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ]
    assert (body["model"], body["stream"], "max_tokens" in body) == ("m", True, False)


def test_plain_body_asks_for_more_than_the_default_of_that_api() -> None:
    """Without a number of the user's, 3000 tokens are asked for; model and system text are left out when empty."""
    assert written(PLAIN, Question("hi")) == {
        "user_content": "hi",
        "continuous": [],
        "max_tokens": 3000,
        "stream": True,
    }


def test_plain_body_carries_everything_that_is_given() -> None:
    """System text, model, earlier exchanges and the limit have their fields."""
    assert written(PLAIN, Question("three", EARLIER, "be brief", "m", 7)) == {
        "user_content": "three",
        "sys_content": "be brief",
        "model": "m",
        "continuous": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}],
        "max_tokens": 7,
        "stream": True,
    }


@pytest.mark.parametrize(
    ("dialect", "document", "piece"),
    [
        (OPENAI, {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}, Piece(delta="a")),
        (OPENAI, {"choices": [{"delta": {}, "finish_reason": "stop"}]}, Piece(ended=True)),
        (OPENAI, {"choices": [{"delta": {}, "finish_reason": "length"}]}, Piece(ended=True, cut_at_limit=True)),
        (OPENAI, {"choices": [], "usage": {}}, Piece()),
        (
            OPENAI,
            {"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}]},
            Piece(whole="all", ended=True),
        ),
        (OPENAI, {"error": {"message": "broke", "code": "upstream_error"}}, Piece(failure="broke")),
        (OPENAI, {"error": {}}, Piece()),
        (PLAIN, {"delta": "a"}, Piece(delta="a")),
        (PLAIN, {"code": 200, "msg": "success", "data": {"response": "all"}}, Piece(whole="all", ended=True)),
        (PLAIN, {"code": 200, "current_response": "all", "result": []}, Piece(whole="all", ended=True)),
        (PLAIN, {"code": 200, "msg": "success", "data": {"response": ""}}, Piece(ended=True)),
        (PLAIN, {"code": "429", "msg": "failed", "data": {"response": "slow down"}}, Piece(failure="slow down")),
        (
            PLAIN,
            {"code": 500, "msg": "failed", "data": {"response": "坏了"}, "error": {"code": "upstream_error"}},
            Piece(failure="坏了"),
        ),
    ],
)
def test_a_piece_says_what_the_server_said(dialect: Dialect, document: object, piece: Piece) -> None:
    """Deltas, whole answers, ends and failures of both protocols are told apart."""
    assert dialect.read(document) == piece


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"error": {"message": "no such model", "code": "model_not_found"}}, "no such model"),
        ({"error": {"code": "model_not_found"}}, "model_not_found"),
        ({"error": "plain words"}, "plain words"),
        ({"error": {"message": 5}}, ""),
        ({"msg": "failed", "data": {"response": "raison"}, "error": {"code": "x", "message": "y"}}, "raison"),
        ({"detail": "Not Found"}, "Not Found"),
        ([], ""),
        (None, ""),
    ],
)
def test_the_reason_of_an_error_document_is_found(document: object, reason: str) -> None:
    """OpenAI's message, the plain API's reason, and what common frameworks say are found; nothing is invented."""
    assert failure_in(document) == reason or (reason == "" and not failure_in(document))


@given(DOCUMENTS)
def test_no_document_breaks_the_readers(document: object) -> None:
    """Whatever JSON a server sends, reading it raises nothing, and text stays text."""
    for dialect in (OPENAI, PLAIN):
        piece = dialect.read(document)
        assert isinstance(piece.delta, str)
        assert piece.whole is None or isinstance(piece.whole, str)
    assert all(isinstance(name, str) for name in model_ids(document) or [])


def test_what_is_no_json_is_no_document() -> None:
    """Broken, deep and empty bodies parse to None."""
    assert [parse(data) for data in (b"", b"<html>", b"\xff", b"[" * 100_000)] == [None] * 4


@given(st.text(st.characters(exclude_categories=[])))
def test_well_formed_text_can_always_be_sent(text: str) -> None:
    """Whatever the text holds, the result is valid UTF-8, and valid text is not changed."""
    fit = well_formed(text)
    fit.encode()
    assert well_formed(fit) == fit


def test_halves_of_a_surrogate_pair_are_joined() -> None:
    """A character that came in two events is whole again; a lone half is replaced."""
    assert well_formed("\ud83d" + "\ude00" + "\udc80") == "\U0001f600\ufffd"
