"""The HTTP face of the engine: OpenAI's endpoints, each also without `/v1`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from merge_backends.engine import answers
from merge_backends.engine.asked import Asked, read_chat, read_completion, read_embeddings
from merge_backends.engine.causal import CausalModel
from merge_backends.engine.engine import Engine
from merge_backends.engine.errors import EngineError, from_merging
from merge_backends.engine.library import Library
from merge_backends.engine.settings import EngineSettings
from merge_backends.errors import MergeError
from merge_backends.preference import MergeOffer

logger = logging.getLogger(__name__)
STARTED = int(time.time())
SSE = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


def build_app(settings: EngineSettings, library: Library | None = None) -> FastAPI:
    """The application; `library` may hold models that settings do not declare."""
    shelves = library if library is not None else Library(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = Engine(settings, shelves)
        app.state.engine = engine
        try:
            if settings.preload:
                await engine.preload()
            yield
        finally:
            # The threads end within a step; joining them off the loop lets last events go out.
            await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="Orbweaver engine",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    for prefix in ("/v1", ""):
        app.add_api_route(f"{prefix}/chat/completions", chat, methods=["POST"])
        app.add_api_route(f"{prefix}/completions", completions, methods=["POST"])
        app.add_api_route(f"{prefix}/embeddings", embed, methods=["POST"])
        app.add_api_route(f"{prefix}/models", list_models, methods=["GET"])
        app.add_api_route(f"{prefix}/models/{{name:path}}", show_model, methods=["GET"])
    app.add_api_route("/healthz", healthz, methods=["GET"])
    app.add_exception_handler(EngineError, _refused)
    app.add_exception_handler(MergeError, _refused_by_merging)
    app.add_exception_handler(HTTPException, _not_served)
    app.add_exception_handler(Exception, _broken)
    return app


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    return Generation(request, read_chat(await _body(request)))


async def completions(request: Request) -> Response:
    """POST /v1/completions."""
    return Generation(request, read_completion(await _body(request)))


async def embed(request: Request) -> Response:
    """POST /v1/embeddings."""
    asked = read_embeddings(await _body(request))
    engine: Engine = request.app.state.engine
    encoder, vectors, tokens = await engine.encode(asked.model, asked.inputs)
    if asked.dimensions not in (None, encoder.width):
        raise EngineError(
            f"{asked.model} has {encoder.width} dimensions and cannot give {asked.dimensions}.",
            code="invalid_value",
            param="dimensions",
        )
    return _json(answers.embeddings(asked.model, vectors, tokens, packed=asked.base64))


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    library = request.app.state.engine.library
    listed = [_model_object(library, name) for name in library.names]
    listed += [_offer_object(name, offer) for name, offer in library.merges.offers.items()]
    return _json({"object": "list", "data": listed})


async def show_model(request: Request, name: str) -> Response:
    """GET /v1/models/{name}."""
    library = request.app.state.engine.library
    offer = library.merges.offers.get(name)
    if offer is not None:
        return _json(_offer_object(name, offer))
    library.find(name)
    return _json(_model_object(library, name))


async def healthz(request: Request) -> Response:
    """GET /healthz: that the engine answers, and how busy it is."""
    engine: Engine = request.app.state.engine
    loaded = [name for name in engine.library.names if engine.library.loaded(name) is not None]
    return _json({"status": "ok", "running": engine.running, "waiting": engine.waiting, "loaded": loaded})


class Generation(Response):
    """An answer that is made while it is sent. A client that leaves frees its rows, before and after the first byte."""

    def __init__(self, request: Request, asked: Asked) -> None:
        super().__init__()
        self._request = request
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._respond(scope, receive, send))
        leaving = asyncio.create_task(_until_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                if not task.done():
                    task.cancel()
            results = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(results[0], BaseException) and not isinstance(results[0], asyncio.CancelledError | OSError):
            raise results[0]

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        engine: Engine = self._request.app.state.engine
        started = False
        try:
            async with engine.answer(self._asked) as stream:
                answer = answers.Answer(self._asked, stream)
                if not self._asked.stream:
                    pieces = [piece async for batch in stream.batches() for piece in batch]
                    await _json(answer.whole(pieces))(scope, receive, send)
                    return
                async for batch in stream.batches():
                    events = answer.events(batch)
                    if not started:
                        started = True
                        await send({"type": "http.response.start", "status": 200, "headers": SSE})
                        events = answer.first_events() + events
                    await send({"type": "http.response.body", "body": events, "more_body": True})
                await send({"type": "http.response.body", "body": answer.last_events(), "more_body": False})
        except EngineError as error:
            if not started:
                await _error(error)(scope, receive, send)
                return
            # The status is sent; OpenAI's clients raise on an event with an error. No [DONE]: it did not end well.
            event = b"data: " + orjson.dumps(error.body()) + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": False})


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> Any:
    most = int(request.app.state.engine.settings.body_mb * 2**20)
    received = bytearray()
    async for part in request.stream():
        received += part
        if len(received) > most:
            raise EngineError(f"The body is larger than {most} bytes.", status=413, code="request_too_large")
    try:
        return orjson.loads(received)
    except orjson.JSONDecodeError as error:
        raise EngineError(f"The body is not valid JSON: {error}", code="invalid_json") from None


def _model_object(library: Library, name: str) -> dict[str, Any]:
    loaded = library.loaded(name)
    about: dict[str, Any] = {"id": name, "object": "model", "created": STARTED, "owned_by": "orbweaver"}
    about["kind"] = library.kind(name)
    if loaded is not None:
        about["context_window"] = loaded.context
        about["system_fingerprint"] = loaded.fingerprint if isinstance(loaded, CausalModel) else None
    return about


def _offer_object(name: str, offer: MergeOffer) -> dict[str, Any]:
    """A family of merges: the name is completed by weights, `NAME:expert=0.7,other=0.3`."""
    head = {"id": name, "object": "model", "created": STARTED, "owned_by": "orbweaver", "kind": "merge"}
    return {**head, "experts": list(offer.experts), "grid": offer.grid, "at_once": offer.at_once}


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


def _error(error: EngineError) -> Response:
    return _json(error.body(), error.status, error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return _error(error)


async def _refused_by_merging(request: Request, error: Exception) -> Response:
    assert isinstance(error, MergeError)
    return _error(from_merging(error))


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        return _error(EngineError(f"{where} is not allowed.", status=405, code="method_not_allowed"))
    return _error(EngineError(f"There is no {where}.", status=error.status_code, code="not_found"))


async def _broken(request: Request, error: Exception) -> Response:
    logger.exception("%s failed", request.url.path, exc_info=error)
    return _error(EngineError("The engine failed; its log says more.", status=500, code="internal_error"))
