"""One error tree. Every error says what was wrong, with which value, and what would fix it.

OrbweaverError
|-- ConfigError                 the config file or environment is wrong (start-up, CLI)
|-- RequestError                the caller's request is wrong (4xx)
|   |-- InvalidBody             400  malformed JSON, wrong type, missing field
|   |-- BodyTooLarge            413
|   |-- RequestTimeout          408  the client sent its body too slowly
|   |-- Unauthorized            401  no key, wrong key, revoked key
|   |-- Forbidden               403  key not allowed for this
|   |-- NotFound                404  unknown model, path or record
|   |-- MethodNotAllowed        405
|   |-- Conflict                409  the name is taken
|   `-- LimitExceeded           429  rate limit or budget of a client key
|-- RoutingError                no candidate can take this request (4xx or 503)
|-- UpstreamError               a provider failed before the first byte
|   |-- UpstreamUnreachable     502  connect refused, DNS, TLS
|   |-- UpstreamTimeout         504  connect, first token, idle or total limit
|   |-- UpstreamRefused         the provider answered with an error status (relayed as it came)
|   `-- UpstreamBadReply        502  HTML, broken JSON or a broken stream
|-- RegistryError               500/503  the registry cannot be read or written
`-- Overloaded                  503  the gateway itself is at its limit
`gateway/api/errors.py` alone maps these to the wire.
"""

from __future__ import annotations


class OrbweaverError(Exception):
    """Base of every error Orbweaver raises on purpose.

    Args:
        message: one sentence with the offending value.
        hint: what would fix it, one sentence; appended to the message on the wire.
        code: machine-readable, snake_case; the OpenAI name where one exists.
        param: the request field at fault, if any.
    """

    status = 500
    type = "server_error"
    default_code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code if code is not None else self.default_code
        self.param = param
        self.retry_after_s = retry_after_s
        if status is not None:
            self.status = status

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigError(OrbweaverError):
    """The configuration cannot be used; the message names the key and the fix."""

    default_code = "invalid_config"


class RequestError(OrbweaverError):
    status = 400
    type = "invalid_request_error"


class InvalidBody(RequestError):
    default_code = "invalid_body"


class BodyTooLarge(RequestError):
    status = 413
    default_code = "request_too_large"


class RequestTimeout(RequestError):
    status = 408
    default_code = "request_timeout"


class Unauthorized(RequestError):
    status = 401
    default_code = "invalid_api_key"


class Forbidden(RequestError):
    status = 403
    type = "permission_error"
    default_code = "permission_denied"


class NotFound(RequestError):
    status = 404
    default_code = "not_found"


class MethodNotAllowed(RequestError):
    status = 405
    default_code = "method_not_allowed"


class Conflict(RequestError):
    status = 409
    default_code = "already_exists"


class LimitExceeded(RequestError):
    """A client key is over a rate limit (`rate_limit_exceeded`) or its budget (`insufficient_quota`)."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class RoutingError(OrbweaverError):
    """No candidate can take the request; the message names the rule that emptied the set."""

    status = 400
    type = "invalid_request_error"
    default_code = "no_candidate"


class UpstreamError(OrbweaverError):
    """`attempts` lists `(model, deployment id, outcome)` of all tries, where it ends a request."""

    attempts: tuple[tuple[str, str, str], ...] = ()
    status = 502
    type = "upstream_error"
    default_code = "upstream_error"


class UpstreamUnreachable(UpstreamError):
    default_code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """`phase` is one of connect, first_token, idle, total."""

    status = 504
    default_code = "upstream_timeout"

    def __init__(self, message: str, *, phase: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.phase = phase


class UpstreamRefused(UpstreamError):
    """The provider answered with an error status; body and headers are relayed as they came."""

    default_code = "upstream_refused"


class UpstreamBadReply(UpstreamError):
    default_code = "upstream_bad_reply"


class RegistryError(OrbweaverError):
    default_code = "registry_error"


class Overloaded(OrbweaverError):
    status = 503
    default_code = "overloaded"
