"""The parts of the OpenAPI document that its operations refer to: headers, schemas, refusals, places for a key.

Used by `openapi` and its like. The numbers come from the modules that enforce them.
"""

from __future__ import annotations

from typing import Any

from chatgate.protocols import openai_chat, plain
from chatgate.vocabulary.errors import Kind

Part = dict[str, Any]
"""A piece of the document, as JSON knows it."""


def schema(name: str) -> Part:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_body(name: str) -> Part:
    """Return the content of a body that is JSON of a schema."""
    return {"application/json": {"schema": schema(name)}}


_SECURITY_SCHEMES: Part = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": (
            "A key of this gateway (`sk-cg-…`), or the caller's own provider key. The words `none`, `empty`, "
            "`chatgate` and `-` count as no key. Whether one is needed is up to the server and the model."
        ),
    },
    "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
    "xGoogApiKey": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
    "query": {"type": "apiKey", "in": "query", "name": "key"},
}


# --- Headers ----------------------------------------------------------------------------------------------------------


def _standing(what: str, counted: str) -> Part:
    """Return the three headers that tell of the tightest limit on something."""
    return {
        f"x-ratelimit-limit-{what}": {
            "description": f"{counted} allowed by the tightest limit; absent where there is none.",
            "schema": {"type": "integer", "minimum": 1},
        },
        f"x-ratelimit-remaining-{what}": {
            "description": f"{counted} left of it.",
            "schema": {"type": "integer", "minimum": 0},
        },
        f"x-ratelimit-reset-{what}": {
            "description": "The time until it is as good as new, such as `120ms` or `6m0s`.",
            "schema": {"type": "string"},
        },
    }


_HEADERS: Part = {
    "x-request-id": {"description": "The number of this call; the log knows it.", "schema": {"type": "string"}},
    "request-id": {"description": "The same number.", "schema": {"type": "string"}},
    "x-chatgate-model": {
        "description": "The model that gave the answer, as it is named where the call went; a fallback is another one.",
        "schema": {"type": "string"},
    },
    "x-chatgate-attempts": {
        "description": "How many requests were sent to providers for this call; absent where it is not known yet.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "x-chatgate-dropped": {
        "description": "The fields that the provider was not sent, as its protocol has nothing like them.",
        "schema": {"type": "string"},
    },
    "x-chatgate-estimated": {
        "description": "`true` when no provider counted.",
        "schema": {"type": "string", "const": "true"},
    },
    **_standing("requests", "Calls"),
    **_standing("tokens", "Tokens"),
    "x-chatgate-degraded": {
        "description": "`limits` while machines that count limits together cannot, and each counts its part of them.",
        "schema": {"type": "string", "const": "limits"},
    },
    "retry-after": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "retry-after-ms": {"description": "The same in milliseconds.", "schema": {"type": "integer", "minimum": 0}},
    "x-should-retry": {
        "description": "`false` when another try makes no sense, or only after a long time.",
        "schema": {"type": "string", "const": "false"},
    },
    "allow": {"description": "The methods that the path takes.", "schema": {"type": "string"}},
    "www-authenticate": {"description": "How to show a key.", "schema": {"type": "string", "const": "Bearer"}},
}


def _headers(*names: str) -> Part:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


IDS = _headers("x-request-id", "request-id")
WHO = _headers("x-chatgate-model", "x-chatgate-attempts", "x-chatgate-dropped")
ESTIMATED = _headers("x-chatgate-estimated")
STANDING = _headers(*_standing("requests", "Calls"), *_standing("tokens", "Tokens"), "x-chatgate-degraded")
_TRIES = _headers("x-chatgate-attempts")
_WAIT = _headers("retry-after", "retry-after-ms", "x-should-retry")
_MORE_HEADERS: dict[str, Part] = {
    "400": _TRIES,
    "401": _headers("www-authenticate"),
    "404": _TRIES,
    "405": _headers("allow"),
    "429": STANDING | _WAIT | _TRIES,
    "500": _WAIT | _TRIES,
    "502": _WAIT | _TRIES,
    "503": _WAIT | _TRIES,
    "504": _WAIT | _TRIES,
    "529": _WAIT | _TRIES,
}


# --- Schemas ----------------------------------------------------------------------------------------------------------

_TEXT: Part = {"type": "string"}
_OPTIONAL_TEXT: Part = {"type": ["string", "null"]}
_COUNT: Part = {"type": "integer", "minimum": 0}
_FREE: Part = {"additionalProperties": True}


def object_of(properties: Part, required: str = "", **more: Any) -> Part:  # noqa: ANN401 - keywords of JSON Schema
    """Return the schema of an object; `required` are names with blanks between."""
    needed = {"required": required.split()} if required else {}
    return {"type": "object", "properties": properties, **needed, **more}


def _question(continuous: Part, stream: Part, max_tokens: Part) -> Part:
    """Return the fields of a question; a form writes three of them as text."""
    return object_of(
        {
            "user_content": {"type": "string", "minLength": 1, "description": "What to ask."},
            "sys_content": {**_OPTIONAL_TEXT, "description": "How the model should behave."},
            "system_content": {**_OPTIONAL_TEXT, "description": "Another spelling of `sys_content`."},
            "model": {
                **_OPTIONAL_TEXT,
                "maxLength": openai_chat.MAX_MODEL_NAME,
                "description": f"Which model answers. The server chooses without it, and for `{plain.RETIRED_MODEL}`.",
            },
            "api_key": {
                **_OPTIONAL_TEXT,
                "writeOnly": True,
                "description": "The caller's key, where it is not in a header. Both at once must be the same.",
            },
            "max_tokens": max_tokens,
            "continuous": {
                **continuous,
                "description": (
                    "The dialogue so far, such as the `result` of the last answer. The system message comes first, and "
                    "`sys_content` takes the place of one that is in here."
                ),
            },
            "continuous_dialogue": {**continuous, "description": "Another spelling of `continuous`."},
            "stream": {**stream, "description": "Whether the answer comes piece by piece, as server-sent events."},
        },
        "user_content",
        description=(
            "Two spellings of one field must have the same value. Unknown fields are ignored, null counts as absent."
        ),
    )


_TURN = object_of({"role": {"enum": ["system", "developer", "user", "assistant"]}, "content": _TEXT}, "role content")
_TOKEN_LIMIT: Part = {
    "minimum": plain.MAX_TOKENS_LOW,
    "maximum": plain.MAX_TOKENS_HIGH,
    "default": plain.MAX_TOKENS_DEFAULT,
    "description": "How long the answer may be, in tokens.",
}

_SCHEMAS: Part = {
    "PlainTurn": _TURN,
    "PlainQuestion": _question(
        {"type": ["array", "null"], "items": schema("PlainTurn")},
        {"type": ["boolean", "null"], "default": False},
        {"type": ["integer", "null"], **_TOKEN_LIMIT},
    ),
    "PlainForm": _question(
        {"type": "string", "contentMediaType": "application/json", "contentSchema": schema("PlainTurns")},
        {"enum": ["true", "false", "1", "0", "on", "off", "yes", "no"], "default": "false"},
        {"type": "integer", **_TOKEN_LIMIT},
    ),
    "PlainTurns": {"type": "array", "items": schema("PlainTurn")},
    "PlainUsage": object_of({"input_tokens": _COUNT, "output_tokens": _COUNT}, "input_tokens output_tokens"),
    "PlainAnswer": object_of(
        {
            "code": {"const": 200},
            "msg": {"const": "success"},
            "data": object_of(
                {
                    "response": {**_TEXT, "description": "The answer."},
                    "model": {**_TEXT, "description": "Which model answered."},
                    "usage": {
                        "anyOf": [schema("PlainUsage"), {"type": "null"}],
                        "description": "The tokens as the provider counted them; null when it did not.",
                    },
                },
                "response model usage",
            ),
            "current_response": {**_TEXT, "description": "The answer again, for older clients."},
            "result": {**schema("PlainTurns"), "description": "The dialogue with this question and its answer."},
        },
        "code msg data current_response result",
    ),
    "PlainError": object_of(
        {
            "code": {"type": "integer", "description": "The HTTP status."},
            "msg": {"const": "failed"},
            "data": object_of({"response": {**_TEXT, "description": "The reason, for people."}}, "response"),
            "error": object_of(
                {
                    "code": {"enum": [kind.value for kind in Kind], "description": "The reason, for programs."},
                    "request_id": _TEXT,
                },
                "code request_id",
            ),
        },
        "code msg data error",
    ),
    "OpenAIMessage": object_of(
        {"role": _TEXT, "content": {"type": ["string", "array", "null"], "description": "Text, or a list of parts."}},
        "role",
        **_FREE,
    ),
    "OpenAIChatRequest": object_of(
        {
            "model": schema("ModelName"),
            "messages": {"type": "array", "minItems": 1, "items": schema("OpenAIMessage")},
            "stream": {"type": ["boolean", "null"], "default": False},
            "stream_options": {
                "type": ["object", "null"],
                "properties": {"include_usage": {"type": ["boolean", "null"]}},
                **_FREE,
            },
            "max_tokens": {"type": ["integer", "null"], "minimum": 1},
            "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
            "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 128},
            "temperature": {"type": ["number", "null"]},
            "top_p": {"type": ["number", "null"]},
            "presence_penalty": {"type": ["number", "null"]},
            "frequency_penalty": {"type": ["number", "null"]},
            "seed": {"type": ["integer", "null"]},
            "stop": {"type": ["string", "array", "null"], "items": _TEXT},
            "user": _OPTIONAL_TEXT,
        },
        "model messages",
        description="OpenAI's chat completion request. Fields that are not named here go to the provider unchanged.",
        **_FREE,
    ),
    "OpenAIChatAnswer": object_of(
        {
            "id": _TEXT,
            "object": _TEXT,
            "created": {"type": "integer"},
            "model": _TEXT,
            "choices": {"type": "array", "items": {"type": "object"}},
            "usage": {"type": ["object", "null"]},
        },
        "choices",
        description="OpenAI's chat completion, byte for byte as the provider sent it.",
        **_FREE,
    ),
    "OpenAIError": object_of(
        {
            "error": object_of(
                {"message": _TEXT, "type": _TEXT, "param": _OPTIONAL_TEXT, "code": _TEXT}, "message type param code"
            )
        },
        "error",
        description="`param` is the path of the field at fault. `code` is stable, or the provider's own.",
    ),
    "ResponsesRequest": object_of(
        {
            "model": schema("ModelName"),
            "input": {"type": ["string", "array", "null"]},
            "instructions": _OPTIONAL_TEXT,
            "stream": {"type": ["boolean", "null"], "default": False},
            "max_output_tokens": {"type": ["integer", "null"], "minimum": 1},
            "previous_response_id": _OPTIONAL_TEXT,
            "store": {"type": ["boolean", "null"], "description": "Nothing is kept unless the server does so at all."},
        },
        "model",
        description=(
            "OpenAI's request for a response. A provider of Responses gets it unchanged but for the model; for any "
            "other it is translated, and refused when a part of it cannot be, unless the server leaves such parts out."
        ),
        **_FREE,
    ),
    "ResponsesAnswer": object_of(
        {
            "id": _TEXT,
            "object": {"const": "response"},
            "status": _TEXT,
            "output": {"type": "array", "items": {"type": "object"}},
            "usage": {"type": ["object", "null"]},
        },
        "id object output",
        description="OpenAI's response, byte for byte where a provider of Responses sent it.",
        **_FREE,
    ),
    "DeletedResponse": object_of(
        {"id": _TEXT, "object": {"const": "response"}, "deleted": {"const": True}}, "id object deleted"
    ),
    "ResponseItems": object_of(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"type": "object"}},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
        },
        "object data first_id last_id has_more",
    ),
    "OperationRequest": object_of(
        {"model": schema("ModelName")},
        "",
        description="OpenAI's request; but for the model it goes on unchanged.",
        **_FREE,
    ),
    "OperationAnswer": object_of(
        {}, "", description="OpenAI's answer, byte for byte as the provider sent it.", **_FREE
    ),
    "OllamaRequest": object_of(
        {"model": schema("ModelName"), "stream": {"type": "boolean", "default": True}},
        "model",
        description="What Ollama's protocol has for this path; docs/ollama.md says what is carried.",
        **_FREE,
    ),
    "OllamaAnswer": object_of({}, "", description="What Ollama's protocol answers there.", **_FREE),
    "OllamaError": object_of({"error": _TEXT}, "error"),
    "AnthropicRequest": object_of(
        {
            "model": schema("ModelName"),
            "messages": {"type": "array", "minItems": 1, "items": schema("OpenAIMessage")},
            "max_tokens": {"type": ["integer", "null"], "minimum": 0, "description": "Needed, except for counting."},
            "stream": {"type": ["boolean", "null"], "default": False},
            "system": {"type": ["string", "array", "null"]},
            "stop_sequences": {"type": ["array", "null"], "items": _TEXT},
        },
        "model messages",
        description=(
            "Anthropic's request. An Anthropic upstream gets it unchanged but for the model; for any other it is "
            "translated, and refused when a part of it cannot be, unless the server leaves such parts out."
        ),
        **_FREE,
    ),
    "AnthropicMessage": object_of(
        {
            "id": _TEXT,
            "type": {"const": "message"},
            "role": {"const": "assistant"},
            "model": _TEXT,
            "content": {"type": "array", "items": {"type": "object"}},
            "stop_reason": _OPTIONAL_TEXT,
            "stop_sequence": _OPTIONAL_TEXT,
            "usage": {"type": "object"},
        },
        "id type role model content usage",
        description="Anthropic's message, byte for byte where an Anthropic upstream sent it.",
        **_FREE,
    ),
    "AnthropicCount": object_of({"input_tokens": _COUNT}, "input_tokens", **_FREE),
    "AnthropicError": object_of(
        {
            "type": {"const": "error"},
            "error": object_of({"type": _TEXT, "message": _TEXT}, "type message"),
            "request_id": _TEXT,
        },
        "type error request_id",
    ),
    "Model": object_of(
        {"id": _TEXT, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": _TEXT},
        "id object created owned_by",
        **_FREE,
    ),
    "ModelList": object_of(
        {"object": {"const": "list"}, "data": {"type": "array", "items": schema("Model")}}, "object data"
    ),
    "ModelName": {"type": "string", "minLength": 1, "maxLength": openai_chat.MAX_MODEL_NAME},
    "Subscription": object_of(
        {
            "object": {"const": "billing_subscription"},
            "has_payment_method": {"const": True},
            "soft_limit_usd": {"type": "number"},
            "hard_limit_usd": {"type": "number"},
            "system_hard_limit_usd": {"type": "number"},
            "access_until": {"type": "integer"},
        },
        "object has_payment_method soft_limit_usd hard_limit_usd system_hard_limit_usd access_until",
        description="In dollars; 100000000 is no limit. `access_until` is Unix time, 0 for a key that never expires.",
    ),
    "Usage": object_of(
        {"object": {"const": "list"}, "total_usage": {"type": "number", "description": "In cents."}},
        "object total_usage",
    ),
    "Health": object_of({"status": {"enum": ["ok", "ready", "draining"]}}, "status"),
}


# --- Responses --------------------------------------------------------------------------------------------------------

_COMMON_SITUATIONS = {
    "405": "The path does not take this method.",
    "408": "The request did not arrive in time.",
    "413": "The body is too large.",
    "415": "The type of the body is not understood.",
    "429": "A limit was reached or too little is left of a budget, here or at the provider.",
}


def refusals(surface: str, situations: dict[str, str]) -> Part:
    """Return one response per status, for the operations to refer to."""
    return {
        f"{surface}{status}": {
            "description": situation,
            "headers": IDS | _MORE_HEADERS.get(status, {}),
            "content": json_body(f"{surface}Error"),
        }
        for status, situation in situations.items()
    }


_OPENAI_SITUATIONS = {
    "400": "Bad JSON or a wrong field.",
    "401": "The key is missing, unknown, revoked, disabled or expired here, or refused by the provider.",
    "403": "The address or the key may not do this, or the model has no known price where money is limited.",
    "404": "There is no such model.",
    **_COMMON_SITUATIONS,
    "500": "A fault of the gateway's.",
    "502": "Every provider that could be tried failed or gave a bad answer.",
    "503": (
        "The gateway or the model's providers are overloaded, or the gateway is being restarted, "
        "or it cannot check keys or write down calls."
    ),
    "504": "Every provider that could be tried took too long.",
}
_RESPONSES = refusals(
    "Plain",
    {
        "400": "Bad JSON, a missing or wrong field, an unknown model, or no key where one is needed.",
        "401": "The key is unknown, revoked, disabled or expired here, or refused by the provider.",
        "403": (
            "The address or the key may not do this, or the model has no known price where money is limited; "
            "or a GET came from a program."
        ),
        **_COMMON_SITUATIONS,
        "500": "Every provider failed, the gateway is overloaded or being restarted, or the fault is the gateway's.",
    },
) | refusals("OpenAI", _OPENAI_SITUATIONS)
_RESPONSES |= refusals("Ollama", _OPENAI_SITUATIONS)
_RESPONSES |= refusals(
    "Anthropic",
    {
        "400": "Bad JSON, a wrong field, or one that the provider's protocol has nothing like.",
        "401": "The key is missing, unknown, revoked, disabled or expired here, or refused by the provider.",
        "402": "Too little is left of a budget, here or at the provider.",
        "403": "The address or the key may not do this, or the model has no known price where money is limited.",
        "404": "There is no such model.",
        **_COMMON_SITUATIONS,
        "429": "A limit was reached, here or at the provider.",
        "500": "A fault of the gateway's.",
        "502": "Every provider that could be tried failed or gave a bad answer.",
        "504": "Every provider that could be tried took too long.",
        "529": (
            "The gateway or the model's providers are overloaded, or the gateway is being restarted, "
            "or it cannot check keys or write down calls."
        ),
    },
)


COMPONENTS: Part = {
    "schemas": _SCHEMAS,
    "responses": _RESPONSES,
    "headers": _HEADERS,
    "securitySchemes": _SECURITY_SCHEMES,
}
"""All of them, by the names under which `$ref` finds them."""
