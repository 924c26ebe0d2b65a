"""Frozen records of the registry that everybody may import: candidates, deployments, client keys. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Ability(StrEnum):
    """What a candidate can be asked beyond plain text. `auto` filters on these; a named model is never filtered."""

    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"
    VISION = "vision"
    AUDIO = "audio"
    LOGPROBS = "logprobs"
    N = "n"


class Endpoint(StrEnum):
    """The data-plane endpoints, by the path below `/v1`."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"


Source = Literal["config", "registry", "discovered"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """One place where a candidate is served.

    `provider` is `openai` for every OpenAI-compatible server (bytes are relayed); any other value is a litellm
    provider name. `api_key_env` names an environment variable; the key itself is never stored.
    """

    id: str
    base_url: str
    upstream_model: str
    provider: str = "openai"
    api_key_env: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that requests can be routed to. Prices in USD per million tokens, windows in tokens.

    `strength` (0..1) is the operator's declared prior, used only until measurements exist.
    """

    name: str
    deployments: tuple[Deployment, ...]
    price_in: float | None = None
    price_out: float | None = None
    price_cached_in: float | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    can: frozenset[Ability] = frozenset()
    endpoints: frozenset[Endpoint] = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES})
    strength: float | None = None
    family: str | None = None
    params_total_b: float | None = None
    params_active_b: float | None = None
    release_date: str | None = None
    region: str | None = None
    enabled: bool = True
    source: Source = "registry"


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A client's key: only its SHA-256 is kept. Limits of None mean unlimited; an empty `models` means all.

    `budget_usd` is for `budget_period` (`total` never resets; the others reset at UTC boundaries).
    """

    id: str
    name: str
    key_hash: str
    prefix: str
    models: frozenset[str] = field(default_factory=frozenset)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget_usd: float | None = None
    budget_period: Literal["total", "day", "month"] = "total"
    revoked: bool = False
    created_at: float = 0.0
