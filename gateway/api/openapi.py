"""Our own OpenAPI page: FastAPI's for the admin side, and the data plane described here, for it is no FastAPI route.

Only what Orbweaver itself reads is described; every other field of OpenAI's API is passed on and allowed.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.routing.wishes import FIELDS

KINDS: dict[str, dict[str, Any]] = {
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "money": {"type": "number", "minimum": 0},
    "names": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
    "flag": {"type": "boolean"},
    "text": {"type": "string", "minLength": 1, "maxLength": 256},
    "weights": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "number", "minimum": 0}},
}
MEANINGS = {
    "quality": "1 = best answer at any price, 0 = cheapest that will do.",
    "max_cost_usd": "Cap on the expected cost of this request.",
    "min_p": "Least predicted probability of a good answer.",
    "allow": "Only these models.",
    "deny": "Never these models.",
    "session": "Keeps a conversation on its model.",
    "explain": "Adds the ranking as the header x-orbweaver-ranking.",
    "preference": "Weights of experts, for a model called FAMILY/merge.",
}
MESSAGES = {"type": "array", "minItems": 1, "items": {"type": "object", "additionalProperties": True}}
TEXT_OR_LIST = {"anyOf": [{"type": "string"}, {"type": "array"}]}
OPERATIONS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "/v1/chat/completions": ("Chat completion, unary or as a stream", {"messages": MESSAGES}, ["messages"]),
    "/v1/completions": ("Legacy completion", {"prompt": TEXT_OR_LIST}, []),
    "/v1/embeddings": ("Embeddings", {"input": TEXT_OR_LIST}, ["input"]),
    "/v1/responses": ("Response", {"input": TEXT_OR_LIST}, []),
    "/v1/route": (
        "The routing decision; nothing is forwarded",
        {"messages": MESSAGES},
        ["messages"],
    ),
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def install(app: FastAPI) -> None:
    """Let `app.openapi()` describe the data plane too; the document is built once, when first asked for."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = get_openapi(title=app.title, version=app.version, routes=app.routes)
            page["paths"] = {**data_plane(), **page.get("paths", {})}
            app.openapi_schema = page
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def data_plane() -> dict[str, Any]:
    """The OpenAPI path items of the OpenAI-compatible endpoints."""
    paths = {path: {"post": _operation(path, *parts)} for path, parts in OPERATIONS.items()}
    listing = {"summary": "Models, with `auto` and its presets", "tags": ["data plane"], "responses": _responses()}
    one = {**listing, "summary": "One model"}
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {**paths, "/v1/models": {"get": listing}, "/v1/models/{model}": {"get": {**one, "parameters": [name]}}}


def _operation(path: str, summary: str, fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    wishes = {name: {**KINDS[kind], "description": MEANINGS[name]} for name, kind in FIELDS.items()}
    schema = {
        "type": "object",
        "required": ["model", *required],
        "additionalProperties": True,
        "properties": {
            "model": {"type": "string", "minLength": 1, "description": "A model's name, `auto`, or a preset."},
            "stream": {"type": "boolean"},
            "orbweaver": {"type": "object", "additionalProperties": False, "properties": wishes},
            **fields,
        },
    }
    return {
        "summary": summary,
        "tags": ["data plane"],
        "operationId": path.removeprefix("/v1/").replace("/", "_"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _responses(),
    }


def _responses() -> dict[str, Any]:
    error = {"description": "An error in OpenAI's shape", "content": {"application/json": {"schema": ERROR}}}
    return {"200": {"description": "As the upstream answered"}, "4XX": error, "5XX": error}
