"""Who may use `/admin`: the holder of the admin key, or, where there is none, a person on this very machine."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import Request

from gateway.errors import Forbidden, Unauthorized
from gateway.services import Services

# Any of these says that somebody else's request was passed on to us.
FORWARDING_HEADERS = ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")
SET_A_KEY = "Start the gateway with ORBWEAVER_ADMIN_KEY set and send that key as `Authorization: Bearer <key>`."


async def guard(request: Request) -> None:
    """Let an administrator pass. Raises Unauthorized or Forbidden."""
    services: Services = request.app.state.services
    expected = services.settings.admin_key
    if expected is not None and expected.get_secret_value():
        check_key(request.headers, expected.get_secret_value())
        return
    host = request.client.host if request.client is not None else ""
    reason = why_not_local(services.settings.server.host, host, request.headers)
    if reason is not None:
        raise Forbidden(f"Without an admin key, admin answers on this machine only: {reason}.", hint=SET_A_KEY)


def check_key(headers: Mapping[str, str], expected: str) -> None:
    """Compare the presented key in constant time. Raises Unauthorized."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    presented = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
    if not presented:
        raise Unauthorized("Admin needs its key, and none was sent.", hint="Send `Authorization: Bearer <key>`.")
    if not hmac.compare_digest(presented.encode("utf-8", "replace"), expected.encode()):
        raise Unauthorized("This is not the admin key.", hint="It is the gateway's ORBWEAVER_ADMIN_KEY.")


def why_not_local(listens_on: str, peer: str, headers: Mapping[str, str]) -> str | None:
    """Why a request without a key cannot be trusted to come from a person on this machine; None if it can.

    Args:
        listens_on: the address the gateway was told to listen on.
        peer: the other end of the connection.
        headers: lower-case names.
    """
    if not is_loopback(listens_on):
        return f"the gateway listens on {listens_on}"
    if not is_loopback(peer):
        return "the request comes from elsewhere"
    if any(name in FORWARDING_HEADERS or name.startswith("x-forwarded-") for name in headers):
        return "the request came through a proxy"
    host = headers.get("host", "")
    if not is_loopback(_host_name(host)):
        # A page of a foreign site can have its name resolve to 127.0.0.1 and call us from a browser here.
        return f"the request is addressed to {host[:100]!r}"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return f"the request comes from a page of {origin[:100]!r}"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "the request comes from a page of another site"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
