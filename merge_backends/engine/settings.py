"""Settings of the engine: one strict YAML file, or the same from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from merge_backends.errors import RecipeError, UnknownNameError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Strict):
    """One served folder: a causal LM, a mixture or a sentence encoder."""

    path: Path
    context_window: int | None = Field(None, ge=8, description="Tokens; the model's own limit by default.")
    base: Path | None = Field(None, description="Of a mixture: the checkpoint that it shares tensors with.")


class MergeFamily(Strict):
    """Merges on request: `model="NAME/merge:expert=0.7,other=0.3"` over declared experts of one base."""

    base: Path
    experts: dict[str, Path] = Field(min_length=1, max_length=32)
    context_window: int | None = Field(None, ge=8, description="Tokens; the base's own limit by default.")
    at_once: int = Field(3, ge=1, description="Experts that one merge may weigh.")


class EngineSettings(Strict):
    """All settings of `orbweaver merge serve`."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535, description="0 picks a free one.")
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    merges: dict[str, MergeFamily] = Field(default_factory=dict)
    recipes: dict[str, Path] = Field(default_factory=dict, description="Recipes built when first asked for.")
    built: Path = Field(Path(".orbweaver/merges"), description="Folder that keeps what recipes built.")
    allowed: list[Path] | None = Field(None, description="Folders that models must lie in, links followed.")
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field("float32", description="auto: as stored.")
    threads: int = Field(1, ge=1, le=256, description="Of torch; more than one only pays on an idle machine.")
    memory_gb: float = Field(4.0, gt=0, description="Weights of loaded models; idle ones are unloaded above it.")
    merges_gb: float = Field(1.0, gt=0, description="Merges on request that are kept ready.")
    kv_gb: float = Field(1.0, gt=0, description="Keys and values of one model's running batch.")
    batch: int = Field(32, ge=1, le=1024, description="Answers that one model computes at once.")
    queue: int = Field(256, ge=1, description="Answers that may wait; more get 429.")
    queue_s: float = Field(60.0, gt=0, description="Seconds that one may wait.")
    answer_s: float = Field(600.0, gt=0, description="Seconds that one may take, waiting included.")
    drain_s: int = Field(30, ge=0, description="Seconds that running answers get after SIGTERM.")
    body_mb: float = Field(8.0, gt=0, description="Largest request body.")
    preload: bool = Field(False, description="Load all models at the start instead of on first use.")

    @field_validator("models", mode="before")
    @classmethod
    def _paths_are_models(cls, value: Any) -> Any:
        """`NAME: DIR` is short for `NAME: {path: DIR}`."""
        if not isinstance(value, Mapping):
            return value
        return {name: {"path": each} if isinstance(each, str | Path) else each for name, each in value.items()}

    @field_validator("models", "merges", "recipes")
    @classmethod
    def _names_are_plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        import re

        wrong = [name for name in value if not re.match(NAME, name) or "/merge:" in name]
        if wrong:
            raise ValueError(f"{wrong[0]!r} cannot be a model's name: letters, digits and . _ : / - are allowed")
        return value


def read_settings(path: Path | None, overrides: Mapping[str, Any] | None = None) -> EngineSettings:
    """Settings from a YAML file, with values of the command line over them.

    Raises:
        RecipeError: unreadable, not YAML, or a wrong value; names the key.
        UnknownNameError: an unknown key; names the near ones.
    """
    stored: dict[str, Any] = {}
    if path is not None:
        try:
            stored = yaml.safe_load(path.read_text("utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RecipeError(f"The engine's config {path} cannot be read: {error}") from error
        if not isinstance(stored, dict):
            raise RecipeError(f"The engine's config {path} must be a mapping.")
        _relative_to(path.parent, stored)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    for section in ("models", "recipes", "merges"):
        stored[section] = {**(stored.get(section) or {}), **given.pop(section, {})}
    return check_settings({**stored, **given})


def check_settings(values: Mapping[str, Any]) -> EngineSettings:
    """Settings from values; errors as in `read_settings`."""
    try:
        return EngineSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            raise UnknownNameError("setting of the engine", key, EngineSettings.model_fields) from error
        raise RecipeError(f"Setting {key} is {first['input']!r}: {first['msg']}.") from error


def named_paths(given: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=PATH` pairs of the command line.

    Raises:
        RecipeError: a pair without a name or a path.
    """
    paths = {}
    for each in given:
        name, _, path = each.partition("=")
        if not name or not path:
            raise RecipeError(f"{option} {each!r} is not NAME=PATH.")
        paths[name] = path
    return paths


def _relative_to(folder: Path, stored: dict[str, Any]) -> None:
    """Relative paths in a file are meant from where the file lies."""

    def placed(value: Any) -> Any:
        return str(folder / value) if isinstance(value, str) else value

    models = stored.get("models")
    if isinstance(models, dict):
        for name, each in models.items():
            if isinstance(each, dict):
                models[name] = {key: placed(value) if key in ("path", "base") else value for key, value in each.items()}
            else:
                models[name] = placed(each)
    for family in (stored.get("merges") or {}).values() if isinstance(stored.get("merges"), dict) else ():
        if isinstance(family, dict):
            family["base"] = placed(family.get("base"))
            if isinstance(family.get("experts"), dict):
                family["experts"] = {name: placed(path) for name, path in family["experts"].items()}
    if isinstance(stored.get("recipes"), dict):
        stored["recipes"] = {name: placed(path) for name, path in stored["recipes"].items()}
    if "built" in stored:
        stored["built"] = placed(stored["built"])
    if isinstance(stored.get("allowed"), list):
        stored["allowed"] = [placed(each) for each in stored["allowed"]]
