"""Reads the YAML config file and turns pydantic's complaints into errors that name the key and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr, ValidationError

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.settings import Settings

MAX_CONFIG_BYTES = 4 * 2**20


def read_config(path: Path | None) -> dict[str, Any]:
    """The file as plain data; empty where there is no file. Raises ConfigError."""
    import yaml

    if path is None:
        return {}
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"The config file {str(path)!r} is larger than 4 MiB.", hint="Is this the right file?")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no config file {str(path)!r}.", hint="Check --config or ORBWEAVER_CONFIG."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {str(path)!r} cannot be read: {error}.") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}.") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of keys, not a {type(data).__name__}.")
    return data


def validate(data: dict[str, Any], admin_key: SecretStr | None) -> Settings:
    """Build `Settings`. Raises ConfigError with one line for each wrong key."""
    from gateway.settings import Settings

    if "admin_key" in data:
        raise ConfigError(
            "`admin_key` cannot stand in a config file.", hint="Set the environment variable ORBWEAVER_ADMIN_KEY."
        )
    try:
        return Settings.model_validate({**data, **({"admin_key": admin_key} if admin_key else {})})
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, Settings))) from None


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each problem: the key's path, what is wrong, with which value, and the fix."""
    return [explain_problem(problem, model) for problem in error.errors(include_url=False)]


def explain_problem(problem: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    """One of pydantic's complaints in one line; `model` is what was validated, for near names."""
    path = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    if problem["type"] == "extra_forbidden" and model is not None:
        known = _known_keys(model, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        fix = f"Did you mean {near[0]!r}?" if near else f"Known keys here: {', '.join(sorted(known))}."
        return f"{path}: there is no such key. {fix}"
    value = problem.get("input")
    shown = "" if isinstance(value, dict | list | BaseModel) or value is None else f" (got {_shortened(repr(value))})"
    return f"{path}: {problem['msg'].removeprefix('Value error, ')}{shown}."


def _shortened(text: str, length: int = 120) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place inside the settings, found by walking the field types."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            return []
        current = section_in(fields[part].annotation)
    return list(getattr(current, "model_fields", {}))


def section_in(annotation: Any) -> Any:
    """The pydantic model inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = section_in(inner)
        if found is not None:
            return found
    return None
