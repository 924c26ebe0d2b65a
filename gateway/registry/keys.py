"""Makes and changes client keys from plain fields, with what their operator should know. Used by admin API and CLI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.config_file import explain
from gateway.errors import InvalidBody
from gateway.registry.records import ClientKey
from gateway.registry.registry import Registry

KeyName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
ModelName = Annotated[str, Field(min_length=1, max_length=128)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
BudgetPeriod = Literal["total", "day", "month"]


class NewKey(BaseModel):
    """A client key to make. Limits left out mean unlimited; no `models` means all."""

    model_config = ConfigDict(extra="forbid")
    name: KeyName
    models: list[ModelName] = []
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    budget_usd: Amount | None = None
    budget_period: BudgetPeriod = "total"


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key; `secret` is shown once."""

    key: ClientKey
    secret: str
    warnings: tuple[str, ...] = ()


def read_key(fields: Mapping[str, Any]) -> NewKey:
    """Check the fields of a new key. Raises InvalidBody with one line for each wrong field."""
    try:
        return NewKey.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["loc"]
        raise InvalidBody("\n".join(explain(error, NewKey)), param=str(first[0]) if first else None) from None


async def create_key(registry: Registry, new: NewKey) -> MadeKey:
    """Make a key with the given name, models and limits."""
    models = frozenset(new.models)
    draft = ClientKey(id="", key_hash="", prefix="", **{**new.model_dump(), "models": models})
    taken = [key for key in registry.snapshot.keys.values() if key.name == draft.name and not key.revoked]
    warnings = _unknown_models(registry, models)
    if taken:
        warnings.append(f"Another key in force is named {draft.name!r}; tell them apart by id.")
    key, secret = await registry.create_key(draft)
    return MadeKey(key, secret, tuple(warnings))


async def change_key(registry: Registry, key_id: str, changes: Mapping[str, Any]) -> ClientKey:
    """Change some fields of a key. None takes a limit away; name and period then stay. Raises NotFound."""
    values = {
        name: value for name, value in changes.items() if value is not None or name not in ("name", "budget_period")
    }
    if "models" in values:
        values["models"] = frozenset(values["models"] or ())
    return await registry.change_key(key_id, **values)


def _unknown_models(registry: Registry, models: Iterable[str]) -> list[str]:
    known = registry.snapshot.candidates
    routed = {name for name in models if name == "auto" or name.startswith("auto:")}
    return [f"No candidate is named {name!r} yet." for name in sorted(set(models) - set(known) - routed)]
