"""Middleware that finds out whose request it is: the client key, checked against the registry's snapshot."""

from __future__ import annotations

from gateway.api.errors import to_response
from gateway.errors import OrbweaverError, RegistryError, Unauthorized
from gateway.middleware.inbound import App, Receive, Scope, Send, inbound_of
from gateway.registry.encoding import hash_secret, is_key_of_ours
from gateway.registry.records import ClientKey
from gateway.services import Services

HINT = "Send `Authorization: Bearer <key>`; keys are made with `orbweaver keys create`."


class ClientKeys:
    """Sets `Inbound.key` for data-plane requests, or answers 401.

    With `client_keys: optional` a request without a key passes, and as long as no key exists at all any key is
    ignored: SDKs insist on sending one. As soon as a key exists, a key that is presented must be a good one. A key of
    our own form is checked always: it was made somewhere, so here its making is only not known yet.
    """

    def __init__(self, app: App, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            inbound = inbound_of(scope)
            if inbound.data_plane:
                try:
                    inbound.key = self._check(inbound.headers)
                except OrbweaverError as error:
                    self._services.metrics.turned_away(error.status)
                    await to_response(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _check(self, headers: dict[bytes, bytes]) -> ClientKey | None:
        registry = self._services.registry
        keys = registry.snapshot.keys
        required = self._services.settings.server.client_keys == "required"
        secret = presented_key(headers)
        if not keys and not required and not (secret and is_key_of_ours(secret)):
            return None
        if secret is None:
            if required:
                raise Unauthorized("This gateway needs a key and none was sent.", hint=HINT)
            return None
        key = keys.get(hash_secret(secret))
        if key is None:
            if not registry.loaded:
                raise RegistryError("Keys cannot be checked: the registry has not been read yet.", status=503)
            raise Unauthorized(f"Incorrect API key provided: {_mask(secret)}.", hint=HINT)
        if key.revoked:
            raise Unauthorized(f"The key {key.name!r} has been revoked.", hint="Ask the operator for a new one.")
        return key


def presented_key(headers: dict[bytes, bytes]) -> str | None:
    """The key of a request: `Authorization: Bearer` (any case), or `api-key` as Azure's clients send it."""
    authorization = headers.get(b"authorization")
    if authorization:
        scheme, _, value = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and value.strip():
            return value.strip().decode("latin-1")
    value = headers.get(b"api-key") or headers.get(b"x-api-key") or b""
    return value.strip().decode("latin-1") or None


def _mask(secret: str) -> str:
    """Enough of a wrong key to recognise it, not enough to use it."""
    return f"{secret[:3]}...{secret[-2:]}" if len(secret) >= 12 else "***"
