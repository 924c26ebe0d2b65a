"""Which headers cross the gateway, in both directions. Pure."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterable, Mapping

from gateway.upstreams.base import RawHeaders

# The caller's key, cookies and the SDK's own x-stainless-* stay here; so does everything that is not named.
_FORWARDED = frozenset(
    {
        b"traceparent",
        b"tracestate",
        b"baggage",
        b"idempotency-key",
        b"x-client-request-id",
        b"accept-language",
    }
)
_FORWARDED_PREFIXES = (b"openai-", b"anthropic-")

# Hop-by-hop headers, what this server writes itself, and what belongs to the provider's own site.
_KEPT_BACK = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"content-encoding",
        b"content-type",
        b"vary",
        b"date",
        b"server",
        b"set-cookie",
        b"alt-svc",
        b"nel",
        b"report-to",
        b"strict-transport-security",
    }
)
_KEPT_BACK_PREFIXES = (b"access-control-", b"x-orbweaver-")
_MOST_NAMES = 2000
_decided: dict[bytes, bytes | None] = {}


def forwarded_headers(inbound: Mapping[bytes, bytes]) -> dict[str, str]:
    """The caller's headers that go on to the upstream; names are lower case already."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in inbound.items()
        if name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES)
    }


def relayed_headers(outbound: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The upstream's headers that go back to the caller, names in lower case."""
    kept = []
    for name, value in outbound:
        known = _decided.get(name, name)
        if known is name and name not in _decided:
            known = _decide(name)
        if known is not None:
            kept.append((known, value))
    return kept


def _decide(name: bytes) -> bytes | None:
    lower = name.lower()
    kept = None if lower in _KEPT_BACK or lower.startswith(_KEPT_BACK_PREFIXES) else lower
    if len(_decided) < _MOST_NAMES:
        _decided[name] = kept
    return kept


def find_header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """The first value of a header; `wanted` in lower case."""
    for name, value in headers:
        if len(name) == len(wanted) and name.lower() == wanted:
            return value
    return None


def retry_after_s(headers: RawHeaders) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (number or date), None where neither is usable."""
    text = find_header(headers, b"retry-after-ms")
    if text is not None:
        try:
            return max(0.0, float(text) / 1e3)
        except ValueError:
            pass
    text = find_header(headers, b"retry-after")
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        moment = email.utils.parsedate_tz(text.decode("latin-1"))
        return max(0.0, email.utils.mktime_tz(moment) - time.time()) if moment else None
