"""Turns the stored zoo (one base, low-rank changes) into checkpoints that transformers loads, in a folder of its own.

`W + B A` is summed in float64 and rounded once, so that every machine gets the same bits; digests are checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merge_backends.errors import CheckpointError

HERE = Path(__file__).parent
STORED = HERE / "weights"
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")
METADATA = {"format": "pt"}


def read_manifest() -> dict[str, Any]:
    """What the zoo consists of: files with their hashes, models with their digests and measured accuracies.

    Raises:
        CheckpointError: the manifest is missing.
    """
    path = HERE / "manifest.json"
    if not path.is_file():
        raise CheckpointError("The bundled zoo has no manifest.", fix="Train it: python -m merge_backends.zoo.train")
    manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return manifest


def check_files(manifest: Mapping[str, Any]) -> None:
    """Compare every stored file with its hash.

    Raises:
        CheckpointError: one is missing or is not what the manifest says.
    """
    for name, facts in manifest["files"].items():
        _check_file(STORED / name, facts["sha256"])


def _check_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.", fix="Restore the file from the repository.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise CheckpointError(f"{path} is damaged: its hash is {found[:12]}.", fix="Restore the file.")


def base_weights(stored_in: Path = STORED) -> dict[str, Tensor]:
    """The base in float32, by the names of a transformers checkpoint (exact: it is stored in bfloat16)."""
    stored = load_file(stored_in / "base.safetensors")
    return {f"model.{name}": value.float() for name, value in stored.items()}


def expert_weights(skill: str, base: Mapping[str, Tensor], stored_in: Path = STORED) -> dict[str, Tensor]:
    """All weights of an expert: the base's own tensors where nothing changed, else `W + B A`."""
    change = load_file(stored_in / f"{skill}.safetensors")
    weights = dict(base)
    for name in sorted(key.removesuffix(".up") for key in change if key.endswith(".up")):
        delta = change[f"{name}.up"].double() @ change[f"{name}.down"].double()
        weights[f"{name}.weight"] = (base[f"{name}.weight"].double() + delta).float()
    return weights


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and contents, in order of name."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        hasher.update(name.encode())
        hasher.update(weights[name].contiguous().numpy().tobytes())
    return hasher.hexdigest()


def expand(folder: Path) -> dict[str, Path]:
    """Checkpoints of all models of the zoo below `folder`, made where they are not there yet (a few seconds).

    Returns:
        Folder by short name (`base`, `arithmetic`, ..., `wemoe`).
    Raises:
        CheckpointError: a stored file is damaged, or an expanded model is not what the manifest says.
    """
    manifest = read_manifest()
    target = folder / manifest["digest"][:16]
    if not target.is_dir():
        check_files(manifest)
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".expanding-", dir=folder))
        try:
            _expand_into(scratch, manifest)
            # Another process may have been quicker: its result is the same.
            with contextlib.suppress(OSError):
                os.rename(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return {name: target / name for name in manifest["models"]}


def _expand_into(folder: Path, manifest: Mapping[str, Any]) -> None:
    from merge_backends.zoo.mixtures import ROUTER_FILE, build_smile, build_wemoe, merged_weights

    base = base_weights()
    experts = {name: expert_weights(name, base) for name in manifest["experts"]}
    for name, weights in {"base": base, **experts}.items():
        if digest(weights) != manifest["models"][name]["digest"]:
            raise CheckpointError(f"The zoo's {name!r} does not expand to what the manifest says.")
        save_checkpoint(weights, folder / name)
    # Sums of many tensors may round otherwise on another machine, so these are checked by what they are made of.
    save_checkpoint(merged_weights(base, list(experts.values()), manifest["merge_scale"]), folder / "merge")
    shared = load_file(folder / "base" / "model.safetensors")
    smile = build_smile(load_model(base), base, list(experts.values()))
    _save_mixture(folder / "smile", smile, shared)
    wemoe = build_wemoe(load_model(base), base, list(experts.values()), STORED / ROUTER_FILE)
    _save_mixture(folder / "wemoe", wemoe, shared)


def save_checkpoint(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write weights as a folder that transformers loads, with configuration and tokenizer."""
    folder.mkdir()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors", METADATA)
    for file in COPIED:
        shutil.copyfile(STORED / file, folder / file)


def _save_mixture(folder: Path, model: torch.nn.Module, base: Mapping[str, Tensor]) -> None:
    from merge_backends.moe.store import save_mixture

    save_mixture(folder, model, base=base, copies=[STORED / file for file in COPIED if file != "config.json"])


def load_model(weights: Mapping[str, Tensor]) -> torch.nn.Module:
    """A causal LM of the zoo's shape holding `weights`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig.from_pretrained(STORED))
    model.load_state_dict(dict(weights), strict=False)
    model.tie_weights()
    return model.eval()
