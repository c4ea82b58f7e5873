"""Gemini requests as OpenAI chats, and chats as Gemini requests: what is carried, and what is refused or told."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols.gemini.from_gemini import to_chat
from chatgate.protocols.gemini.schemas import json_schema
from chatgate.protocols.gemini.signatures import UNSIGNED
from chatgate.protocols.gemini.to_gemini import to_gemini
from chatgate.protocols.losses import Losses
from chatgate.vocabulary.errors import CallerError
from chatgate.vocabulary.upstreams import Continuation
from fakes.vendor_schemas import check

Json = dict[str, Any]
HI = {"role": "user", "parts": [{"text": "Hi"}]}
OLD, NEW = "gemini-2.5-flash", "gemini-3-flash"


def to_openai(
    request: Json, *, extended: bool = False, stream: bool = False, continuation: Continuation | None = None
) -> tuple[Json, Losses]:
    """Translate; the request has to be one by Google's description, if it is written in camel case."""
    if "_" not in json.dumps(request).replace("HARM_", ""):
        check("gemini", "GenerateContentRequest", request)
    return to_chat(request, "m", stream=stream, extended=extended, continuation=continuation)


def from_openai(body: Json) -> tuple[Json, Losses]:
    """Translate; what comes out has to be a request by Google's description."""
    request, losses = to_gemini({"model": NEW, "messages": [{"role": "user", "content": "Hi"}], **body})
    check("gemini", "GenerateContentRequest", request)
    return request, losses


def parts(*of_user: Json, **more: Any) -> Json:
    """Return a request whose user says these parts."""
    return {"contents": [{"role": "user", "parts": list(of_user)}], **more}


# --- Gemini to OpenAI -------------------------------------------------------------------------------------------------


def test_names_may_be_written_in_either_way() -> None:
    """Protobuf's JSON takes camel case and underscores, and null is absence."""
    camel = {
        "systemInstruction": {"parts": [{"text": "S"}]},
        "contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}],
        "generationConfig": {"maxOutputTokens": 5, "topP": 0.5, "thinkingConfig": {"thinkingBudget": 0}},
        "toolConfig": {"functionCallingConfig": {"mode": "NONE"}},
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}],
    }
    snake = {
        "system_instruction": {"parts": [{"text": "S", "thought_signature": None}]},
        "contents": [{"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": "AAAA"}}]}],
        "generation_config": {"max_output_tokens": 5, "top_p": 0.5, "thinking_config": {"thinking_budget": 0}},
        "tool_config": {"function_calling_config": {"mode": "NONE"}},
        "tools": [{"function_declarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}],
        "safety_settings": None,
    }
    (first, here), (second, there) = to_openai(camel), to_openai(snake)
    assert first == second
    assert here.dropped(drops_parts=False) == there.dropped(drops_parts=False) == ()
    with pytest.raises(CallerError) as twice:
        to_openai({**parts({"text": "x"}), "toolConfig": {}, "tool_config": {}})
    assert (twice.value.reason, twice.value.param) == ("duplicate_field", "toolConfig")


def test_the_settings_become_the_chats() -> None:
    """Each under its own name; the form of the answer by its type and its schema."""
    config = {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "maxOutputTokens": 9,
        "stopSequences": ["x"],
        "candidateCount": 2,
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}}},
        "responseModalities": ["TEXT"],
    }
    body, losses = to_openai(parts({"text": "Hi"}, generationConfig=config), extended=True, stream=True)
    assert losses.dropped(drops_parts=False) == ()
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "max_tokens": 9,
        "stop": ["x"],
        "n": 2,
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logprobs": True,
        "top_logprobs": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    }
    assert to_openai(parts({"text": "Hi"}, generationConfig={"topK": 3}))[1].parts == ("generationConfig.topK",)
    anything = {"responseMimeType": "application/json"}
    assert to_openai(parts({"text": "Hi"}, generationConfig=anything))[0]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"thinkingLevel": "LOW"}, "low"),
        ({"thinkingLevel": "MINIMAL"}, "minimal"),
        ({"thinkingBudget": 0}, "none"),
        ({"thinkingBudget": 4096}, "low"),
        ({"thinkingBudget": 16384}, "medium"),
        ({"thinkingBudget": 24576}, "high"),
        ({"thinkingBudget": -1}, None),
        ({"includeThoughts": True}, None),
    ],
)
def test_thinking_becomes_an_effort(thinking: Json, effort: str | None) -> None:
    """A budget is the effort that it is about; one without bounds leaves that to the model."""
    body, losses = to_openai(parts({"text": "Hi"}, generationConfig={"thinkingConfig": thinking}))
    assert body.get("reasoning_effort") == effort
    assert losses.dropped(drops_parts=False) == ()


def test_the_parts_of_a_user_become_a_message() -> None:
    """Texts alone are one text; images, sounds and documents keep their place."""
    assert to_openai(parts({"text": "a"}, {"text": "b"}))[0]["messages"] == [{"role": "user", "content": "a\n\nb"}]
    text = base64.b64encode("déjà".encode()).decode()
    body, losses = to_openai(
        parts(
            {"text": "a"},
            {"inlineData": {"mimeType": "image/png", "data": "_-8="}},
            {"inlineData": {"mimeType": "audio/mpeg", "data": "AAAA"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
            {"inlineData": {"mimeType": "text/plain", "data": text}},
            {"fileData": {"mimeType": "image/png", "fileUri": "https://pictures.invalid/a.png"}},
        )
    )
    assert losses.dropped(drops_parts=False) == ()
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,/+8="}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "text", "text": "déjà"},
        {"type": "image_url", "image_url": {"url": "https://pictures.invalid/a.png"}},
    ]


@pytest.mark.parametrize(
    ("request_of", "lost"),
    [
        (parts({"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}), "contents[0].parts[0]"),
        (
            parts({"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a"}}),
            "contents[0].parts[0]",
        ),
        (parts({"text": "a"}, {"executableCode": {"code": "1"}}), "contents[0].parts[1]"),
        (parts({"text": "a"}, tools=[{"codeExecution": {}}]), "tools[0].codeExecution"),
        (parts({"text": "a"}, cachedContent="cachedContents/x"), "cachedContent"),
        (
            parts({"text": "a"}, generationConfig={"responseModalities": ["IMAGE"]}),
            "generationConfig.responseModalities",
        ),
        (
            parts({"text": "a"}, generationConfig={"speechConfig": {"languageCode": "de"}}),
            "generationConfig.speechConfig",
        ),
        (
            parts({"text": "a"}, generationConfig={"responseMimeType": "text/x.enum"}),
            "generationConfig.responseMimeType",
        ),
        (
            {"contents": [HI, {"role": "model", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}]},
            "contents[1].parts[0]",
        ),
        ({"contents": [HI, {"role": "model", "parts": [{"text": "Well,"}]}]}, "contents"),
    ],
)
def test_parts_that_nothing_can_carry_are_named(request_of: Json, lost: str) -> None:
    """By the path under which the caller finds them."""
    _, losses = to_openai(request_of)
    assert losses.parts == (lost,)
    with pytest.raises(CallerError) as refused:
        losses.dropped(drops_parts=False)
    assert refused.value.param == lost


def test_hints_are_told() -> None:
    """What to filter, how closely to look, whose thoughts these were, and what nobody knows."""
    part = {"text": "a", "thoughtSignature": "abcd", "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"}}
    contents = [{"role": "user", "parts": [part]}, {"role": "model", "parts": [{"text": "Hm", "thought": True}]}, HI]
    config = {"enableEnhancedCivicAnswers": True, "thinkingConfig": {"new": 1}}
    asked = {
        "contents": contents,
        "generationConfig": config,
        "safetySettings": [{}],
        "store": False,
        "labels": {"a": "b"},
    }
    body, losses = to_chat(asked, "m", stream=False, extended=False, continuation=None)
    assert losses.dropped(drops_parts=False) == (
        "contents[].parts[].thoughtSignature",
        "contents[].parts[].mediaResolution",
        "contents[].parts[] (thought)",
        "generationConfig.thinkingConfig.new",
        "generationConfig.enableEnhancedCivicAnswers",
        "safetySettings",
        "store",
        "labels",
    )
    assert body["messages"] == [{"role": "user", "content": "a"}, {"role": "user", "content": "Hi"}]


def test_calls_and_results_find_each_other_without_ids() -> None:
    """By name and order; what is answered by an id of its own is found by that."""
    calls = [{"functionCall": {"name": name, "args": {"n": number}}} for number, name in enumerate("aba")]
    results: list[Json] = [
        {"functionResponse": {"name": "b", "response": {"output": "one"}}},
        {"functionResponse": {"name": "a", "response": {"output": "zero"}}},
        {"functionResponse": {"name": "a", "response": {"deep": {"er": 2}}}},
        {"text": "And?"},
    ]
    body, losses = to_openai({"contents": [HI, {"role": "model", "parts": calls}, {"role": "user", "parts": results}]})
    assert losses.dropped(drops_parts=False) == ()
    _, called, *answered, more = body["messages"]
    ids = [call["id"] for call in called["tool_calls"]]
    assert len(set(ids)) == 3
    assert [(each["tool_call_id"], each["content"]) for each in answered] == [
        (ids[1], "one"),
        (ids[0], "zero"),
        (ids[2], '{"deep":{"er":2}}'),
    ]
    assert more == {"role": "user", "content": "And?"}


def test_files_of_a_tool_follow_its_answer() -> None:
    """Only a user's message can hold them."""
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    result = {"functionResponse": {"name": "f", "response": {}, "parts": [image]}}
    body, losses = to_openai({"contents": [HI, {"role": "user", "parts": [result]}]})
    assert losses.dropped(drops_parts=False) == ()
    assert body["messages"][1]["content"] == "The tool's images and files follow."
    assert body["messages"][2]["content"][0]["type"] == "image_url"


def test_what_may_be_called_is_what_is_offered() -> None:
    """Where only some tools are allowed, only those go along; one alone is asked for by its name."""
    tools = [{"functionDeclarations": [{"name": name, "description": "D"} for name in "abc"]}]

    def choose(**calling: Any) -> tuple[list[str], Any]:
        body, _ = to_openai(parts({"text": "x"}, tools=tools, toolConfig={"functionCallingConfig": calling}))
        return [each["function"]["name"] for each in body["tools"]], body.get("tool_choice")

    assert choose(mode="ANY", allowedFunctionNames=["a", "c"]) == (["a", "c"], "required")
    one = {"type": "function", "function": {"name": "b"}}
    assert choose(mode="ANY", allowedFunctionNames=["b"]) == (["a", "b", "c"], one)
    assert choose(mode="VALIDATED") == (["a", "b", "c"], "auto")
    assert choose() == (["a", "b", "c"], None)


def test_signatures_go_where_they_are_understood() -> None:
    """An upstream that takes more than its protocol gets them; others do without, and the caller is told."""
    signed = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    request = {"contents": [HI, {"role": "model", "parts": [signed]}]}
    body, losses = to_openai(request, extended=True)
    assert body["messages"][1]["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert losses.dropped(drops_parts=False) == ()
    body, losses = to_openai(request)
    assert "extra_content" not in body["messages"][1]["tool_calls"][0]
    assert losses.dropped(drops_parts=False) == ("contents[].parts[].thoughtSignature",)
    signed["thoughtSignature"] = UNSIGNED.replace("_", "/")
    body, losses = to_chat(request, "m", stream=False, extended=True, continuation=None)
    assert "extra_content" not in body["messages"][1]["tool_calls"][0]
    assert losses.dropped(drops_parts=False) == ()


def test_a_part_that_only_signs_is_no_part() -> None:
    """Gemini's answers end with one, and callers send them back."""
    request = {"contents": [HI, {"role": "model", "parts": [{"text": "a"}, {"thoughtSignature": "c2ln"}]}, HI]}
    body, losses = to_openai(request, extended=True)
    assert body["messages"][1] == {"role": "assistant", "content": "a"}
    assert losses.dropped(drops_parts=False) == ("contents[].parts[].thoughtSignature",)


def test_schemas_become_json_schemas() -> None:
    """Types in small letters, numbers as numbers, null as a type; what JSON schema does not know goes."""
    schema = {
        "type": "OBJECT",
        "property_ordering": ["a"],
        "required": ["a"],
        "properties": {
            "property_ordering": {"type": "ARRAY", "items": {"type": "INTEGER", "minimum": 1}, "min_items": "2"},
            "a": {"anyOf": [{"type": "STRING", "enum": ["x"]}, {"type": "NUMBER"}], "nullable": True},
            "b": {"type": "STRING", "enum": ["x"], "nullable": True, "example": "x"},
        },
    }
    assert json_schema(schema, "s") == {
        "type": "object",
        "required": ["a"],
        "properties": {
            "property_ordering": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2},
            "a": {"anyOf": [{"anyOf": [{"type": "string", "enum": ["x"]}, {"type": "number"}]}, {"type": "null"}]},
            "b": {"type": ["string", "null"], "enum": ["x", None], "examples": ["x"]},
        },
    }
    with pytest.raises(CallerError) as wrong:
        json_schema({"properties": {"a": {"items": {"properties": 5}}}}, "tools[0]")
    assert wrong.value.param == "tools[0].properties.a.items.properties"


# --- OpenAI to Gemini -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        (NEW, "low", {"thinkingLevel": "LOW", "includeThoughts": True}),
        (NEW, "none", {"thinkingLevel": "MINIMAL"}),
        (OLD, "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        (OLD, "none", {"thinkingBudget": 0}),
        ("models/gemini-2.0-flash", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-flash-latest", "xhigh", {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ],
)
def test_an_effort_is_put_as_the_model_knows_it(model: str, effort: str, thinking: Json) -> None:
    """Models before Gemini 3 know budgets, later ones levels; thoughts are asked for with it."""
    request, _ = from_openai({"model": model, "reasoning_effort": effort})
    assert request["generationConfig"] == {"thinkingConfig": thinking}


def test_an_effort_that_nobody_knows_is_refused() -> None:
    """It is not guessed at."""
    with pytest.raises(CallerError) as refused:
        from_openai({"reasoning_effort": "giant"})
    assert refused.value.param == "reasoning_effort"


def test_calls_of_nobodys_are_signed_for_models_that_want_it() -> None:
    """Of calls at the same time the first one; models before Gemini 3 get none."""
    calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": ""}} for each in "ab"]
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    for model, signatures in ((NEW, [UNSIGNED, None]), (OLD, [None, None])):
        request, _ = from_openai({"model": model, "messages": turns})
        assert [part.get("thoughtSignature") for part in request["contents"][1]["parts"]] == signatures


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "custom"}},
            "tool_choice",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
                    {"role": "user", "content": "x"},
                ]
            },
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "function", "content": "x"}, {"role": "user", "content": "x"}]}, "messages[0]"),
    ],
)
def test_parts_of_a_chat_that_gemini_cannot_carry_are_named(body: Json, lost: str) -> None:
    """By the path under which the caller finds them."""
    assert from_openai(body)[1].parts == (lost,)


def test_hints_of_a_chat_are_told() -> None:
    """Who asks, what to keep, how to phrase it; what asks for the usual is nothing."""
    body: Json = {"user": "u", "store": True, "parallel_tool_calls": False, "verbosity": "low", "service_tier": "scale"}
    body |= {"logit_bias": {}, "modalities": ["text"], "stream_options": {"include_usage": True}}
    assert from_openai(body)[1].dropped(drops_parts=False) == (
        "service_tier",
        "user",
        "store",
        "parallel_tool_calls",
        "verbosity",
    )
    assert from_openai({"parallel_tool_calls": True})[1].dropped(drops_parts=False) == ()


# --- There and back ---------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
blobs = st.sampled_from(
    [
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://pictures.invalid/a.png"}},
    ]
)


@st.composite
def dialogues(draw: st.DrawFn) -> list[Json]:
    """Return turns in which both sides speak by turns, and every call of a tool has an answer."""
    turns: list[Json] = []
    for turn in range(draw(st.integers(1, 3))):
        said: list[Json] = [{"text": draw(texts)}, *draw(st.lists(blobs, max_size=1))]
        if turns and "functionCall" in turns[-1]["parts"][-1]:
            calls = [each["functionCall"] for each in turns[-1]["parts"] if "functionCall" in each]
            responses = st.dictionaries(names, values, max_size=2)
            answers = [{"id": each["id"], "name": each["name"], "response": draw(responses)} for each in calls]
            said = [{"functionResponse": each} for each in answers]
        turns.append({"role": "user", "parts": said})
        spoken: list[Json] = []
        if draw(st.booleans()):
            spoken.append({"text": draw(texts), "thought": True})
        if draw(st.booleans()):
            spoken.append({"text": draw(texts)})
        for number in range(draw(st.integers(0 if spoken else 1, 2))):
            call = {
                "id": f"c{turn}_{number}",
                "name": draw(names),
                "args": draw(st.dictionaries(names, values, max_size=2)),
            }
            spoken.append({"functionCall": call, "thoughtSignature": draw(st.sampled_from(["c2ln", "YWJj"]))})
        turns.append({"role": "model", "parts": spoken})
    if "functionCall" not in turns[-1]["parts"][-1]:
        turns.append({"role": "user", "parts": [{"text": draw(texts)}]})
    return turns


settings: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "topP": st.floats(0, 1),
        "topK": st.integers(1, 40),
        "maxOutputTokens": st.integers(1, 9999),
        "stopSequences": st.lists(texts, min_size=1, max_size=4),
        "candidateCount": st.integers(1, 8),
        "seed": st.integers(0, 99),
        "presencePenalty": st.floats(-2, 2),
        "frequencyPenalty": st.floats(-2, 2),
    },
)
forms: list[Json] = [
    {},
    {"responseLogprobs": True, "logprobs": 3},
    {"responseMimeType": "application/json"},
    {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
    {"thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True}},
]
configs = st.builds(lambda config, more: {**config, **more}, settings, st.sampled_from(forms))
functions = st.lists(
    st.fixed_dictionaries(
        {"name": names, "parametersJsonSchema": st.just({"type": "object", "properties": {"a": {"type": "string"}}})},
        optional={"description": texts},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda each: str(each["name"]),
)


@given(dialogues(), configs, st.none() | functions, st.none() | texts, st.sampled_from([None, "AUTO", "ANY", "NONE"]))
def test_what_both_can_say_survives_the_way_there_and_back(
    turns: list[Json], config: Json, offered: list[Json] | None, system: str | None, mode: str | None
) -> None:
    """A request that OpenAI's protocol can carry is the same one after it was carried, and nothing was lost."""
    request: Json = {"contents": turns}
    if system is not None:
        request["systemInstruction"] = {"parts": [{"text": system}]}
    if config:
        request["generationConfig"] = config
    if offered:
        request["tools"] = [{"functionDeclarations": offered}]
        if mode is not None:
            request["toolConfig"] = {"functionCallingConfig": {"mode": mode}}
    body, there = to_chat(request, NEW, stream=False, extended=True, continuation=None)
    back, losses = to_gemini(body)
    assert (there.dropped(drops_parts=False), losses.dropped(drops_parts=False)) == ((), ())
    assert back == request


tool_answers = st.one_of(texts, values.map(json.dumps), texts.map(lambda said: json.dumps({"output": said})))


@given(tool_answers)
def test_what_a_tool_answered_survives_as_text(said: str) -> None:
    """Objects as objects, all else in one; also an object that looks like the one."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": said},
    ]
    request, _ = to_gemini({"model": OLD, "messages": turns})
    body, _ = to_chat(request, "m", stream=False, extended=True, continuation=None)
    back = body["messages"][2]["content"]
    if said != back:
        assert json.loads(said) == json.loads(back)


KNOWN = re.findall(
    r"\w+",
    """
    text parts role thought name args id response functionDeclarations parameters parametersJsonSchema type items
    properties anyOf mode allowedFunctionNames functionCallingConfig functionCall functionResponse inlineData fileData
    mimeType data fileUri thinkingConfig thinkingLevel thinkingBudget responseMimeType responseSchema logprobs stop
    responseModalities responseLogprobs content tool_calls function arguments image_url url file file_data google
    extra_content thought_signature json_schema schema description
    """,
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | texts | st.sampled_from(KNOWN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KNOWN) | names, inner),
    max_leaves=8,
)
PART_FIELDS = ["text", "inlineData", "fileData", "functionCall", "functionResponse", "thought", "thoughtSignature"]
odd_contents = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": anything | st.sampled_from(["user", "model"]),
            "parts": anything | st.lists(st.dictionaries(st.sampled_from(PART_FIELDS), anything), max_size=3),
        },
    ),
    max_size=3,
)
odd_objects = st.dictionaries(st.sampled_from(KNOWN), anything)
odd_fields = st.dictionaries(
    st.sampled_from(["systemInstruction", "tools", "toolConfig", "generationConfig", "serviceTier", "x"]),
    anything | odd_objects | st.lists(odd_objects, max_size=2),
)
odd_messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"])},
        optional={"content": anything, "tool_calls": anything, "tool_call_id": anything, "reasoning_content": anything},
    ),
    max_size=3,
)
odd_settings = st.dictionaries(
    st.sampled_from(
        ["tools", "tool_choice", "stop", "response_format", "reasoning_effort", "service_tier", "logprobs", "n"]
    ),
    anything,
)


@given(odd_contents | anything, odd_fields, st.booleans())
def test_whatever_is_asked_is_carried_or_refused(contents: Any, odd: Json, extended: bool) -> None:  # noqa: FBT001 - drawn
    """No value, wherever it stands, makes the translation fail in another way than by a refusal."""
    with contextlib.suppress(CallerError):
        body, _ = to_chat({**odd, "contents": contents}, "m", stream=True, extended=extended, continuation="prefix")
        to_gemini(body)


@given(odd_messages | anything, odd_settings)
def test_whatever_chat_there_is_becomes_a_request_or_is_refused(turns: Any, odd: Json) -> None:
    """The same the other way."""
    with contextlib.suppress(CallerError):
        to_gemini({**odd, "model": NEW, "messages": turns})
