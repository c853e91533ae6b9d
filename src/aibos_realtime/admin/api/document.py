"""The description of the API (OpenAPI 3.1): what the framework makes of the routes, completed by what it does not know."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ... import __version__
from .problems import MEDIA_TYPE

BASE = "/api/v1"
COMMON = (401, 403, 422, 429, 500, 503)
"""What every operation may answer, beside what its route names."""
WITH_BODY = (400, 408, 413, 415)

TEXT = """Publish events, and operate the server. Members are in camelCase, times are Unix seconds, durations seconds, sizes bytes; a `timestamp` is
RFC 3339. Every error is a problem (RFC 9457).

Operators, and programs with an API key, may do everything. Other users may do what concerns rooms for which they hold the right `manage`; they
are answered 403 whether there is such a room or not."""

SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A user's token, or an API key in its place."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

INSTANCES = {
    "get": {
        "tags": ["nodes"],
        "summary": "List instances",
        "description": "Where else clients can connect, the least loaded first. Whoever has a valid token may ask.",
        "operationId": "listInstances",
        "security": [{"token": []}],
        "responses": {
            "200": {
                "description": "Successful Response",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InstancesReport"}}},
            },
            "default": {
                "description": "401: no valid token. 503: the register cannot be read.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
            },
        },
    },
}
INSTANCES_SCHEMAS = {
    "Refusal": {
        "title": "Refusal",
        "type": "object",
        "required": ["code", "message", "retryable"],
        "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "retryable": {"type": "boolean"}},
    },
    "InstancesReport": {
        "title": "InstancesReport",
        "type": "object",
        "required": ["instances"],
        "properties": {"instances": {"type": "array", "items": {"$ref": "#/components/schemas/InstanceReport"}}},
    },
    "InstanceReport": {
        "title": "InstanceReport",
        "type": "object",
        "required": ["url", "name", "connections", "load", "weight"],
        "properties": {
            "url": {"type": "string"},
            "name": {"type": "string"},
            "connections": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "load": {"type": "number"},
            "weight": {"type": "integer"},
        },
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document. Its paths begin where `servers` says, which is relative to the document's own place: so it holds under any prefix."""
    document = get_openapi(
        title="aibos-realtime: HTTP API", version=__version__, openapi_version="3.1.0", description=TEXT, routes=app.routes, servers=[{"url": "v1"}]
    )
    paths = {path.removeprefix(BASE): item for path, item in document["paths"].items()}
    for item in paths.values():
        for operation in item.values():
            _complete(operation)
    document["paths"] = paths | {"/instances": INSTANCES}
    document["components"]["schemas"] |= INSTANCES_SCHEMAS
    document["components"]["securitySchemes"] = SECURITY
    document["security"] = [{"token": []}, {"apiKey": []}]
    return document


def _complete(operation: dict[str, Any]) -> None:
    operation["summary"] = operation["summary"].capitalize()
    for parameter in operation.get("parameters", []):
        parameter["schema"] = _without_null(parameter["schema"])
    responses = operation["responses"]
    own = {int(status) for status in responses if status.isdigit() and int(status) >= 400}
    for status in sorted({*own, *COMMON, *(WITH_BODY if "requestBody" in operation else ())}):
        responses[str(status)] = _problem(HTTPStatus(status).phrase)
    responses["default"] = _problem("Any other error")


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out is never null: there is no way to write that down in a URL."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    return {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0] if len(kinds) == 1 else schema


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
