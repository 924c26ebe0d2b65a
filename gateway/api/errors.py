"""The only place where errors become HTTP: OpenAI's error object, with status, code, param and `retry-after`."""

from __future__ import annotations

import math
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import InvalidBody, LimitExceeded, MethodNotAllowed, NotFound, OrbweaverError, Unauthorized

JSON = "application/json"


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    """OpenAI's error object as JSON."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_headers(error: OrbweaverError) -> dict[str, str]:
    """The headers that tell a client when, and whether, to try again."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_s * 1e3)))
    if isinstance(error, LimitExceeded) and (error.code == "insufficient_quota" or error.retry_after_s is None):
        headers["x-should-retry"] = "false"
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return headers


def to_response(error: OrbweaverError) -> Response:
    """The answer for any error of our own."""
    body = error_body(str(error), error.type, error.code, error.param)
    return Response(body, status_code=error.status, headers=error_headers(error), media_type=JSON)


def unexpected(request_id: str) -> Response:
    """The answer for a fault of ours; what went wrong stands in the log under the request's id."""
    message = f"The gateway failed to handle this request. Its log has the details under {request_id}."
    return Response(error_body(message, "server_error", "internal_error"), status_code=500, media_type=JSON)


def install(app: FastAPI) -> None:
    """Give every error of the application OpenAI's shape: ours, unknown paths, wrong methods, invalid bodies."""
    app.add_exception_handler(OrbweaverError, _ours)
    app.add_exception_handler(HTTPException, _of_the_framework)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, OrbweaverError)
    return to_response(error)


async def _of_the_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    if error.status_code == 404:
        response = to_response(
            NotFound(
                f"Unknown request URL: {method} {path}.",
                hint="Check the path; the API lives below /v1.",
                code="unknown_url",
            )
        )
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        response = to_response(
            MethodNotAllowed(f"{path} does not take {method}.", hint=f"Use {allowed}." if allowed else None)
        )
    else:
        kind = "invalid_request_error" if error.status_code < 500 else "server_error"
        body = error_body(str(error.detail), kind, None)
        response = Response(body, status_code=error.status_code, media_type=JSON)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    lines, param = [], None
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"] if part != "body")
        param = param or where or None
        lines.append(f"{where or 'body'}: {_sentence(problem)}")
    return to_response(InvalidBody(" ".join(lines), param=param, status=422))


def _sentence(problem: dict[str, Any]) -> str:
    return str(problem.get("msg", "is not valid")).removeprefix("Value error, ").rstrip(".") + "."
