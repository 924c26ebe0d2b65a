"""One small HTTP call from the command line to a gateway, with errors that say what to do."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from gateway.errors import ConfigError, OrbweaverError
from gateway.settings import default_gateway_url, read_secret

TIMEOUT_S = 60.0


def post(url: str | None, path: str, body: dict[str, Any], *, key_env: str | None = None) -> dict[str, Any]:
    """POST JSON and read JSON. Raises OrbweaverError with the gateway's own message, or how to start it."""
    return call("POST", url, path, body, key_env=key_env)


def call(
    method: str,
    url: str | None,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    key_env: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """One call with a JSON answer. `key_env` names the variable of the key (default ORBWEAVER_API_KEY).

    Raises:
        OrbweaverError: with the gateway's own message, or how to start it.
    """
    base = (url or default_gateway_url()).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise ConfigError(f"{base!r} is not an http address.", hint="For example http://127.0.0.1:8080.")
    key = read_secret(key_env or "ORBWEAVER_API_KEY")
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, headers, method=method)  # noqa: S310 - scheme checked
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310 - scheme checked above
            answer: dict[str, Any] = json.load(reply)
            return answer
    except urllib.error.HTTPError as error:
        raise _refusal(error) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise OrbweaverError(
            f"No gateway answers at {base} ({getattr(error, 'reason', error)}).",
            hint="Start one with `orbweaver serve`, or name it with --url or ORBWEAVER_URL.",
        ) from None


def _refusal(error: urllib.error.HTTPError) -> OrbweaverError:
    try:
        detail = json.load(error)["error"]
        return OrbweaverError(detail["message"], code=detail.get("code"), param=detail.get("param"), status=error.code)
    except (ValueError, KeyError, TypeError):
        return OrbweaverError(f"The gateway answered {error.code} {error.reason}.", status=error.code)
