"""What the admin API takes and gives, as pydantic models: they are its documentation in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.registry.keys import Amount, BudgetPeriod, Count, KeyName, ModelName
from gateway.registry.records import Ability, Endpoint
from gateway.settings import CandidateSettings, DeploymentSettings


class Strict(BaseModel):
    """Unknown fields are an error: a mistyped limit must not be taken for none."""

    model_config = ConfigDict(extra="forbid")


class AptitudeWish(Strict):
    """How a candidate shall be measured; what is left out has the usual value. `fresh` asks everything anew."""

    suite: str | None = None
    seed: int | None = None
    budget: Annotated[int, Field(ge=1)] | None = Field(None, description="Questions at most (default 100).")
    full: bool = Field(False, description="Ask the whole suite.")
    max_usd: Annotated[float, Field(gt=0)] | None = None
    max_calls: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    call_s: Annotated[float, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    suite_data: str | None = Field(None, description="Folder with the suite's texts, on the gateway's machine.")
    circle: bool = Field(True, description="Hard choice items must be right with rotated options too.")
    probes: bool = Field(True, description="Also find out what the endpoint can do.")
    fresh: bool = False


class NewModel(CandidateSettings):
    """A candidate, described as in the config file, with what is known of it already."""

    profile: dict[str, Any] | None = Field(None, description="A capability profile, if one is known.")
    aptitude: AptitudeWish | None = None


class ModelChange(Strict):
    """Fields to change; null takes a value away."""

    base_url: str | None = None
    upstream_model: str | None = None
    provider: str | None = None
    api_key_env: str | None = None
    deployments: list[DeploymentSettings] | None = None
    price_in: Amount | None = None
    price_out: Amount | None = None
    price_cached_in: Amount | None = None
    context_window: Count | None = None
    max_output_tokens: Count | None = None
    can: list[Ability] | None = None
    endpoints: list[Endpoint] | None = None
    strength: Annotated[float, Field(ge=0, le=1)] | None = None
    family: str | None = None
    params_total_b: float | None = None
    params_active_b: float | None = None
    release_date: str | None = None
    region: str | None = None
    enabled: bool | None = None


class DeploymentOut(BaseModel):
    """One place where a model is served; `key_is_set` is null where it needs no key."""

    id: str
    base_url: str
    upstream_model: str
    provider: str
    api_key_env: str | None
    weight: float
    key_is_set: bool | None
    health: dict[str, Any] | None


class ModelOut(BaseModel):
    """A candidate as it stands. Prices in USD per million tokens, windows in tokens."""

    name: str
    deployments: list[DeploymentOut]
    price_in: float | None
    price_out: float | None
    price_cached_in: float | None
    context_window: int | None
    max_output_tokens: int | None
    can: list[str]
    endpoints: list[str]
    strength: float | None
    family: str | None
    params_total_b: float | None
    params_active_b: float | None
    release_date: str | None
    region: str | None
    enabled: bool
    source: str
    measured: bool
    note: str | None
    warnings: list[str] = []
    job: str | None = None


class ModelList(BaseModel):
    """All candidates, switched-off ones too, at one version of the registry."""

    version: int
    models: list[ModelOut]


class ProbeOut(BaseModel):
    """One real call and what came of it; times in seconds."""

    deployment: str
    stream: bool
    ok: bool
    status: int | None
    duration_s: float
    first_token_s: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    reply: str
    answered_as: str | None
    error: str | None
    hint: str | None


class TestOut(BaseModel):
    """The outcome of `models test`; `ok` only where every call was answered."""

    __test__ = False
    model: str
    ok: bool
    probes: list[ProbeOut]


class Removed(BaseModel):
    """What was removed, and what is in force under that name now."""

    name: str
    note: str | None = None


class KeyChange(Strict):
    """Fields to change; null takes a limit away."""

    name: KeyName | None = None
    models: list[ModelName] | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    budget_usd: Amount | None = None
    budget_period: BudgetPeriod | None = None


class KeyOut(BaseModel):
    """A client key; the key itself is known to its owner only."""

    id: str
    name: str
    prefix: str
    models: list[str]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    budget_usd: float | None
    budget_period: str
    revoked: bool
    created_at: float


class CreatedKey(KeyOut):
    """A new key with its secret, which is shown this once."""

    key: str
    warnings: list[str] = []


class KeyList(BaseModel):
    keys: list[KeyOut]


class JobOut(BaseModel):
    """One piece of long-running work."""

    id: str
    kind: str
    subject: str
    state: str
    progress: dict[str, Any]
    error: str | None
    created_at: float
    updated_at: float
    finished_at: float | None


class JobList(BaseModel):
    jobs: list[JobOut]


class DecisionList(BaseModel):
    """Decisions, newest first: what was asked of whom, why, and what came of it. Never a prompt."""

    decisions: list[dict[str, Any]]


class UsageRow(BaseModel):
    """Sums of one key, model and period; `key_id` is empty for requests without a key."""

    key_id: str
    model: str
    period: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_usd: float
    baseline_cost_usd: float


class UsageOut(BaseModel):
    period: str
    usage: list[UsageRow]
