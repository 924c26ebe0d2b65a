"""Errors of the engine as OpenAI's clients expect them: a status and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any

from merge_backends.errors import IncompatibleError, MemoryBudgetError, MergeError, RecipeError, UnknownNameError


class EngineError(Exception):
    """A request that is not answered.

    Args:
        message: what was wrong, with the value, and what would fix it.
        status: of the HTTP answer.
        code: machine-readable; OpenAI's name where there is one.
        param: the request field at fault.
        retry_after_s: when to try again, for 429 and 503.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def type(self) -> str:
        """OpenAI's error type for the status."""
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    @property
    def headers(self) -> dict[str, str]:
        """`retry-after` where it is known."""
        return {} if self.retry_after_s is None else {"retry-after": f"{self.retry_after_s:g}"}

    def body(self) -> dict[str, Any]:
        """The JSON that clients read."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def invalid(param: str, message: str, code: str = "invalid_value") -> EngineError:
    """A field with a wrong value."""
    return EngineError(message, code=code, param=param)


def unsupported(param: str, message: str) -> EngineError:
    """A field that OpenAI has and this engine refuses."""
    return EngineError(message, code="unsupported_parameter", param=param)


def unknown_model(name: str, message: str = "") -> EngineError:
    """404 as OpenAI says it."""
    said = message or f"The model {name!r} does not exist here; GET /v1/models lists what does."
    return EngineError(said, status=404, code="model_not_found", param="model")


def context_exceeded(tokens: int, limit: int) -> EngineError:
    """The prompt alone fills the context."""
    return EngineError(
        f"This model's maximum context length is {limit} tokens. However, your messages resulted in {tokens} tokens. "
        "Please reduce the length of the messages.",
        code="context_length_exceeded",
        param="messages",
    )


def from_merging(error: MergeError) -> EngineError:
    """An error of merging or of a checkpoint, seen by a client that named the model."""
    if isinstance(error, UnknownNameError):
        return unknown_model(error.name, str(error))
    if isinstance(error, MemoryBudgetError):
        return EngineError(str(error), status=413, code="memory_budget_exceeded", param="model")
    if isinstance(error, RecipeError | IncompatibleError):
        return EngineError(str(error), code="invalid_recipe", param="model")
    return EngineError(str(error), status=500, code="model_unusable", param="model")
