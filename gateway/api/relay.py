"""The way of a data-plane request: read, decide, forward, relay, account. One `Exchange` for each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from gateway.api.accounting import Prices, usage_of
from gateway.api.errors import to_response
from gateway.api.incoming import ClientGone, IncomingRequest, check_request, read_body
from gateway.api.response_owners import ResponseOwners
from gateway.errors import LimitExceeded, OrbweaverError, Overloaded, UpstreamError, UpstreamTimeout
from gateway.limits.base import has_limits
from gateway.middleware.inbound import Receive, Scope, Send, inbound_of
from gateway.registry.records import Candidate, ClientKey, Endpoint
from gateway.routing.decision import RoutingDecision
from gateway.routing.features import estimate_tokens
from gateway.services import Services
from gateway.telemetry.record import RequestRecord
from gateway.upstreams.headers import forwarded_headers
from gateway.upstreams.outbound import Attempt, OutboundRequest, Served
from gateway.upstreams.relay_stream import STOPPED

AGAIN = "Send the request again: another replica answers it, or this one once it is back."
LONGEST_NAME = 128
LONGEST_REASON = 300
LONGEST_RANKING = 4000
# Not a standard status; nginx's for a client that closed the connection. It only appears in our own records.
CLIENT_CLOSED = 499
_LIMIT_PREFIX = b"x-ratelimit-"
_CONVERSATION_HEADERS = (b"x-session-id", b"x-conversation-id", b"session_id", b"conversation_id")


class RelayEndpoint:
    """One endpoint as an ASGI application."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.owners = ResponseOwners() if endpoint is Endpoint.RESPONSES else None
        self.prices: Prices | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: Services = scope["app"].state.services
        if self.prices is None:
            self.prices = Prices(services.settings.routing.baseline)
        await Exchange(services, self, self.prices, scope, send).run(receive)


def relay_route(endpoint: Endpoint) -> Route:
    """The route of one endpoint, below `/v1`."""
    return Route(f"/{endpoint.value}", RelayEndpoint(endpoint), methods=["POST"], name=endpoint.value)


def relay_endpoints(routes: Iterable[BaseRoute]) -> dict[str, RelayEndpoint]:
    """The relay's endpoints among some routes, by path."""
    return {
        item.path: item.endpoint
        for item in routes
        if isinstance(item, Route) and isinstance(item.endpoint, RelayEndpoint)
    }


async def read_request(request: Request, endpoint: Endpoint) -> IncomingRequest:
    """Read and check a request outside of the relay. Raises RequestError."""
    services: Services = request.app.state.services
    inbound = inbound_of(request.scope)
    raw = await read_body(inbound, request.receive, services.settings.server.max_body_bytes)
    return check_request(inbound, endpoint, raw, services.registry.snapshot)


async def decide(
    services: Services, request: IncomingRequest, *, scored: bool = False, owners: ResponseOwners | None = None
) -> RoutingDecision:
    """Who answers. With `scored`, a named model's decision shows all candidates' scores too. Raises RoutingError."""
    named = request.candidate
    if named is not None and not scored:
        return services.router.named(request.model, named, request.wishes)
    decision = await services.router.auto(
        model=request.model,
        body=request.body,
        endpoint=request.endpoint,
        wishes=request.wishes,
        candidates=owners.narrow(request.body, request.snapshot.enabled) if owners else request.snapshot.enabled,
        key=request.key,
        conversation=_conversation(request),
    )
    if named is None:
        return decision
    return replace(decision, model=named.name, order=(named.name,), rule="named", reason="the caller named it")


class Exchange:
    """One request from its first byte to its last, and the record of it."""

    __slots__ = (
        "_body_wait_s",
        "_endpoint",
        "_explain",
        "_has_started",
        "_inbound",
        "_owners",
        "_prices",
        "_reserved",
        "_scope",
        "_send",
        "_services",
        "record",
    )

    def __init__(self, services: Services, place: RelayEndpoint, prices: Prices, scope: Scope, send: Send) -> None:
        inbound = inbound_of(scope)
        endpoint = place.endpoint
        self._services, self._prices, self._owners, self._endpoint = services, prices, place.owners, endpoint
        self._scope, self._send, self._inbound = scope, send, inbound
        self._body_wait_s = 0.0
        self._reserved: int | None = None
        self._has_started = self._explain = False
        headers = inbound.headers
        trace = headers.get(b"traceparent")
        retries = headers.get(b"x-stainless-retry-count", b"")
        self.record = RequestRecord(
            request_id=inbound.request_id,
            endpoint=endpoint,
            started_at=services.clock(),
            key_id=inbound.key.id if inbound.key is not None else None,
            traceparent=trace.decode("latin-1") if trace is not None else None,
            retry_count=int(retries[:4]) if retries.isdigit() else 0,
        )

    async def run(self, receive: Receive) -> None:
        """Serve the request; every outcome ends in the record."""
        request: IncomingRequest | None = None
        served: Served | None = None
        try:
            request = await self._read(receive)
            outbound, order = await self._prepare(request)
            with self._services.executor.watch(receive) as watch:
                try:
                    served = await self._services.executor.execute(order, outbound, watch)
                    await self._relay(served)
                except asyncio.CancelledError:
                    # Without a reason it is the server that ends us; it has waited long enough.
                    self._note_cut(watch.take())
                    if self.record.outcome == "gateway_error":
                        if self._has_started:
                            raise
                        raise Overloaded(STOPPED, hint=AGAIN, code="shutting_down") from None
        except OrbweaverError as error:
            await self._refuse(error)
        except ClientGone:
            self._note_cut("disconnected")
        finally:
            stream = served.stream if served is not None else None
            if stream is not None:
                stream.end()
            await self._settle(request, served)
            if stream is not None:
                await stream.release()

    async def _read(self, receive: Receive) -> IncomingRequest:
        before = time.perf_counter()
        raw = await read_body(self._inbound, receive, self._services.settings.server.max_body_bytes)
        self._body_wait_s = time.perf_counter() - before
        request = check_request(self._inbound, self._endpoint, raw, self._services.registry.snapshot)
        self.record.requested_model = request.model[:LONGEST_NAME]
        self.record.stream = request.stream
        self._explain = request.wishes.explain
        return request

    async def _prepare(self, request: IncomingRequest) -> tuple[OutboundRequest, Sequence[Candidate]]:
        """Check the key's limits, decide, and make what is sent on."""
        services, record, key = self._services, self.record, request.key
        if key is not None and has_limits(key):
            tokens = estimate_tokens(request.body) + _most_output(request.body)
            await services.limiter.admit(key, tokens, services.clock())
            self._reserved = tokens
        before = time.perf_counter()
        decision = await decide(services, request, owners=self._owners)
        record.decide_s = time.perf_counter() - before
        if request.candidate is not None:
            order: Sequence[Candidate] = (request.candidate,)
        else:
            decision = replace(decision, decide_ms=record.decide_s * 1e3)
            known = request.snapshot.enabled
            order = [known[name] for name in decision.order if name in known]
        record.decision = decision
        return self._outbound(request, key), order

    def _outbound(self, request: IncomingRequest, key: ClientKey | None) -> OutboundRequest:
        body, verbatim = request.body, True
        if "orbweaver" in body:
            body = {name: value for name, value in body.items() if name != "orbweaver"}
            verbatim = False
        headers = forwarded_headers(self._inbound.headers)
        trace = self._services.tracing.outgoing(self.record)
        if trace is not None:
            headers["traceparent"] = trace
        expects = hides = False
        if request.stream:
            options = body.get("stream_options") or {}
            expects = bool(options.get("include_usage"))
            if not expects and self._asks_for_usage(request, key):
                body = {**body, "stream_options": {**options, "include_usage": True}}
                verbatim, expects, hides = False, True, True
        return OutboundRequest(
            request.endpoint,
            request.raw,
            body,
            request.stream,
            headers,
            named=request.candidate is not None,
            verbatim=verbatim,
            expects_usage=expects,
            hide_usage=hides,
            accepts_gzip=b"gzip" in self._inbound.headers.get(b"accept-encoding", b""),
        )

    def _asks_for_usage(self, request: IncomingRequest, key: ClientKey | None) -> bool:
        """Whether we ask the upstream for the usage of a stream on our own account."""
        wanted = self._services.settings.telemetry.stream_usage
        if wanted == "never" or request.endpoint is Endpoint.RESPONSES:
            return False
        counted = key is not None and (key.tokens_per_minute is not None or key.budget_usd is not None)
        return wanted == "always" or counted

    async def _relay(self, served: Served) -> None:
        """Send an answer on: whole, or piece by piece."""
        record, send = self.record, self._send
        self._note_served(served)
        headers = served.headers
        if self._reserved is not None:
            headers = [pair for pair in headers if not pair[0].startswith(_LIMIT_PREFIX)]
        headers = [*headers, *self._own_headers(served.candidate.name, served.attempts)]
        stream = served.stream
        if stream is None:
            if served.content_encoding is not None:
                headers.append((b"content-encoding", served.content_encoding))
            headers.append((b"content-length", b"%d" % len(served.body)))
            self._has_started = True
            await send({"type": "http.response.start", "status": served.status, "headers": headers})
            await send({"type": "http.response.body", "body": served.body})
            return
        headers.append((b"x-accel-buffering", b"no"))
        self._has_started = True
        await send({"type": "http.response.start", "status": served.status, "headers": headers})
        send = self._inbound.send
        await send({"type": "http.response.body", "body": served.body, "more_body": True})
        async for block in stream:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        record.outcome = stream.outcome or "ok"
        record.error_code = stream.error_code

    def _note_served(self, served: Served) -> None:
        record, now = self.record, time.perf_counter()
        record.model = served.candidate.name
        record.deployment = served.deployment.id
        record.provider = served.deployment.provider
        record.attempts = served.attempts
        record.status = served.status
        record.overhead_s = max(0.0, now - self._inbound.started - self._body_wait_s - served.waited_s)
        if not served.ok:
            record.outcome = "client_error" if served.status < 500 and served.status != 429 else "upstream_error"
            record.error_code = served.attempts[-1][2] if served.attempts else None

    def _own_headers(self, model: str, attempts: Sequence[Attempt]) -> list[tuple[bytes, bytes]]:
        """The `x-orbweaver-*` headers and the limits of the client's key."""
        record = self.record
        headers = [(b"x-orbweaver-overhead-ms", b"%.2f" % (record.overhead_s * 1e3))]
        decision = record.decision
        if decision is not None:
            failed = {name for name, _, _ in attempts if name != model}
            headers += [
                (b"x-orbweaver-decision-id", decision.id.encode()),
                (b"x-orbweaver-model", _ascii(model)),
                (b"x-orbweaver-reason", _ascii(f"{decision.rule}: {decision.reason}")),
                (b"x-orbweaver-fallbacks", b"%d" % len(failed)),
            ]
            if self._explain:
                headers.append((b"x-orbweaver-ranking", _ascii(_ranking(decision), LONGEST_RANKING)))
            for verdict in decision.candidates:
                if verdict.model == model and verdict.p is not None:
                    headers.append((b"x-orbweaver-p", b"%.4f" % verdict.p))
        key = self._inbound.key
        if key is not None and has_limits(key):
            limits = self._services.limiter.headers(key, self._services.clock())
            headers += [(name.encode(), value.encode()) for name, value in limits.items()]
        return headers

    async def _refuse(self, error: OrbweaverError) -> None:
        """Answer with an error of our own."""
        record = self.record
        record.status, record.error_code = error.status, error.code
        record.outcome = _outcome_of(error)
        if isinstance(error, UpstreamError):
            record.attempts = error.attempts
        if error.status >= 500 and not isinstance(error, UpstreamError):
            record.overhead_s = time.perf_counter() - self._inbound.started - self._body_wait_s
        if self._has_started:
            raise error
        response = to_response(error)
        model = record.attempts[-1][0] if record.attempts else record.decision.model if record.decision else ""
        response.raw_headers += self._own_headers(model, record.attempts)
        record.model = model
        await self._send({"type": "http.response.start", "status": error.status, "headers": response.raw_headers})
        await self._send({"type": "http.response.body", "body": response.body})

    def _note_cut(self, reason: str | None) -> None:
        """The exchange ended before the answer was out."""
        self.record.outcome = {"disconnected": "disconnected", None: "gateway_error"}.get(reason, "timeout")
        if not self._has_started:
            self.record.status = CLIENT_CLOSED

    async def _settle(self, request: IncomingRequest | None, served: Served | None) -> None:
        """Account for the request, after its last byte."""
        services, record = self._services, self.record
        record.duration_s = time.perf_counter() - self._inbound.started
        if served is not None and served.stream is not None and served.stream.first_token_at is not None:
            record.first_token_s = served.stream.first_token_at - self._inbound.started
        if request is not None and served is not None and served.ok:
            if self._owners is not None:
                self._owners.note(served)
            usage = record.usage = usage_of(served, request.body, request.endpoint)
            record.cost_usd = self._prices.cost(served.candidate, usage)
            if record.decision is not None and record.decision.rule != "named":
                record.baseline_cost_usd = self._prices.baseline_cost(request.snapshot, usage)
        for sink in services.sinks:
            sink.record(record)
        key = self._inbound.key
        if key is not None and self._reserved is not None:
            found = record.usage
            used = found.prompt_tokens + found.completion_tokens if found is not None else 0
            cost = record.cost_usd or 0.0
            await services.limiter.settle(key, reserved=self._reserved, used=used, cost_usd=cost, now=services.clock())
        decision = record.decision
        if decision is not None and decision.session is not None and record.outcome == "ok":
            await services.router.observe(decision, record.model)


def _outcome_of(error: OrbweaverError) -> str:
    if isinstance(error, LimitExceeded):
        return "limited"
    if isinstance(error, UpstreamTimeout):
        return "timeout"
    if isinstance(error, UpstreamError):
        return "upstream_error"
    return "client_error" if error.status < 500 else "gateway_error"


def _conversation(request: IncomingRequest) -> str | None:
    """The caller's own name for the conversation, as agents send it."""
    for name in _CONVERSATION_HEADERS:
        value = request.inbound.headers.get(name)
        if value:
            return value.decode("latin-1")
    return None


def _most_output(body: dict[str, object]) -> int:
    """How many tokens the caller allows for the answer, 0 where it does not say."""
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return min(value, 10**9)
    return 0


def _ranking(decision: RoutingDecision) -> str:
    """Every candidate as the router saw it: scored ones with p and expected cost, the others with their rule."""
    seen = []
    for verdict in decision.candidates:
        if verdict.p is None:
            seen.append(f"{verdict.model} excluded={(verdict.excluded_because or '').partition(':')[0]}")
        else:
            cost = f" cost={verdict.cost_usd:.6f}" if verdict.cost_usd is not None else ""
            seen.append(f"{verdict.model} p={verdict.p:.4f}{cost}")
    return "; ".join(seen)


def _ascii(text: str, longest: int = LONGEST_REASON) -> bytes:
    """A header value: printable ASCII, of bounded length."""
    plain = text[:longest].encode("ascii", "replace").decode()
    return "".join(each if each.isprintable() else " " for each in plain).encode()
