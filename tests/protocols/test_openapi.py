"""The description of the HTTP surface is sound, and tells of what exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from chatgate.administration import description
from chatgate.administration.routes import PREFIX
from chatgate.administration.routes import ROUTES as ADMIN_ROUTES
from chatgate.paths import Table
from chatgate.protocols import openai_errors, openapi, plain
from chatgate.protocols.anthropic import errors as anthropic_errors
from chatgate.protocols.gemini import errors as gemini_errors
from chatgate.vocabulary.errors import Kind

ROUTES = ("api", "", "v2/ask")
ADMIN_ROUTE = "api"
"""Of the gateway that has an admin API."""
METHODS = {"delete", "get", "head", "post", "patch"}
TYPES = {"string", "integer", "number", "boolean", "array", "object", "null"}


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> str:
    """Return the plain API's path."""
    return str(request.param)


@pytest.fixture
def document(route: str) -> dict[str, Any]:
    """Return the document for that route; of one of them with the admin API."""
    more = openapi.More(description.TAG, description.paths(), description.schemas()) if route == ADMIN_ROUTE else None
    return dict(json.loads(openapi.describe(route, more)))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, the method and the operation of each."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of the document."""
    if isinstance(part, dict):
        yield part
    for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from nodes(child)


def resolve(document: dict[str, Any], reference: str) -> Any:
    """Follow a reference, as RFC 6901 says."""
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a named schema."""
    return dict(document["components"]["schemas"][name])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No `$ref` is dangling, and none leads out of the document."""
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert len(references) > 20
    for reference in references:
        assert isinstance(resolve(document, reference), dict), reference


def test_every_component_is_used(document: dict[str, Any]) -> None:
    """Nothing is described that no operation has."""
    used = {node["$ref"] for node in nodes(document) if "$ref" in node}
    for kind in ("schemas", "responses", "headers"):
        unused = {name for name in document["components"][kind] if f"#/components/{kind}/{name}" not in used}
        assert not unused, kind


def test_every_operation_is_complete(document: dict[str, Any]) -> None:
    """Each has an id of its own, a summary, a known tag, a success, and responses that say what they are."""
    tags = {tag["name"] for tag in document["tags"]}
    identifiers = []
    for path, method, operation in operations(document):
        assert method in METHODS, path
        identifiers.append(operation["operationId"])
        assert operation["summary"]
        assert set(operation["tags"]) <= tags
        assert {"101", "200", "201"} & set(operation["responses"])
        for status, response in operation["responses"].items():
            found = resolve(document, response["$ref"]) if "$ref" in response else response
            assert int(status) == 101 or 200 <= int(status) <= 599
            assert found["description"]
            assert {"x-request-id", "request-id"} <= set(found["headers"])
    assert len(identifiers) == len(set(identifiers))


def test_the_parameters_of_a_path_are_declared(document: dict[str, Any]) -> None:
    """What stands in braces in a path is described as a parameter, and nothing else is."""
    for path, _, operation in operations(document):
        declared = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_schemas_use_only_types_that_exist(document: dict[str, Any]) -> None:
    """Each `type` is one of JSON Schema's, and what is required is described."""
    for schema in nodes(document["components"]["schemas"]):
        if "type" in schema and not isinstance(schema["type"], dict):
            types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
            assert set(types) <= TYPES
        if "required" in schema and isinstance(schema["required"], list):
            assert set(schema["required"]) <= set(schema["properties"])


def test_security_schemes_are_the_places_where_a_key_is_looked_for(document: dict[str, Any]) -> None:
    """Bearer, three headers and the query; or none at all."""
    schemes = document["components"]["securitySchemes"]
    places = {(each.get("in", "bearer"), each.get("name", "")) for each in schemes.values()}
    assert places == {
        ("bearer", ""),
        ("header", "x-api-key"),
        ("header", "api-key"),
        ("header", "x-goog-api-key"),
        ("query", "key"),
    }
    assert document["security"] == [{}, *({name: []} for name in schemes)]


def test_every_path_exists_in_the_table(document: dict[str, Any], route: str) -> None:
    """What the document describes is what the gateway serves: same paths, same methods."""
    table = Table(route)
    for path, method, _ in operations(document):
        table.find(method.upper(), path.format(model="demo/echo", response="resp_1", id="0123"), upgrades=True)


def test_every_served_path_is_described(document: dict[str, Any], route: str) -> None:
    """What the gateway serves at its first address is in the document."""
    described = {(path, method) for path, method, _ in operations(document)}
    admin = {(f"{PREFIX}{each.path}", each.method.lower()) for each in ADMIN_ROUTES} if route == ADMIN_ROUTE else set()
    assert described >= admin
    assert {
        ("/", "head"),
        ("/", "get"),
        (f"/{route}", "get"),
        (f"/{route}", "post"),
        ("/v1/chat/completions", "post"),
        ("/v1/responses", "post"),
        ("/v1/responses", "get"),
        ("/v1/responses/{response}", "get"),
        ("/v1/responses/{response}/input_items", "get"),
        ("/v1/responses/{response}", "delete"),
        ("/v1/responses/{response}/cancel", "post"),
        ("/v1/embeddings", "post"),
        ("/v1/completions", "post"),
        ("/v1/moderations", "post"),
        ("/v1/images/generations", "post"),
        ("/v1/images/edits", "post"),
        ("/v1/images/variations", "post"),
        ("/v1/audio/speech", "post"),
        ("/v1/audio/transcriptions", "post"),
        ("/v1/audio/translations", "post"),
        ("/api/chat", "post"),
        ("/api/generate", "post"),
        ("/api/embed", "post"),
        ("/api/embeddings", "post"),
        ("/api/tags", "get"),
        ("/api/show", "post"),
        ("/api/ps", "get"),
        ("/api/version", "get"),
        ("/v1/messages", "post"),
        ("/v1/messages/count_tokens", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/v1beta/models/{model}:generateContent", "post"),
        ("/v1beta/models/{model}:streamGenerateContent", "post"),
        ("/v1beta/models/{model}:countTokens", "post"),
        ("/v1beta/models", "get"),
        ("/v1beta/models/{model}", "get"),
        ("/v1/dashboard/billing/subscription", "get"),
        ("/v1/dashboard/billing/usage", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
    } == described - admin


def test_model_calls_describe_every_status_they_can_end_in(document: dict[str, Any], route: str) -> None:
    """Every situation's status is described where a call can get into it."""
    not_here = {Kind.NOT_FOUND}
    names = (
        "chat/completions",
        "responses",
        "embeddings",
        "completions",
        "moderations",
        "audio/speech",
        "images/edits",
    )
    for name in names:
        described = set(document["paths"][f"/v1/{name}"]["post"]["responses"])
        assert described == {"200", *(str(openai_errors.status_of(kind)) for kind in Kind)}
    message = set(document["paths"]["/v1/messages"]["post"]["responses"])
    assert message == {"200", *(str(anthropic_errors.status_of(kind)) for kind in Kind)}
    for method in ("generateContent", "streamGenerateContent"):
        generation = set(document["paths"][f"/v1beta/models/{{model}}:{method}"]["post"]["responses"])
        assert generation == {"200", *(str(gemini_errors.status_of(kind)) for kind in Kind)}
    ask = set(document["paths"][f"/{route}"]["post"]["responses"])
    dialect = plain.PlainDialect("gpt-x")
    assert ask == {"200", *(str(dialect.status_of(kind)) for kind in Kind if kind not in not_here)}


def test_the_plain_question_is_described_as_it_is_read(document: dict[str, Any], route: str) -> None:
    """Three body forms; each field that is read is described, and an object made from the description is accepted."""
    body = document["paths"][f"/{route}"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/x-www-form-urlencoded", "text/plain"}
    for name in ("PlainQuestion", "PlainForm"):
        assert set(schema_of(document, name)["properties"]) == plain.FIELDS
    limits = schema_of(document, "PlainQuestion")["properties"]["max_tokens"]
    for value in (limits["minimum"], limits["maximum"], limits["default"], None):
        plain.decode_request(
            json.dumps({"user_content": "Hi", "max_tokens": value}).encode(), "application/json", "gpt-x"
        )


def test_answers_and_errors_have_the_described_fields(document: dict[str, Any]) -> None:
    """What the dialects write has exactly the fields that the document names."""
    answer = json.loads(plain.encode_answer("Hello", "gpt-x", None, ()))
    described = schema_of(document, "PlainAnswer")
    assert set(answer) == set(described["properties"]) == set(described["required"])
    assert set(answer["data"]) == set(described["properties"]["data"]["properties"])
    codes = schema_of(document, "PlainError")["properties"]["error"]["properties"]["code"]["enum"]
    assert set(codes) == {kind.value for kind in Kind}
