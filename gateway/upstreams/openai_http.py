"""OpenAI-compatible upstreams over aiohttp: one pooled session, bytes in and bytes out, nothing parsed."""

from __future__ import annotations

import io
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from yarl import URL

from gateway import __version__
from gateway.errors import UpstreamBadReply, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from gateway.registry.records import Deployment, Endpoint
from gateway.settings import read_secret
from gateway.upstreams.base import RawHeaders, UpstreamCall

logger = logging.getLogger(__name__)

# aiohttp writes larger bodies piece by piece when they come as a file, so that they do not hold up the loop.
LARGE_BODY = 2**20
# Enough for any answer; more is an attack or a mistake.
MAX_ANSWER = 512 * 2**20
KEEPALIVE_S = 30.0
DNS_TTL_S = 60
# With its default of 64 KiB aiohttp pauses reading after 128 KiB; tool arguments and embeddings are larger.
READ_BUFFER = 2**18


@dataclass(slots=True)
class _Place:
    """What is the same for all calls to one endpoint of one deployment."""

    deployment: Deployment
    url: URL
    headers: dict[str, str]


class OpenAIUpstream:
    """Implements `Upstream` for every server that speaks OpenAI's wire format."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._places: dict[tuple[str, Endpoint], _Place] = {}
        self._limits: dict[float, aiohttp.ClientTimeout] = {}

    async def send(self, call: UpstreamCall) -> OpenAIReply:
        """Send and wait for the head. Raises UpstreamUnreachable, UpstreamTimeout (connect) or UpstreamBadReply."""
        session = self._session or self._open()
        place = self._place(call.deployment, call.endpoint)
        limit = self._limits.get(call.timeouts.connect_s)
        if limit is None:
            limit = aiohttp.ClientTimeout(total=None, sock_connect=call.timeouts.connect_s)
            self._limits = {call.timeouts.connect_s: limit}
        body: bytes | io.BytesIO = call.body if len(call.body) < LARGE_BODY else io.BytesIO(call.body)
        try:
            response = await session.post(
                place.url,
                data=body,
                headers={**place.headers, **call.headers},
                timeout=limit,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _explain(error, call.deployment, call.timeouts.connect_s) from error
        return OpenAIReply(response)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=DNS_TTL_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            max_line_size=2**16,
            max_field_size=2**16,
        )
        return self._session

    def _place(self, deployment: Deployment, endpoint: Endpoint) -> _Place:
        place = self._places.get((deployment.id, endpoint))
        if place is None or place.deployment is not deployment:
            headers = {
                "content-type": "application/json",
                "accept": "*/*",
                "accept-encoding": "identity",
                "user-agent": f"orbweaver/{__version__}",
            }
            secret = read_secret(deployment.api_key_env)
            if secret:
                headers["authorization"] = f"Bearer {secret}"
            elif deployment.api_key_env:
                logger.warning("%s is not set; calling %s without a key", deployment.api_key_env, deployment.id)
            place = _Place(deployment, URL(f"{deployment.base_url}/{endpoint.value}"), headers)
            self._places[deployment.id, endpoint] = place
        return place


class OpenAIReply:
    """Implements `UpstreamReply` over an aiohttp response."""

    __slots__ = ("_inflater", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: RawHeaders = response.raw_headers
        encoding = response.headers.get("content-encoding")
        self._inflater = inflater(encoding) if encoding else None

    async def read(self, on_piece: Callable[[], None]) -> bytes:
        content = self._response.content
        try:
            body = await content.readany()
            if content.at_eof():
                return body
            parts, size = [body], len(body)
            while piece := await content.readany():
                on_piece()
                parts.append(piece)
                size += len(piece)
                if size > MAX_ANSWER:
                    raise ValueError(f"more than {MAX_ANSWER} bytes")
            return b"".join(parts)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _broken(error) from error

    async def chunk(self) -> bytes:
        try:
            data = await self._response.content.readany()
            if self._inflater is None or not data:
                return data
            # A compressed stream may hold a piece back; wait for the next one rather than signal the end.
            while not (plain := self._inflater.decompress(data)):
                data = await self._response.content.readany()
                if not data:
                    return b""
            return plain
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, zlib.error) as error:
            raise _broken(error) from error

    def close(self) -> None:
        # A body that was read to its end has given its connection back by itself; any other is cut.
        self._response.close()


def inflater(encoding: str) -> zlib._Decompress | None:
    """A decompressor for `gzip` or `deflate`; None for what we cannot undo."""
    return zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding.lower() in ("gzip", "x-gzip", "deflate") else None


def decompress(body: bytes, encoding: str, limit: int = MAX_ANSWER) -> bytes:
    """Undo a content encoding. Raises OverflowError above `limit` bytes; ValueError: unknown encoding, broken data."""
    if encoding.lower() == "identity":
        return body
    unpack = inflater(encoding)
    if unpack is None:
        raise ValueError(f"unknown content encoding {encoding!r}")
    try:
        plain = unpack.decompress(body, limit)
    except zlib.error as error:
        raise ValueError(f"broken {encoding} data") from error
    if unpack.unconsumed_tail:
        raise OverflowError(f"more than {limit} bytes when unpacked")
    if not unpack.eof:
        raise ValueError(f"{encoding} data ends too early")
    return plain


def _explain(error: Exception, deployment: Deployment, connect_s: float) -> UpstreamError:
    """The error for a call that got no head. The address goes to the log, not to the client."""
    logger.info("call to %s (%s) failed: %r", deployment.id, deployment.base_url, error)
    who = f"server of {deployment.id.rpartition('#')[0] or deployment.id!r}"
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return UpstreamTimeout(f"No connection to the {who} within {connect_s:g} s.", phase="connect")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return UpstreamUnreachable(f"The host name of the {who} cannot be resolved.", hint="Check its base_url.")
    if isinstance(error, aiohttp.ClientSSLError):
        return UpstreamUnreachable(f"TLS with the {who} failed.", hint="Check its base_url and certificate.")
    if isinstance(error, ConnectionRefusedError | aiohttp.ClientConnectorError):
        return UpstreamUnreachable(f"The {who} refused the connection.", hint="Is it running?")
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError | aiohttp.ClientOSError):
        return UpstreamUnreachable(f"The {who} closed the connection before it answered.")
    return UpstreamBadReply(f"The {who} did not answer in HTTP.")


def _broken(error: Exception) -> UpstreamError:
    logger.info("an upstream's answer broke off: %r", error)
    return UpstreamBadReply("The upstream's answer broke off before it was complete.")
