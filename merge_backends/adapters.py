"""LoRA adapters as pairs of factors, read from and written to PEFT's folders, and their exact sum."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from merge_backends.checkpoint import inside
from merge_backends.errors import CheckpointError, IncompatibleError, RecipeError

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?:(?P<embedding>embedding_)(?P<half>[AB])|(?P<linear>[AB])\.weight)$")
Layout = Literal["linear", "transposed", "embedding"]


class LowRank(NamedTuple):
    """A change of one weight in its own layout: `up @ down`, `(rows, rank) @ (rank, columns)`, scale included."""

    up: Tensor
    down: Tensor
    layout: Layout = "linear"

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    def dense(self) -> Tensor:
        """The change itself, float32."""
        return self.up.float() @ self.down.float()


@dataclass(frozen=True, eq=False)
class LoraAdapter(Mapping[str, Tensor]):
    """Low-rank changes by the name of the weight they change; as a mapping, the dense changes, made when asked for."""

    targets: Mapping[str, LowRank]
    name: str = "adapter"
    config: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.targets[name].dense()

    def __iter__(self) -> Iterator[str]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def open(cls, path: str | Path, *, allowed: Sequence[Path] | None = None) -> LoraAdapter:
        """Reads a PEFT folder; alpha / rank (or alpha / sqrt(rank), rsLoRA) is folded into the factors, in float32.

        Raises:
            CheckpointError: no such folder, pickle only, outside `allowed`, broken, or NaN.
            RecipeError: the adapter is more than products of two factors (DoRA, trained biases, whole modules).
        """
        folder = inside(Path(path), allowed)
        try:
            config = json.loads((folder / CONFIG).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder} has no readable {CONFIG}: {error}.", "Save the adapter again.") from None
        if not (folder / TENSORS).is_file():
            raise CheckpointError(
                f"{folder} has no {TENSORS}.", "Save the adapter as safetensors; pickles are not read."
            )
        _refuse_more_than_lora(config, folder)
        halves = _read_halves(inside(folder / TENSORS, [folder]))
        targets = {}
        for module, found in sorted(halves.items()):
            if set(found) - {"embedding"} != {"A", "B"}:
                raise CheckpointError(f"The adapter {folder} has one factor only for {module!r}.", "Save it again.")
            targets[f"{module}.weight"] = _low_rank(module, found, config)
        if not targets:
            raise CheckpointError(f"The adapter {folder} holds no factors.", "Save the adapter again.")
        return cls(targets, folder.name, config)

    def save(self, folder: Path, base_model: str = "") -> None:
        """Writes a new PEFT folder whose alpha equals its rank everywhere, so that its scale is 1."""
        folder.mkdir(parents=True)
        tensors: dict[str, Tensor] = {}
        ranks: dict[str, int] = {}
        layouts = {pair.layout for pair in self.targets.values()}
        if {"linear", "transposed"} <= layouts:
            raise RecipeError("The adapter mixes transposed and plain weights, which one PEFT folder cannot say.")
        for target, pair in self.targets.items():
            module = target.removesuffix(".weight")
            a, b = (pair.down, pair.up) if pair.layout == "linear" else (pair.up.T, pair.down.T)
            names = ("embedding_A", "embedding_B") if pair.layout == "embedding" else ("A.weight", "B.weight")
            for half, value in zip(names, (a, b), strict=True):
                tensors[f"{_PREFIX}{module}.lora_{half}"] = value.clone(memory_format=torch.contiguous_format)
            ranks[module] = pair.rank
        config = {
            "peft_type": "LORA", "base_model_name_or_path": base_model or self.config.get("base_model_name_or_path"),
            "target_modules": sorted(ranks), "r": max(ranks.values()), "lora_alpha": max(ranks.values()),
            "rank_pattern": ranks, "alpha_pattern": ranks, "fan_in_fan_out": "transposed" in layouts,
            "bias": "none", "lora_dropout": 0.0, "use_rslora": False, "use_dora": False, "inference_mode": True,
            "task_type": self.config.get("task_type"),
        }  # fmt: skip
        save_file(tensors, str(folder / TENSORS), metadata={"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def combine(adapters: Sequence[LoraAdapter], weights: Sequence[float], rank: int | None = None) -> LoraAdapter:
    """One adapter that changes the base by exactly the weighted sum of the adapters' changes.

    Ranks are concatenated (`[w1 B1 | w2 B2] [A1; A2]`), so no product of one adapter's B with another's A appears
    and ranks may differ. `rank` cuts the sum down to the nearest change of that rank: the one lossy option.

    Raises:
        IncompatibleError: two adapters see one weight in different shapes or layouts.
    """
    parts: dict[str, list[LowRank]] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for target, pair in adapter.targets.items():
            parts.setdefault(target, []).append(LowRank(pair.up.float() * weight, pair.down.float(), pair.layout))
    targets = {}
    for target, pairs in parts.items():
        if len({(pair.up.shape[0], pair.down.shape[1], pair.layout) for pair in pairs}) > 1:
            raise IncompatibleError(
                f"The adapters do not agree on the shape of {target!r}.", "Combine adapters of one base model."
            )
        joined = LowRank(
            torch.cat([pair.up for pair in pairs], 1), torch.cat([pair.down for pair in pairs]), pairs[0].layout
        )
        targets[target] = joined if rank is None or joined.rank <= rank else truncate(joined, rank)
    config = adapters[0].config if adapters else {}
    return LoraAdapter(targets, "+".join(adapter.name for adapter in adapters), config)


def truncate(pair: LowRank, rank: int) -> LowRank:
    """The nearest change of at most `rank` in the Frobenius norm, by the SVD of the small core, never of the matrix."""
    left, left_core = torch.linalg.qr(pair.up.double())
    right, right_core = torch.linalg.qr(pair.down.double().T)
    u, s, vh = torch.linalg.svd(left_core @ right_core.T)
    kept = min(rank, int(s.shape[0]))
    root = s[:kept].sqrt()
    up = left @ u[:, :kept] * root
    down = (root[:, None] * vh[:kept]) @ right.T
    return LowRank(up.float(), down.float(), pair.layout)


@dataclass(frozen=True, eq=False)
class AdaptedWeights(Mapping[str, Tensor]):
    """A base with an adapter applied, tensor by tensor: lets every merge method take `model+lora` as an expert.

    Raises:
        IncompatibleError: on making, if the adapter does not fit the base.
    """

    base: Mapping[str, Tensor]
    adapter: LoraAdapter

    def __post_init__(self) -> None:
        check_fit(self.base, self.adapter)

    def __getitem__(self, name: str) -> Tensor:
        value = self.base[name]
        return (value.float() + self.adapter[name]).to(value.dtype) if name in self.adapter.targets else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)


def check_fit(base: Mapping[str, Tensor], adapter: LoraAdapter) -> None:
    """Raises IncompatibleError unless every weight the adapter changes is in the base with that shape."""
    for target, pair in adapter.targets.items():
        shape = (int(pair.up.shape[0]), int(pair.down.shape[1]))
        if target not in base:
            raise IncompatibleError(
                f"The adapter {adapter.name!r} changes {target!r}, which the base model does not have.",
                "Use the base model that the adapter was trained on.",
            )
        own = tuple(base[target].shape)
        if own != shape:
            raise IncompatibleError(
                f"The adapter {adapter.name!r} changes {target!r} of shape {shape}; the base has {own}.",
                "Use the base model that the adapter was trained on.",
            )


def _refuse_more_than_lora(config: Mapping[str, Any], folder: Path) -> None:
    """Names the settings under which the change is no product of two factors."""
    refused = [
        key for key in ("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices") if config.get(key)
    ]
    if config.get("bias", "none") != "none":
        refused.append("bias")
    if config.get("peft_type", "LORA") != "LORA":
        refused.append(f"peft_type {config['peft_type']}")
    if refused:
        raise RecipeError(
            f"The adapter {folder} uses {', '.join(refused)}, which has no exact sum.", "Use plain LoRA adapters."
        )


def _read_halves(file: Path) -> dict[str, dict[str, Tensor]]:
    """Factors by module: A, B and, for embeddings, a mark. Nothing in the file is left unread."""
    halves: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(str(file), framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118  (a safetensors handle is no dict)
                found = _FACTOR.match(name.removeprefix(_PREFIX))
                if found is None:
                    raise RecipeError(
                        f"The adapter holds {name!r}, which is no LoRA factor.", "Use plain LoRA adapters."
                    )
                tensor = handle.get_tensor(name)
                if not bool(torch.isfinite(tensor).all()):
                    raise CheckpointError(f"The tensor {name!r} of {file} holds NaN or infinity.", "Train it again.")
                own = halves.setdefault(found["module"], {})
                own[found["half"] or found["linear"]] = tensor
                if found["embedding"]:
                    own["embedding"] = tensor
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.", "Save the adapter again.") from None
    return halves


def _low_rank(module: str, halves: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRank:
    """Scaled factors in the layout of the weight they change; PEFT stores A `(rank, in)` and B `(out, rank)`."""
    a, b = halves["A"].float(), halves["B"].float()
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
        raise CheckpointError(
            f"The factors of {module!r} do not fit: {tuple(b.shape)} times {tuple(a.shape)}.", "Save the adapter again."
        )
    rank = int(a.shape[0])
    alpha = float(_of_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    if "embedding" in halves:
        return LowRank(a.T, b.T * scale, "embedding")
    if config.get("fan_in_fan_out"):
        return LowRank(a.T, b.T * scale, "transposed")
    return LowRank(b * scale, a)


def _of_pattern(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """PEFT's per-module setting: a key is a regular expression for the end of the module's name."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
