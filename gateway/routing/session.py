"""Sessions: which model a conversation is with. The policy is pure; the store is bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.routing.policy import Ranked

MAX_SESSIONS = 100_000


@dataclass(frozen=True, slots=True)
class Stay:
    """Keep the session's model: the rule that says so, and why."""

    rule: Literal["session", "tool_loop"]
    reason: str


def stay(current: Ranked | None, best: Ranked, *, in_tool_loop: bool, sticky: bool, switch_price: float) -> Stay | None:
    """Whether a conversation stays with its model.

    Inside a tool loop it does while the model is eligible at all: another model did not make that call. Otherwise
    a change must gain more than `switch_price`, which stands for the lost prompt cache and the hand-off penalty
    (arXiv:2603.03111 measures -8..+13 points for one hand-off).

    Args:
        current: the session's model as ranked now; None where it is not eligible (down, filtered, removed).
    """
    if current is None or current.name == best.name:
        return None
    if in_tool_loop:
        return Stay("tool_loop", f"{current.name} made the tool call and answers it")
    gain = best.utility - current.utility
    if sticky and gain <= switch_price:
        return Stay("session", f"{best.name} would gain {gain:.3f}, less than the switch price {switch_price:.3f}")
    return None


class SessionStore(Protocol):
    """Remembers which model answered a session last. Implementations must bound memory and waits."""

    async def get(self, session: str) -> str | None: ...

    async def put(self, session: str, model: str) -> None: ...

    async def close(self) -> None: ...


class MemorySessions:
    """Sessions of one process: least recently used ones go first, and those idle for `ttl_s` seconds."""

    def __init__(self, ttl_s: float, clock: Callable[[], float], limit: int = MAX_SESSIONS) -> None:
        self._ttl_s, self._clock, self._limit = ttl_s, clock, limit
        self._models: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def get(self, session: str) -> str | None:
        found = self._models.get(session)
        if found is None:
            return None
        model, until = found
        if self._clock() >= until:
            del self._models[session]
            return None
        return model

    async def put(self, session: str, model: str) -> None:
        self._models[session] = (model, self._clock() + self._ttl_s)
        self._models.move_to_end(session)
        while len(self._models) > self._limit:
            self._models.popitem(last=False)

    async def close(self) -> None:
        """Nothing is open."""
