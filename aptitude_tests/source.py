"""The border to whatever answers: a Protocol and the plain values that cross it. The gateway hands its own layer in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aptitude_tests.item import Reply, ToolCall

#: `rate_limited`, `unreachable`, `timeout` and `server` may pass; `unauthorized` and `unknown_model` hold for every
#: call; `refused` and `bad_reply` may be about this one question only.
FailureKind = Literal[
    "rate_limited", "unreachable", "timeout", "server", "unauthorized", "unknown_model", "refused", "bad_reply"
]
PASSING: frozenset[FailureKind] = frozenset({"rate_limited", "unreachable", "timeout", "server", "bad_reply"})
FATAL: frozenset[FailureKind] = frozenset({"unauthorized", "unknown_model"})


class AskFailure(Exception):
    """A call that brought no answer.

    Args:
        kind: decides whether it is tried again, left out, or ends the run.
        message: what went wrong, in the server's words where it said some.
        hint: what would fix it.
        retry_after_s: how long the server asks to wait.
    """

    def __init__(
        self, kind: FailureKind, message: str, *, hint: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Question:
    """One chat completion to ask for. `fields` are those of OpenAI's request, without model, stream and limits."""

    fields: Mapping[str, Any]
    max_tokens: int
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back. Times in seconds; tokens None where the server does not report them.

    Attributes:
        finish: the server's finish reason, `length` where the answer was cut.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    duration_s: float = 0.0

    @property
    def reply(self) -> Reply:
        """The part that is graded."""
        return Reply(self.text, self.tool_calls)


class AnswerSource(Protocol):
    """A model behind an endpoint. `identity` names the model and where it is served, for the store of answers."""

    @property
    def identity(self) -> str: ...

    async def ask(self, question: Question, limit_s: float) -> Completion:
        """One call within `limit_s` seconds. Raises AskFailure; never asks twice by itself where that could bill."""
        ...


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens; None where not declared."""

    price_in: float | None = None
    price_out: float | None = None

    @property
    def known(self) -> bool:
        """Whether money can be counted."""
        return self.price_in is not None or self.price_out is not None

    def cost_usd(self, completion: Completion, question: Question) -> float | None:
        """What a call cost; unreported tokens count four characters each. None where no price is known."""
        if not self.known:
            return None
        sent, got = completion.prompt_tokens, completion.completion_tokens
        sent = text_length(question) // 4 if sent is None else sent
        got = len(completion.text) // 4 if got is None else got
        return (sent * (self.price_in or 0.0) + got * (self.price_out or 0.0)) / 1e6


def text_length(question: Question) -> int:
    """Characters of text in the messages of a question; pictures count as nothing."""
    total = 0
    for message in question.fields.get("messages", ()):
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        total += sum(len(part.get("text") or "") for part in parts if isinstance(part, Mapping))
    return total
