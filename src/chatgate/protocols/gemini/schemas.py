"""Gemini's schemas, a part of OpenAPI 3.0's, as JSON schemas.

Source: https://ai.google.dev/api/caching#Schema (read 2026-11-23).
"""

from __future__ import annotations

from chatgate.protocols.gemini.fields import camel
from chatgate.protocols.reading import Json, mapping

_COUNTS = frozenset({"maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties"})

_NOT_IN_JSON_SCHEMA = frozenset({"nullable", "propertyOrdering"})
"""A type may be null there, and of an order it knows nothing; the properties stand in one."""


def json_schema(schema: object, path: str) -> Json:
    """Return a schema as a JSON schema. Raises `CallerError` where one is no object."""
    given = {camel(name): value for name, value in mapping(schema, path).items()}
    found: Json = {}
    for name, value in given.items():
        if name == "type" and isinstance(value, str):
            if value != "TYPE_UNSPECIFIED":
                found[name] = value.lower()
        elif name == "example":
            found["examples"] = [value]
        elif name in _COUNTS and isinstance(value, str) and value.isdigit():
            found[name] = int(value)  # Protobuf writes 64-bit numbers as texts.
        elif name not in _NOT_IN_JSON_SCHEMA:
            found[name] = _inner(name, value, f"{path}.{name}")
    return _or_null(found) if given.get("nullable") is True else found


def _inner(name: str, value: object, path: str) -> object:
    """Return a field's value, the schemas in it as JSON schemas."""
    if name == "properties":
        inner = mapping(value, path)
        return {each: json_schema(inner[each], f"{path}.{each}") for each in inner}
    if name in ("items", "additionalProperties") and isinstance(value, dict):
        return json_schema(value, path)
    if name == "anyOf" and isinstance(value, list):
        return [json_schema(each, f"{path}[{index}]") for index, each in enumerate(value)]
    return value


def _or_null(schema: Json) -> Json:
    """Return a schema that takes null as well."""
    kind = schema.get("type")
    if not isinstance(kind, str):
        return {"anyOf": [schema, {"type": "null"}]}
    told = {**schema, "type": [kind, "null"]}
    if isinstance(schema.get("enum"), list):
        told["enum"] = [*schema["enum"], None]
    return told
