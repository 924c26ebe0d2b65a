"""A recipe: which models are merged how. Reads mergekit's YAML as it is, plus a few extensions of our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from merge_backends import methods
from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.settings_by_tensor import Setting, read_settings

UNSUPPORTED_METHODS = (
    *("nuslerp", "multislerp", "karcher", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties"),
    *("sce", "ram", "ramplus_tl", "model_stock", "nearswap", "arcee_fusion", "core_space", "cabs"),
)
"""What mergekit has and we have not."""
ALIASES = {"pareto_moe": "pareto"}
"""Other names of our own methods."""
DTYPES = ("float32", "float16", "bfloat16", "float64")
_TOP = {
    *("merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype", "name"),
    *("tokenizer_source", "tokenizer", "chat_template", "seed", "max_relative_change", "adaptation"),
}
_LIMITED = {"tokens": "mapping single tokens", "pad_to_multiple_of": "padding the vocabulary"}


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A local folder, or the name of an earlier document, with or without a LoRA on top."""

    path: str
    lora: str | None = None

    def __str__(self) -> str:
        return f"{self.path}+{self.lora}" if self.lora else self.path


@dataclass(frozen=True, slots=True)
class Source:
    """One input of a slice: a model, the layers `[first, last)` of it (None: all), and its own parameters."""

    model: ModelReference
    layers: tuple[int, int] | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Layers that are merged together."""

    sources: tuple[Source, ...]
    base_model: ModelReference | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One document. `is_stack` tells whether it was given as slices; parameters of a module are in `module`."""

    method: str
    slices: tuple[Slice, ...]
    is_stack: bool
    base_model: ModelReference | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    module: Mapping[str, Setting] = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: ModelReference | str | None = None
    chat_template: str | None = None
    name: str | None = None
    seed: int = 0
    max_relative_change: float = 0.8
    adaptation: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_data(self) -> bool:
        """Whether every expert comes with example texts."""
        sources = [source for part in self.slices for source in part.sources if source.model != self.base_model]
        return bool(sources) and all(source.data for source in sources)

    @property
    def models(self) -> tuple[ModelReference, ...]:
        """Every model named, the base first, each once."""
        found = [self.base_model] if self.base_model else []
        for part in self.slices:
            found += [part.base_model] if part.base_model else []
            found += [source.model for source in part.sources]
        return tuple(dict.fromkeys(found))


def load_recipes(path: Path) -> list[Recipe]:
    """The documents of a recipe file, in the order in which they must be built.

    Raises:
        RecipeError: the file cannot be read, or asks for what is not supported.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {str(path)!r} cannot be read: {error}.", "Give a YAML file.") from None
    return parse_recipes(text)


def parse_recipes(text: str) -> list[Recipe]:
    """As `load_recipes`, from text. Documents after the first are separated by `---` and refer to names.

    Raises:
        RecipeError: not YAML, two documents of one name, more than one without a name, or a circle of names.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise RecipeError(f"The recipe is not YAML: {error}.") from None
    if not documents:
        raise RecipeError("The recipe is empty.", "Give merge_method and models.")
    recipes = [parse_recipe(document) for document in documents]
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice is None:
        raise RecipeError("Two documents of the recipe have no name.", "Give every document but the last a `name`.")
    if twice:
        raise RecipeError(f"Two documents of the recipe are named {twice!r}.", "Give each its own name.")
    return _in_order(recipes)


def parse_recipe(document: Any) -> Recipe:
    """One recipe from its YAML value.

    Raises:
        RecipeError: naming the key that is wrong or not supported.
    """
    if not isinstance(document, dict):
        raise RecipeError(f"A recipe is a mapping, and this is {type(document).__name__}.")
    for key in document:
        if key not in _TOP:
            raise UnknownNameError("key of a recipe", str(key), _TOP)
    method = check_method(document.get("merge_method"))
    given = [key for key in ("models", "slices", "modules") if document.get(key)]
    if len(given) != 1:
        raise RecipeError(f"A recipe has exactly one of models, slices and modules; this one has {given or 'none'}.")
    body, module = _body(document)
    base = _reference(document["base_model"], "base_model") if document.get("base_model") else None
    slices = _slices(body)
    if len(slices) > 1 and method not in ("passthrough", "linear", "slerp", *_TASK_VECTOR):
        raise RecipeError(f"The merge method {method!r} does not take several slices.", "Give `models`.")
    return Recipe(
        method=method,
        slices=slices,
        is_stack="slices" in body,
        base_model=base,
        parameters=read_settings(document.get("parameters"), "parameters"),
        module=module,
        dtype=_dtype(document, "dtype"),
        out_dtype=_dtype(document, "out_dtype"),
        tokenizer_source=_tokenizer_source(document),
        chat_template=_chat_template(document.get("chat_template")),
        name=None if document.get("name") is None else str(document["name"]),
        seed=_whole(document.get("seed", 0), "seed"),
        max_relative_change=_positive(document.get("max_relative_change", 0.8), "max_relative_change"),
        adaptation=_mapping(document.get("adaptation"), "adaptation"),
        raw=document,
    )


_TASK_VECTOR = ("task_arithmetic", "ties", "dare_linear", "dare_ties")


def check_method(name: Any) -> str:
    """The name of a merge method or mixture that there is.

    Raises:
        RecipeError: for a method of mergekit that is not supported.
        UnknownNameError: for any other.
    """
    from merge_backends import moe

    if not isinstance(name, str):
        raise RecipeError("The recipe has no merge_method.", f"Choose one of: {', '.join(methods.names())}.")
    if name in UNSUPPORTED_METHODS:
        raise RecipeError(
            f"The merge method {name!r} of mergekit is not supported.",
            "Merge with mergekit itself and register the folder it writes, or choose ties, dare_ties or slerp.",
        )
    name = ALIASES.get(name, name)
    known = {*methods.names(), *moe.METHODS}
    if name not in known:
        raise UnknownNameError("merge method", name, known)
    return str(name)


def _body(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Setting]]:
    """Where models or slices are given, and the parameters of the one module."""
    if not document.get("modules"):
        return document, {}
    modules = document["modules"]
    if not isinstance(modules, dict) or len(modules) != 1:
        raise RecipeError(
            "A recipe with several `modules` is not supported.", "Merge models of one module, or use mergekit itself."
        )
    name, body = next(iter(modules.items()))
    _keys(body, {"models", "slices", "parameters"}, f"modules.{name}")
    if bool(body.get("models")) == bool(body.get("slices")):
        raise RecipeError(f"`modules.{name}` must have either models or slices.")
    return body, read_settings(body.get("parameters"), f"modules.{name}.parameters")


def _slices(body: dict[str, Any]) -> tuple[Slice, ...]:
    if not body.get("slices"):
        return (Slice(tuple(_source(raw, f"models[{n}]", ranged=False) for n, raw in _list(body, "models"))),)
    slices = []
    for number, raw in _list(body, "slices"):
        where = f"slices[{number}]"
        _keys(raw, {"sources", "base_model", "parameters", "residual_weight"}, where)
        if raw.get("residual_weight") is not None:
            raise RecipeError(f"`{where}.residual_weight` is not supported.", "Leave it out.")
        sources = tuple(_source(one, f"{where}.sources[{n}]", ranged=True) for n, one in _list(raw, "sources"))
        lengths = {source.layers[1] - source.layers[0] for source in sources if source.layers}
        if len(lengths) != 1:
            raise RecipeError(f"The sources of `{where}` have {sorted(lengths)} layers.", "Give all the same number.")
        base = _reference(raw["base_model"], f"{where}.base_model") if raw.get("base_model") else None
        slices.append(Slice(sources, base, read_settings(raw.get("parameters"), f"{where}.parameters")))
    return tuple(slices)


def _source(raw: Any, where: str, *, ranged: bool) -> Source:
    _keys(raw, {"model", "parameters", "layer_range"} if ranged else {"model", "parameters", "data"}, where)
    if "model" not in raw:
        raise RecipeError(f"`{where}` has no model.")
    layers = None
    if ranged:
        span = raw.get("layer_range")
        whole = isinstance(span, list) and len(span) == 2 and all(type(end) is int for end in span)
        if not whole or not 0 <= span[0] < span[1]:
            raise RecipeError(f"`{where}.layer_range` is {span!r}.", "Give [first, last), whole numbers, ascending.")
        layers = (span[0], span[1])
    data = raw.get("data")
    if data is not None and not isinstance(data, dict):
        data = {"file": str(data)}
    model = _reference(raw["model"], f"{where}.model")
    return Source(model, layers, read_settings(raw.get("parameters"), f"{where}.parameters"), data)


def _reference(raw: Any, where: str) -> ModelReference:
    """mergekit's ways to name a model: `path`, `path+lora`, `{model, lora}` with `{path, revision}` inside."""
    if isinstance(raw, str) and raw:
        model, _, lora = raw.partition("+")
        if "+" in lora:
            raise RecipeError(f"`{where}` is {raw!r}.", "Give at most one +lora.")
        return ModelReference(_local(model, where), _local(lora, where) if lora else None)
    if isinstance(raw, dict):
        if "path" in raw:
            return ModelReference(_local(raw, where))
        _keys(raw, {"model", "lora", "override_architecture"}, where)
        if raw.get("override_architecture"):
            raise RecipeError(f"`{where}.override_architecture` is not supported.", "Edit the model's config.json.")
        adapter = raw.get("lora")
        return ModelReference(_local(raw.get("model"), where), _local(adapter, where) if adapter else None)
    raise RecipeError(f"`{where}` is {raw!r}.", "Give the folder of a model.")


def _local(raw: Any, where: str) -> str:
    if isinstance(raw, dict):
        _keys(raw, {"path", "revision"}, where)
        if raw.get("revision"):
            raise RecipeError(f"`{where}.revision` is not supported.", "Download the model and give its folder.")
        raw = raw.get("path")
    if not isinstance(raw, str) or not raw:
        raise RecipeError(f"`{where}` is {raw!r}.", "Give the folder of a model.")
    return raw


def _tokenizer_source(document: dict[str, Any]) -> ModelReference | str | None:
    source, block = document.get("tokenizer_source"), document.get("tokenizer")
    if source and block:
        raise RecipeError("A recipe has tokenizer_source or tokenizer, not both.")
    if block:
        _keys(block, {"source", *_LIMITED}, "tokenizer")
        for key, what in _LIMITED.items():
            if block.get(key):
                raise RecipeError(f"`tokenizer.{key}` ({what}) is not supported.", "Merge models of one tokenizer.")
        source = block.get("source")
    return source if source in (None, "base", "union") else _reference(source, "tokenizer_source")


def _chat_template(raw: Any) -> str | None:
    if raw is None or (isinstance(raw, str) and ("{" in raw or raw == "auto")):
        return raw
    raise RecipeError(
        f"`chat_template` {raw!r} is not supported by name.", "Give the Jinja template itself, or leave it out."
    )


def _dtype(document: dict[str, Any], key: str) -> str | None:
    value = document.get(key)
    name = None if value is None else str(value).removeprefix("torch.")
    if name is not None and name not in DTYPES:
        raise UnknownNameError(f"{key}", name, DTYPES)
    return name


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise RecipeError(f"`{where}` is {value!r}.", "Give a mapping of settings.")
    return dict(value or {})


def _whole(value: Any, where: str) -> int:
    if type(value) is not int:
        raise RecipeError(f"`{where}` is {value!r}.", "Give a whole number.")
    return value


def _positive(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise RecipeError(f"`{where}` is {value!r}.", "Give a positive number.")
    return float(value)


def _keys(raw: Any, known: set[str], where: str) -> None:
    if not isinstance(raw, dict):
        raise RecipeError(f"`{where}` is {raw!r}.", f"Give a mapping with {', '.join(sorted(known))}.")
    for key in raw:
        if key not in known:
            raise UnknownNameError(f"key of `{where}`", str(key), known)


def _list(body: dict[str, Any], key: str) -> list[tuple[int, Any]]:
    value = body.get(key)
    if not isinstance(value, list) or not value:
        raise RecipeError(f"`{key}` is {value!r}.", "Give a list.")
    return list(enumerate(value))


def _in_order(recipes: list[Recipe]) -> list[Recipe]:
    """Documents after those whose results they use; the unnamed one last."""
    waiting = sorted(recipes, key=lambda recipe: recipe.name is None)
    names = {recipe.name for recipe in recipes if recipe.name}
    done: list[Recipe] = []
    while waiting:
        built = {recipe.name for recipe in done}
        ready = [r for r in waiting if all(m.path in built or m.path not in names for m in r.models)]
        if not ready:
            raise RecipeError(f"The documents {sorted(str(r.name) for r in waiting)} use each other in a circle.")
        done.append(ready[0])
        waiting.remove(ready[0])
    return done
