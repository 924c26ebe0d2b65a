"""`build_app(settings)`: the only place where objects are wired. Everything else receives what it needs."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from gateway import __version__
from gateway.api import (
    admin,
    admin_aptitude,
    chat,
    completions,
    dashboard,
    embeddings,
    encoder_admin,
    errors,
    feedback,
    health,
    models,
    openapi,
    responses,
    route,
)
from gateway.api.relay import relay_endpoints
from gateway.aptitude.worker import AptitudeWorker
from gateway.encoder.learner import Learner
from gateway.encoder.scorer import EncoderScorer
from gateway.hash_key import HashKey
from gateway.limits.base import Limiter
from gateway.limits.memory import MemoryLimiter
from gateway.middleware.body_limit import BodyLimit
from gateway.middleware.client_keys import ClientKeys
from gateway.middleware.hot_path import HotPath
from gateway.middleware.request_id import RequestId
from gateway.middleware.timing import Timing
from gateway.registry.ledger import Ledger
from gateway.registry.registry import Registry
from gateway.routing.prior import PriorScorer
from gateway.routing.router import Ambient, Router, RouterSettings
from gateway.routing.scoring import Scorer
from gateway.routing.session import MemorySessions, SessionStore
from gateway.services import Services
from gateway.settings import Settings
from gateway.telemetry.activity import Activity
from gateway.telemetry.decision_log import DecisionLog
from gateway.telemetry.loop_lag import LoopLag
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import Sink
from gateway.telemetry.tracing import build_tracing
from gateway.telemetry.workers import Workers, group_folder
from gateway.upstreams.base import Timeouts
from gateway.upstreams.execute import Executor
from gateway.upstreams.health import HealthBoard
from gateway.zoo.first import FirstCandidates

log = logging.getLogger(__name__)


def build_app(settings: Settings, *, scorer: Scorer | None = None, clock: Callable[[], float] = time.time) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        scorer: stands in for the configured one, in tests.
        clock: wall time in seconds.
    """
    services = build_services(settings, scorer=scorer, clock=clock)
    app = FastAPI(
        title="Orbweaver",
        version=__version__,
        docs_url="/docs",
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.services = services
    for each in (admin, admin_aptitude, encoder_admin, health, dashboard, feedback):
        app.include_router(each.router)
    data_plane = with_and_without_v1([r for each in DATA_PLANE for r in each.routes()])
    app.router.routes.extend(data_plane)
    errors.install(app)
    openapi.install(app)
    # The last one added is the outermost.
    app.add_middleware(HotPath, endpoints=relay_endpoints(data_plane))
    app.add_middleware(BodyLimit, settings=settings.server, metrics=services.metrics)
    app.add_middleware(ClientKeys, services=services)
    app.add_middleware(Timing, metrics=services.metrics, max_in_flight=settings.server.max_in_flight)
    app.add_middleware(RequestId)
    return app


DATA_PLANE = (chat, completions, embeddings, responses, models, route)


def with_and_without_v1(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """Each route below `/v1`, at the root, and with a trailing slash: clients differ, and a redirect loses a POST."""
    return [
        Route(path, item.endpoint, methods=list(item.methods or ()), name=item.name)
        for item in routes
        if isinstance(item, Route)
        for path in (f"/v1{item.path}", item.path, f"/v1{item.path}/", f"{item.path}/")
    ]


def build_services(settings: Settings, *, scorer: Scorer | None, clock: Callable[[], float]) -> Services:
    """Everything a handler may use; nothing is opened or started yet."""
    registry = Registry(settings, clock=clock)
    ledger = Ledger(registry.database, keep_decisions=settings.telemetry.keep_decisions, clock=clock)
    metrics = Metrics(router_usd_per_cpu_hour=settings.telemetry.router_usd_per_cpu_hour)
    board = HealthBoard(settings.circuit, clock=time.monotonic)
    tracing = build_tracing(settings.telemetry.otlp_endpoint)
    activity = Activity(clock)
    sinks: list[Sink] = [metrics, activity, ledger, tracing]
    if settings.telemetry.access_log:
        sinks.append(DecisionLog())
    encoder = learner = None
    if scorer is None and settings.routing.scorer != "prior":
        encoder = EncoderScorer(settings.state_dir, settings.routing.artifact, lambda: registry.snapshot.profiles)
        learner = Learner(encoder, settings.state_dir)
    sessions = _sessions(settings, clock)
    router = _router(settings, scorer or encoder or PriorScorer(), board, sessions, clock)
    if learner is not None:
        router.on_decided = learner.decided
    services = Services(
        settings=settings,
        registry=registry,
        limiter=_limiter(settings, ledger),
        router=router,
        sessions=sessions,
        executor=Executor(board, timeouts=Timeouts(**settings.timeouts.model_dump()), retry=settings.retry),
        health=board,
        metrics=metrics,
        ledger=ledger,
        tracing=tracing,
        sinks=sinks,
        clock=clock,
        activity=activity,
        aptitude=AptitudeWorker(registry, settings, encoder, clock=clock),
        encoder=encoder,
        learner=learner,
        first=FirstCandidates(registry, settings),
    )
    metrics.live_state.watch(services)
    services.workers = Workers(
        group_folder(os.getppid()) if settings.server.workers > 1 else None,
        str(os.getpid()),
        {"metrics": metrics.scrape, "activity": activity.to_bytes},
    )
    return services


def _router(
    settings: Settings, scorer: Scorer, board: HealthBoard, sessions: SessionStore, clock: Callable[[], float]
) -> Router:
    own = settings.routing
    knobs = RouterSettings(
        default=own.default,
        quality=own.quality,
        switch_price=own.switch_price,
        sticky=own.sticky,
        abstain=own.abstain,
        abstain_margin=own.abstain_margin,
        novelty_limit=own.novelty_limit,
        time_price=own.time_price,
        fast_time_price=own.fast_time_price,
        explore=own.explore,
        max_fallbacks=settings.retry.max_fallbacks,
    )
    rng = Random(secrets.randbits(64))
    ambient = Ambient(clock, _new_decision_id, HashKey.own(settings.state_dir), rng)
    return Router(knobs, scorer, board, sessions, ambient)


def _sessions(settings: Settings, clock: Callable[[], float]) -> SessionStore:
    ttl_s = settings.routing.session_ttl_s
    local = MemorySessions(ttl_s, clock)
    if settings.redis_url is None:
        return local
    from gateway.shared.redis_sessions import RedisSessions

    return RedisSessions(settings.redis_url, ttl_s, local)


def _limiter(settings: Settings, ledger: Ledger) -> Limiter:
    local = MemoryLimiter(ledger)
    if settings.redis_url is None:
        return local
    from gateway.limits.redis import RedisLimiter

    return RedisLimiter(settings.redis_url, local, ledger)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    lag = LoopLag(services.metrics.loop_lag)
    services.registry.subscribe(services.executor.follow)
    await services.registry.start()
    services.executor.follow(services.registry.snapshot)
    hash_key = HashKey(services.registry, services.router)
    if services.settings.shares_registry:
        hash_key.start()
    services.ledger.start()
    await lag.start()
    await services.workers.start()
    services.notes += await services.first.start()
    if services.encoder is not None and len(services.registry.snapshot.enabled) > 1:
        services.encoder.warm_up()
    services.aptitude.start()
    try:
        yield
    finally:
        await hash_key.close()
        await services.aptitude.close()
        if services.encoder is not None:
            await services.encoder.close()
        await services.workers.close()
        await services.first.close()
        await lag.close()
        await services.executor.close()
        await services.ledger.close()
        await services.limiter.close()
        await services.sessions.close()
        await services.tracing.close()
        for sink in services.sinks:
            if isinstance(sink, DecisionLog):
                await asyncio.to_thread(sink.close)
        await services.registry.close()


def _new_decision_id() -> str:
    return "dec_" + secrets.token_hex(12)
