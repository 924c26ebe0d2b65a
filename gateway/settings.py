"""Settings: one strict YAML file plus a few environment variables. The only module that reads the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from gateway.registry.records import Ability, Candidate, Deployment, Endpoint

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(Section):
    host: str = Field("127.0.0.1", description="Address to listen on. Loopback unless you say otherwise.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 picks a free one.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes.")
    client_keys: Literal["optional", "required"] = Field(
        "optional",
        description="Whether a client must present a key. Once any key exists, one that is presented must be good.",
    )
    max_body_bytes: int = Field(32 * 2**20, ge=1024, description="Largest request body, in bytes.")
    body_timeout_s: Positive = Field(30.0, description="Longest pause between two pieces of a request body.")
    drain_s: float = Field(30.0, ge=0, description="How long open streams may go on after SIGTERM.")
    max_in_flight: int = Field(2000, ge=1, description="Requests in flight above which new ones get 503.")


class TimeoutSettings(Section):
    connect_s: Positive = Field(10.0, description="Until the connection to the upstream stands.")
    first_token_s: Positive = Field(120.0, description="Until the first real token; pings and roles do not count.")
    answer_s: Positive = Field(300.0, description="Until a unary answer, where another candidate could be asked.")
    idle_s: Positive = Field(60.0, description="Longest silence between two pieces of an answer.")
    total_s: Positive = Field(600.0, description="The whole call, retries and fallbacks included.")


class RetrySettings(Section):
    retries: int = Field(1, ge=0, le=5, description="Further tries of one candidate after a failure that may pass.")
    backoff_s: float = Field(0.1, ge=0, description="First pause before a retry; doubles, with jitter.")
    max_fallbacks: int = Field(3, ge=0, le=20, description="How many other candidates `auto` may try.")


class CircuitSettings(Section):
    failures: int = Field(5, ge=1, description="Failures in a row that open a deployment's circuit.")
    cooldown_s: Positive = Field(15.0, description="First cooldown of an open circuit; doubles up to max_cooldown_s.")
    max_cooldown_s: Positive = Field(300.0, description="Longest cooldown, also for `retry-after`.")


class CandidateSettings(Section):
    """A candidate as declared in the config file."""

    name: str = Field(pattern=NAME_PATTERN, description="What clients call it.")
    base_url: str | None = Field(None, description="Where it is served, up to and including `/v1`.")
    upstream_model: str | None = Field(None, description="The provider's own name; the candidate's name if left out.")
    provider: str = Field("openai", description="`openai` for every OpenAI-compatible server, else a litellm provider.")
    api_key_env: str | None = Field(None, description="Environment variable that holds the provider's key.")
    deployments: tuple[DeploymentSettings, ...] = Field((), description="Several places that serve this one model.")
    price_in: float | None = Field(None, ge=0, description="USD per million input tokens.")
    price_out: float | None = Field(None, ge=0, description="USD per million output tokens.")
    price_cached_in: float | None = Field(None, ge=0, description="USD per million cached input tokens.")
    context_window: int | None = Field(None, ge=1, description="Tokens of prompt and answer together.")
    max_output_tokens: int | None = Field(None, ge=1, description="Longest answer it can give, in tokens.")
    can: frozenset[Ability] = Field(
        frozenset(), description="What it can do beyond text; `auto` sends it nothing that needs more."
    )
    endpoints: frozenset[Endpoint] = Field(
        frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES}), description="Endpoints that it serves."
    )
    strength: Probability | None = Field(None, description="Declared prior quality, used until it is measured.")
    family: str | None = Field(None, description="The maker's series, for example llama-3.")
    params_total_b: float | None = Field(None, gt=0, description="Billions of parameters.")
    params_active_b: float | None = Field(None, gt=0, description="Billions of parameters used for one token.")
    release_date: str | None = Field(None, description="YYYY-MM or YYYY-MM-DD.")
    region: str | None = Field(None, description="Where it runs.")
    enabled: bool = Field(True, description="Whether it takes part.")

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name == "auto" or name.startswith("auto:"):
            raise ValueError(f"the name {name!r} is reserved for routing; choose another")
        return name

    @model_validator(mode="after")
    def _served_somewhere(self) -> CandidateSettings:
        if not self.base_url and not self.deployments and self.provider == "openai":
            raise ValueError(f"candidate {self.name!r} needs base_url or deployments")
        return self

    def to_candidate(self, source: Literal["config", "registry", "discovered"] = "config") -> Candidate:
        """The record that the rest of the gateway works with."""
        places = self.deployments or (
            DeploymentSettings(
                base_url=self.base_url,
                upstream_model=self.upstream_model,
                provider=self.provider,
                api_key_env=self.api_key_env,
            ),
        )
        deployments = tuple(
            Deployment(
                id=f"{self.name}#{index}",
                base_url=(place.base_url or self.base_url or "").rstrip("/"),
                upstream_model=place.upstream_model or self.upstream_model or self.name,
                provider=place.provider or self.provider,
                api_key_env=place.api_key_env or self.api_key_env,
                weight=place.weight,
            )
            for index, place in enumerate(places)
        )
        own = set(Candidate.__dataclass_fields__) & set(type(self).model_fields) - {"deployments"}
        return Candidate(deployments=deployments, source=source, **{name: getattr(self, name) for name in own})


class DeploymentSettings(Section):
    """One of several places that serve a candidate; what is left out is taken from the candidate."""

    base_url: str | None = Field(None, description="Where this one is served.")
    upstream_model: str | None = Field(None, description="Its name there.")
    provider: str | None = Field(None, description="Its dialect.")
    api_key_env: str | None = Field(None, description="Variable with its key.")
    weight: Positive = Field(1.0, description="Its share of the requests.")


class RoutingSettings(Section):
    default: str | None = Field(None, description="The model that answers where routing cannot tell candidates apart.")
    quality: Probability = Field(0.7, description="1 = best answer at any price, 0 = cheapest that will do.")
    baseline: str | None = Field(None, description="Model against which savings are counted; the dearest if left out.")
    switch_price: float = Field(0.02, ge=0, le=1, description="Utility a change of model inside a session must gain.")
    session_ttl_s: Positive = Field(1800.0, description="How long a session remembers its model.")
    sticky: bool = Field(True, description="Keep a session's model unless another gains more than switch_price.")
    abstain: bool = Field(True, description="Go to the default where the scores cannot be told apart.")
    scorer: Literal["auto", "prior"] = Field(
        "auto", description="`auto`: the trained encoder where it can be loaded; `prior`: declared figures alone."
    )
    artifact: Path | None = Field(None, description="Folder of the encoder artefact; the shipped one if left out.")
    abstain_margin: float = Field(0.0, ge=0, le=1, description="Utility a choice must gain over the default.")
    novelty_limit: float = Field(0.98, ge=0, le=1, description="Novelty of a prompt from which the default answers.")
    time_price: float = Field(0.001, ge=0, le=1, description="Utility that a second of expected answer time costs.")
    fast_time_price: float = Field(0.05, ge=0, le=1, description="The same for `auto:fast`.")
    explore: float = Field(0.0, ge=0, le=0.2, description="Share of new conversations sent to a random candidate.")


class TelemetrySettings(Section):
    store_prompts: bool = Field(False, description="Keep request texts in the decision log. Off: hashes and features.")
    keep_decisions: int = Field(100_000, ge=100, description="Decisions kept in the registry; the oldest go first.")
    otlp_endpoint: str | None = Field(None, description="OTLP/HTTP endpoint for traces, e.g. http://127.0.0.1:4318.")
    access_log: bool = Field(False, description="One log line for each request.")
    stream_usage: Literal["auto", "always", "never"] = Field(
        "auto", description="Ask upstreams for the usage of streams: auto = where the client key has limits on it."
    )
    router_usd_per_cpu_hour: float = Field(
        0.04, ge=0, description="Price of a CPU hour, to count the router's own work against what it saves."
    )


class Settings(Section):
    """Everything that can be configured. `load_settings` builds it."""

    server: ServerSettings = ServerSettings()
    candidates: tuple[CandidateSettings, ...] = ()
    routing: RoutingSettings = RoutingSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    retry: RetrySettings = RetrySettings()
    circuit: CircuitSettings = CircuitSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    database_url: str | None = Field(None, description="SQLAlchemy URL; SQLite in the state folder if left out.")
    redis_url: str | None = Field(None, description="Redis for limits, health and sessions of several replicas.")
    discover: bool = Field(True, description="With no candidate configured: look for provider keys and local servers.")
    zoo: Literal["auto", "on", "off"] = Field(
        "auto", description="The bundled small models: `auto` runs them where `discover` finds no candidate configured."
    )
    allow_private_networks: bool = Field(True, description="Let candidates live on private addresses (10/8, ...).")
    allow_link_local: bool = Field(False, description="Let candidates live on link-local and metadata addresses.")
    state_dir: Path = Field(Path(".orbweaver"), description="Folder for everything the gateway remembers.")
    suite_data: Path | None = Field(None, description="Folder with the texts of aptitude suites that are not bundled.")
    admin_key: SecretStr | None = Field(None, exclude=True, description="Set by ORBWEAVER_ADMIN_KEY only.")

    @field_validator("admin_key", mode="before")
    @classmethod
    def _never_in_a_file(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("the admin key comes from the environment variable ORBWEAVER_ADMIN_KEY, never from a file")
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> Settings:
        names = [candidate.name for candidate in self.candidates]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"two candidates are named {name!r}; use `deployments` for several places of one model"
                )
        return self

    @property
    def registry_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.state_dir / 'registry.db'}"

    @property
    def shares_registry(self) -> bool:
        """Whether gateways on other machines may use the same registry."""
        return not self.registry_url.startswith("sqlite")


def read_secret(name: str | None) -> str | None:
    """The value of an environment variable that holds a key; None where it is not set or empty."""
    return (os.environ.get(name) or None) if name else None


def default_gateway_url() -> str:
    """Where the command line looks for a running gateway: ORBWEAVER_URL, else loopback at the usual port."""
    port = os.environ.get("ORBWEAVER_PORT") or os.environ.get("PORT") or "8080"
    return os.environ.get("ORBWEAVER_URL") or f"http://127.0.0.1:{port}"


def environment() -> dict[str, str]:
    """A copy of the environment, for discovery of provider keys and for child processes."""
    return dict(os.environ)


ENVIRONMENT: dict[str, str] = {
    "ORBWEAVER_CONFIG": "Config file, where --config is not given.",
    "ORBWEAVER_STATE_DIR": "Folder for everything the gateway remembers (default .orbweaver).",
    "ORBWEAVER_ADMIN_KEY": "Key that guards /admin; without it admin answers on loopback only.",
    "ORBWEAVER_DATABASE_URL": "Registry database, e.g. postgresql://user@host/db.",
    "ORBWEAVER_REDIS_URL": "Redis for limits, health and sessions of several replicas.",
    "ORBWEAVER_SUITE_DATA": "Folder with prompts.parquet, for aptitude suites whose texts are not bundled.",
    "ORBWEAVER_HOST": "Address to listen on.",
    "ORBWEAVER_PORT": "TCP port (PORT is read too).",
    "ORBWEAVER_WORKERS": "Worker processes.",
    "ORBWEAVER_API_KEY": "Client key with which the CLI calls the gateway.",
    "ORBWEAVER_URL": "Gateway that the CLI talks to (default http://127.0.0.1:8080).",
}


def load_settings(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read the config file and the environment; later sources win: file, environment, `overrides`.

    Args:
        path: YAML file; ORBWEAVER_CONFIG or ./orbweaver.yaml if None (and built-in defaults where neither exists).
        overrides: dotted keys such as `server.port`, from the command line.
    Raises:
        ConfigError: naming the key, the value and the fix.
    """
    from gateway.config_file import read_config, validate

    data = read_config(path or _default_path())
    for key, value in {**_from_environment(), **(overrides or {})}.items():
        if value is not None:
            *sections, leaf = key.split(".")
            place = data
            for section in sections:
                place = place.setdefault(section, {})
            place[leaf] = value
    admin_key = os.environ.get("ORBWEAVER_ADMIN_KEY")
    return validate(data, SecretStr(admin_key) if admin_key else None)


def _default_path() -> Path | None:
    named = os.environ.get("ORBWEAVER_CONFIG")
    if named:
        return Path(named)
    usual = Path("orbweaver.yaml")
    return usual if usual.is_file() else None


def _from_environment() -> dict[str, Any]:
    read = os.environ.get
    return {
        "state_dir": read("ORBWEAVER_STATE_DIR"),
        "database_url": read("ORBWEAVER_DATABASE_URL"),
        "redis_url": read("ORBWEAVER_REDIS_URL"),
        "suite_data": read("ORBWEAVER_SUITE_DATA"),
        "server.host": read("ORBWEAVER_HOST"),
        "server.port": read("ORBWEAVER_PORT") or read("PORT"),
        "server.workers": read("ORBWEAVER_WORKERS"),
    }


CandidateSettings.model_rebuild()
Settings.model_rebuild()
