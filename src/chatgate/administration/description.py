"""The table of the admin API as OpenAPI knows it: parts for the document that `GET /openapi.json` answers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from chatgate.administration.desk import NoBody
from chatgate.administration.routes import PREFIX, ROUTES, Permission, Route
from chatgate.protocols.openapi_components import IDS, Part, json_body

TAG: Final = {"name": "admin", "description": "Keys and usage, for the operator's programs, with an admin key."}

_REFERENCE: Final = "#/components/schemas/{name}"
_KEY_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The key's id, which is part of its text and no secret.",
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z]+$"},
}


def paths() -> dict[str, Part]:
    """Return every path with its operations."""
    found: dict[str, Part] = {}
    for route in ROUTES:
        found.setdefault(f"{PREFIX}{route.path}", {})[route.method.lower()] = _operation(route)
    return found


def schemas() -> Part:
    """Return the schemas that the operations refer to."""
    types = {kind for route in ROUTES for kind in (route.body, route.answer) if kind is not NoBody}
    _, found = msgspec.json.schema_components(sorted(types, key=lambda kind: kind.__name__), ref_template=_REFERENCE)
    return found


def _operation(route: Route) -> Part:
    refusals = ["401", "404", "405", "408", "429", "500", "503"]
    if route.permission is Permission.CHANGE:
        refusals.append("403")
    refusals += ["400", "413", "415"]
    answer = {"description": f"{route.summary}.", "headers": IDS, "content": json_body(route.answer.__name__)}
    operation: Part = {
        "tags": [TAG["name"]],
        "operationId": route.operation,
        "summary": route.summary,
        "security": [{"bearer": []}],
        "responses": {
            str(route.status): answer,
            **{status: {"$ref": f"#/components/responses/OpenAI{status}"} for status in sorted(refusals)},
        },
    }
    parameters = [_KEY_ID] if "{id}" in route.path else []
    parameters += _query_parameters(route)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not NoBody:
        operation["requestBody"] = {"required": True, "content": json_body(route.body.__name__)}
    return operation


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    _, found = msgspec.json.schema_components([route.query], ref_template=_REFERENCE)
    properties = found[route.query.__name__]["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
