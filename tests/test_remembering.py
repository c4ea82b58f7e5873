"""Responses are remembered for the key they were made with, and for nobody else."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from msgspec import structs

from chatgate.protocols.responses.call import ResponsesCall
from chatgate.protocols.responses.dialect import ResponsesDialect
from chatgate.protocols.responses.turn import Recent, TurnEnvelope
from chatgate.remembering import MAX_NEEDED, Remembering, subject_of
from chatgate.vocabulary.chat import Asked, ChatCall
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.exchange import Decoded, Endpoint, Envelope, Identified, Operation, Surface
from chatgate.vocabulary.identity import Caller, Key, KeyKind
from chatgate.vocabulary.keys import KeyRecord

NOW = datetime(2026, 11, 23, tzinfo=UTC)
RECORD = KeyRecord("k1", "k", "", "", True, NOW, None, None, None, (), (), (), (), None, "", 1)  # noqa: FBT003
ALICE = Caller("192.0.2.1", 1, Key(KeyKind.PROVIDER, "sk-test-alice"))
BOB = Caller("192.0.2.1", 1, Key(KeyKind.PROVIDER, "sk-test-bob"))
NOBODY = Caller("192.0.2.1", 1)
RESPONSE = {
    "id": "resp_one",
    "output": [{"id": "msg_one00", "type": "message", "role": "assistant", "content": "Blue"}],
}

ANSWER = json.dumps(RESPONSE).encode()


class MemoryShelf:
    """A shelf without time."""

    def __init__(self) -> None:
        """Start empty."""
        self.bodies: dict[tuple[str, str], str] = {}

    async def put(self, identity: str, subject: str, body: str) -> None:
        """Keep one."""
        self.bodies[identity, subject] = body

    async def get(self, identity: str, subject: str) -> str | None:
        """Return one."""
        return self.bodies.get((identity, subject))

    async def remove(self, identity: str, subject: str) -> bool:
        """Delete one."""
        return self.bodies.pop((identity, subject), None) is not None


@pytest.fixture
def shelf() -> MemoryShelf:
    """Return an empty shelf."""
    return MemoryShelf()


@pytest.fixture
def remembering(shelf: MemoryShelf) -> Remembering:
    """Return a memory that keeps."""
    return Remembering(shelf, keeps=True)


def decoded(caller: Caller, identity: str = "one", **fields: object) -> Decoded:
    """Return a call as it is when its body was read."""
    dialect = ResponsesDialect(lambda: identity, lambda: 0.0, keeps=True)
    asked = dialect.decode(json.dumps({"model": "m", "input": "Sky?", **fields}).encode(), "")
    envelope = Envelope("req_1", "POST", "/v1/responses", "", {}, "", 0.0)
    endpoint = Endpoint(Operation.CHAT, Surface.OPENAI)
    return Decoded(Identified(envelope, endpoint, caller, "en_US"), caller, asked)


def dialogue(call: Decoded) -> list[object]:
    """Return what a call's answer follows."""
    assert isinstance(call.asked.foreign, ResponsesCall)
    return [item["content"] for item in call.asked.foreign.dialogue]


async def test_a_response_is_gone_on_from_by_its_own_key(remembering: Remembering) -> None:
    """The next call begins with all that was said; that of another key, or of none, with nothing."""
    await remembering.keep(decoded(ALICE), ANSWER)
    going_on = decoded(ALICE, previous_response_id="resp_one")
    assert await remembering.recall(going_on) > len(ANSWER)
    assert dialogue(going_on) == ["Sky?", "Blue", "Sky?"]
    for stranger in (BOB, NOBODY, Caller("192.0.2.1", 1, Key(KeyKind.GATEWAY, "sk-cg-x"), RECORD)):
        other = decoded(stranger, previous_response_id="resp_one")
        assert await remembering.recall(other) == 0
        assert dialogue(other) == ["Sky?"]
        for ask in (remembering.show, remembering.delete, remembering.cancel):
            with pytest.raises(CallerError) as caught:
                await ask(stranger, "resp_one")
            assert (caught.value.kind, caught.value.reason) == (Kind.NOT_FOUND, "response_not_found")


async def test_a_dialogue_can_go_on_for_long_after_its_beginning_is_gone(
    remembering: Remembering, shelf: MemoryShelf
) -> None:
    """Each response holds all that went before it."""
    await remembering.keep(decoded(ALICE), ANSWER)
    second = decoded(ALICE, "two", previous_response_id="resp_one")
    await remembering.recall(second)
    await remembering.keep(second, json.dumps({**RESPONSE, "id": "resp_two"}).encode())
    await remembering.delete(ALICE, "resp_one")
    third = decoded(ALICE, "three", previous_response_id="resp_two")
    await remembering.recall(third)
    assert dialogue(third) == ["Sky?", "Blue", "Sky?", "Blue", "Sky?"]
    assert [identity for identity, _ in shelf.bodies] == ["two"]


async def test_a_response_is_shown_deleted_and_not_cancelled(remembering: Remembering) -> None:
    """Nothing runs without its caller here, so there is nothing to cancel, and that is said."""
    await remembering.keep(decoded(ALICE), ANSWER)
    assert json.loads(await remembering.show(ALICE, "resp_one")) == RESPONSE
    with pytest.raises(CallerError) as caught:
        await remembering.cancel(ALICE, "resp_one")
    assert (caught.value.kind, caught.value.reason) == (Kind.INVALID_VALUE, "response_not_cancellable")
    assert json.loads(await remembering.delete(ALICE, "resp_one")) == {
        "id": "resp_one",
        "object": "response",
        "deleted": True,
    }
    with pytest.raises(CallerError):
        await remembering.show(ALICE, "resp_one")


async def test_the_items_that_it_answers_are_shown(remembering: Remembering) -> None:
    """To its own key, without the answer."""
    await remembering.keep(decoded(ALICE), ANSWER)
    page = json.loads(await remembering.show_items(ALICE, "resp_one", "limit=1"))
    assert page["data"][0]["content"] == [{"type": "input_text", "text": "Sky?"}]
    with pytest.raises(CallerError):
        await remembering.show_items(BOB, "resp_one", "")


async def test_a_connection_goes_on_from_what_is_not_kept(shelf: MemoryShelf) -> None:
    """Of any provider's; whoever is not on it learns nothing."""
    forgetful, recent = Remembering(shelf, keeps=False), Recent(10_000)
    for identity in ("one", "theirs"):
        answer = {**RESPONSE, "id": f"resp_{identity}"}
        await forgetful.keep(on_connection(decoded(ALICE, store=False), recent), json.dumps(answer).encode())
        second = on_connection(decoded(ALICE, "two", previous_response_id=f"resp_{identity}"), recent)
        assert await forgetful.recall(second) > 0
        assert dialogue(second) == ["Sky?", "Blue", "Sky?"]
        elsewhere = decoded(ALICE, "two", previous_response_id=f"resp_{identity}")
        assert await forgetful.recall(elsewhere) == 0
    stored_by_provider = json.dumps({**RESPONSE, "id": "resp_kept_there"}).encode()
    await forgetful.keep(on_connection(decoded(ALICE), recent), stored_by_provider)
    assert recent.get("kept_there") is None
    assert shelf.bodies == {}


def on_connection(one: Decoded, recent: Recent) -> Decoded:
    """Return a call as a turn of a connection that remembers."""
    envelope = TurnEnvelope("req_1", "POST", "/v1/responses", "", {}, "", 0.0, "", recent)
    return structs.replace(one, identified=structs.replace(one.identified, envelope=envelope))


async def test_what_nobody_wants_kept_is_not(remembering: Remembering, shelf: MemoryShelf) -> None:
    """Neither what the caller does not want kept, nor what a provider keeps itself."""
    await remembering.keep(decoded(ALICE, store=False), ANSWER)
    await remembering.keep(decoded(ALICE), json.dumps({**RESPONSE, "id": "resp_theirs"}).encode())
    await remembering.keep(Decoded(decoded(ALICE).identified, ALICE, Asked(ChatCall("m", stream=False))), ANSWER)
    assert shelf.bodies == {}


async def test_a_gateway_that_keeps_nothing_says_so(shelf: MemoryShelf) -> None:
    """It does not even look."""
    shelf.bodies["one", subject_of(ALICE)] = "not JSON"
    forgetful = Remembering(shelf, keeps=False)
    await forgetful.recall(decoded(ALICE, previous_response_id="resp_one"))
    for ask in (forgetful.show, forgetful.delete):
        with pytest.raises(CallerError) as caught:
            await ask(ALICE, "resp_one")
        assert caught.value.reason == "responses_not_kept"
    assert shelf.bodies


async def test_a_call_cannot_ask_for_any_number_of_responses(remembering: Remembering) -> None:
    """Each takes a look into the database."""
    items = [{"type": "item_reference", "id": f"msg_{number}_00"} for number in range(MAX_NEEDED + 1)]
    with pytest.raises(CallerError) as caught:
        await remembering.recall(decoded(ALICE, input=items))
    assert caught.value.param == "input"
    await remembering.recall(decoded(ALICE, input=items[1:]))


def test_no_key_can_be_read_from_its_subject() -> None:
    """A provider's key is stored as a digest, one of the gateway by its id."""
    assert "alice" not in subject_of(ALICE)
    assert len({subject_of(caller) for caller in (ALICE, BOB, NOBODY)}) == 3
    assert subject_of(Caller("", 0, Key(KeyKind.GATEWAY, "sk-cg-x"), RECORD)) == "k1"
    assert len(subject_of(ALICE)) <= 128
