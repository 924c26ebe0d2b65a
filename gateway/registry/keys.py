"""Makes and changes client keys from plain fields, with what their operator should know. Used by admin API and CLI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.registry.records import ClientKey
from gateway.registry.registry import Registry


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key; `secret` is shown once."""

    key: ClientKey
    secret: str
    warnings: tuple[str, ...] = ()


async def create_key(registry: Registry, fields: Mapping[str, Any]) -> MadeKey:
    """Make a key with the given name, models and limits (checked by the caller)."""
    models = frozenset(fields.get("models") or ())
    draft = ClientKey(id="", key_hash="", prefix="", **{**fields, "models": models})
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
