"""From a plan to a folder: streams the merged tensors to disk, beside config, tokenizer, card and lineage."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_backends import digests
from merge_backends.errors import BuildError, RecipeError
from merge_backends.licences import require_export
from merge_backends.lineage import FILE, make_lineage, model_card, verdict_of
from merge_backends.memory import spoken
from merge_backends.plan import Plan, make_plan
from merge_backends.recipe import Recipe
from merge_backends.sources import OpenModel, open_model
from merge_backends.writer import SHARD_BYTES, CheckpointWriter, sweep

if TYPE_CHECKING:
    import torch

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja"),
)
MODEL_FILES = (
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)


@dataclass(frozen=True, slots=True)
class Options:
    """How to build.

    Args:
        allowed: folders that models must lie in; None allows all.
        budget: bytes of memory; None takes what the machine has.
        export: refuse where the parents' licences do not allow the result to be passed on.
        allow_unknown_licence: with `export`, let unknown licences pass.
        shard_bytes: size at which a new file is begun.
        device: where tensors are merged, as `cuda`.
    """

    allowed: Sequence[Path] | None = None
    budget: int | None = None
    export: bool = False
    allow_unknown_licence: bool = False
    shard_bytes: int = SHARD_BYTES
    device: str = "cpu"


def build_all(recipes: Sequence[Recipe], target: Path, *, root: Path, options: Options | None = None) -> dict[str, Any]:
    """Builds the documents of a recipe file in order; the last one becomes `target`, the others do not stay.

    Returns:
        The lineage of the target.

    Raises:
        MergeError: and nothing is left at `target`.
    """
    options = options or Options()
    if target.exists():
        raise BuildError(f"{str(target)!r} exists already.", "Choose another folder, or remove it first.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"{str(target.parent)!r} cannot be made: {error.strerror}.", "Choose another folder."
        ) from None
    sweep(target.parent)
    built: dict[str, Path] = {}
    stages: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".part", dir=target.parent) as scratch:
        for number, recipe in enumerate(recipes):
            is_last = number == len(recipes) - 1
            plan = make_plan(
                recipe,
                root=root,
                allowed=options.allowed,
                budget=options.budget,
                built=built,
                device=options.device,
            )
            place = target if is_last else Path(scratch) / str(recipe.name)
            record = build(plan, place, root=root, options=options if is_last else Options(), stages=stages)
            if is_last:
                return record
            built[str(recipe.name)] = place
            stages[str(recipe.name)] = record
    raise RecipeError("The recipe is empty.")


def content_key(recipes: Sequence[Recipe], *, root: Path, allowed: Sequence[Path] | None = None) -> str:
    """Name of what the documents of a recipe file give: the hash of the plan, or of all documents and their models.

    Raises:
        MergeError: as `make_plan`; later documents are checked when they are built.
    """
    if len(recipes) == 1:
        return make_plan(recipes[0], root=root, allowed=allowed).hash.replace(":", "-")
    stages = {recipe.name for recipe in recipes}
    given = {reference for recipe in recipes for reference in recipe.models if reference.path not in stages}
    models = {str(each): open_model(each, root=root, allowed=allowed).digest for each in given}
    return digests.of_value({"documents": [recipe.raw for recipe in recipes], "models": models}).replace(":", "-")


def build(
    plan: Plan,
    target: Path,
    *,
    root: Path = Path(),
    options: Options | None = None,
    stages: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes one plan to a folder that transformers and vLLM load; the lineage is the last file.

    Raises:
        LicenceError: the licences do not allow an export that was asked for.
        BuildError: the target exists, the disk is full, or the merge overflowed.
    """
    options = options or Options()
    verdict = verdict_of(plan)
    if options.export:
        require_export(verdict, allow_unknown=options.allow_unknown_licence)
    _require_room(target, plan.nbytes)
    if plan.kind == "mixture":
        from merge_backends.build_mixture import build_mixture

        return build_mixture(plan, target, root=root, created=now(), copies=copies(plan), stages=stages or {})
    began = time.monotonic()
    layout = {name: (_torch_dtype(dtype), shape) for name, (dtype, shape) in plan.layout.items()}
    contents: list[tuple[str, bytes]] = []
    change = _Change(plan)
    with CheckpointWriter(target, layout, shard_bytes=options.shard_bytes) as writer:
        for name, tensor in merged_tensors(plan, root):
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise BuildError(
                    f"The merged tensor {name!r} overflows in {tensor.dtype}.", "Choose a wider out_dtype."
                )
            contents.append((name, digests.tensor_digest(name, tensor)))
            change.add(name, tensor)
            writer.add(name, tensor)
        metrics = {"seconds": round(time.monotonic() - began, 3), **change.found()}
        record = make_lineage(plan, digest=digests.combine(contents), created=now(), metrics=metrics, stages=stages)
        writer.finish(text_files(plan, record), copies(plan), last=FILE)
    return record


def merged_tensors(plan: Plan, root: Path = Path()) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the result, in the dtypes of the layout, whatever the kind of method.

    Args:
        root: folder that the data files of a method that learns are relative to.
    """
    if plan.kind == "tensors" or plan.method is None:
        yield from plan.tensors()
        return
    from merge_backends.calibration_files import load_calibration

    names = plan.layout
    base = plan.base.weights if plan.base else None
    data = load_calibration(plan, root) if plan.method.needs_data else None
    experts = [model.weights for model in plan.experts]
    for name, tensor in plan.method.merge(base, experts, plan.settings, seed=plan.recipe.seed, data=data):
        if name in names:
            yield name, tensor.to(_torch_dtype(names[name][0]))


def text_files(plan: Plan, record: Mapping[str, Any]) -> dict[str, str]:
    """Config, card, lineage and chat template, by file name."""
    files = {
        "config.json": json.dumps(dict(plan.config), indent=2, sort_keys=True) + "\n",
        "README.md": model_card(record),
        FILE: json.dumps(record, indent=1) + "\n",
    }
    if plan.recipe.chat_template not in (None, "auto"):
        files["chat_template.jinja"] = str(plan.recipe.chat_template)
    return files


def copies(plan: Plan) -> dict[str, Path]:
    """Files that the result takes over from its parents, by their name in the result."""
    made = {"chat_template.jinja"} if plan.recipe.chat_template not in (None, "auto") else set()
    first: OpenModel = plan.base or plan.experts[0]
    found = {}
    for model, names in ((plan.tokenizer, TOKENIZER_FILES), (first, MODEL_FILES)):
        folder = model.checkpoint.path
        found.update({name: folder / name for name in names if (folder / name).is_file() and name not in made})
    for config in first.checkpoint.path.glob("[0-9]_*/config.json"):
        found[f"{config.parent.name}/config.json"] = config
    return found


def now() -> str:
    """The time that goes into the lineage."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Change:
    """How far the result is from the base, as a share of the base's norm, gathered while tensors go by."""

    def __init__(self, plan: Plan) -> None:
        self._base = plan.base.weights if plan.base and plan.recipe.method != "mal" else None
        self._change = self._norm = 0.0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        if self._base is None or name not in self._base or not tensor.is_floating_point():
            return
        start = self._base[name].float()
        if start.shape == tensor.shape:
            self._change += float((tensor.float() - start).double().square().sum())
            self._norm += float(start.double().square().sum())

    def found(self) -> dict[str, float]:
        return {"relative_change": round(math.sqrt(self._change / self._norm), 6)} if self._norm else {}


def _require_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise BuildError(
            f"The result needs {spoken(needed)} of disk and {str(target.parent)!r} has {spoken(free)}.",
            "Free disk space or choose another folder.",
        )


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    found: torch.dtype = getattr(torch, name)
    return found
