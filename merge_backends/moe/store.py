"""Mixtures on disk: one safetensors file and `mixture.json`, written last; experts in the form they have in memory.

A base that is stored elsewhere may be shared: tensors that are bit-equal to the base's are then left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import initialization

from merge_backends.errors import CheckpointError, IncompatibleError
from merge_backends.moe import find
from merge_backends.moe.alignment import Weights, own_tensors
from merge_backends.moe.gates import watch
from merge_backends.moe.mixed import MixedLinear
from merge_backends.moe.mixture import Mixture, mixture_of
from merge_backends.moe.parameters import MixtureParameters, ParetoParameters, SMILEParameters, WEMoEParameters
from merge_backends.moe.pareto import ParetoWeights, blocks_of, set_preference, weights_of
from merge_backends.moe.smile import SMILELinear
from merge_backends.moe.structure import Site, backbone, replace_module
from merge_backends.moe.task_vectors import DenseTaskVectors, SparseTaskVectors, TaskVectors
from merge_backends.moe.wemoe import make_gates, place, routers_of
from merge_backends.router_check import FORMAT as CHECK_FORMAT
from merge_backends.router_check import RouterCheck, attach
from merge_backends.writer import CheckpointWriter

MANIFEST = "mixture.json"
TENSORS = "model.safetensors"
FORMAT = 1
ONE_FILE = 2**62
AGAIN = "Save the mixture again."
OWN_BASE = "Load it with the base it was saved with."


class Manifest(BaseModel):
    """What `mixture.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    method: str
    parameters: dict[str, Any]
    experts: int
    architecture: str
    config: dict[str, Any]
    sites: list[tuple[str, int, str]]
    base: str | None = None
    base_digest: str | None = None
    check_layers: list[int] | None = None
    check_format: int | None = None
    lineage: dict[str, Any] = {}


def save_mixture(
    directory: Path,
    model: nn.Module,
    *,
    base: Weights | None = None,
    base_path: Path | None = None,
    lineage: Mapping[str, Any] | None = None,
    copies: Iterable[Path] = (),
) -> None:
    """Write a mixture; a folder that is there is complete.

    Args:
        directory: must not exist.
        base: weights that will be at hand when it is loaded; what equals them is left out.
        base_path: where they are, recorded for `load_mixture`; its digest is checked then.
        lineage: anything about where it came from.
        copies: files to lay beside it, as a tokenizer's.

    Raises:
        BuildError: the folder exists, or the disk is full.
    """
    mixture = mixture_of(model)
    tensors, check = stored_tensors(model, base=base), mixture.state.get("check")
    manifest = Manifest(
        format=FORMAT,
        method=mixture.method,
        parameters=mixture.parameters.model_dump(),
        experts=mixture.experts,
        architecture=type(model).__name__,
        config=json.loads(model.config.to_json_string(use_diff=False)),
        sites=[astuple(site) for site in mixture.sites],
        base=None if base_path is None else str(base_path),
        base_digest=getattr(base, "digest", None),
        check_layers=list(check.layers) if isinstance(check, RouterCheck) else None,
        check_format=CHECK_FORMAT if isinstance(check, RouterCheck) else None,
        lineage=dict(lineage or {}),
    )
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with CheckpointWriter(directory, layout, shard_bytes=ONE_FILE) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        writer.finish({MANIFEST: manifest.model_dump_json(indent=1)}, copies, last=MANIFEST)


def stored_tensors(model: nn.Module, *, base: Weights | None = None) -> dict[str, Tensor]:
    """What a mixture's file holds, by its names there: each tensor once, sparse ones as bit masks and values.

    Args:
        base: what equals these weights is left out.
    """
    mixture = mixture_of(model)
    tensors = {f"own:{name}": tensor for name, tensor in _own(model, mixture).items() if not _is_in(base, name, tensor)}
    for site in mixture.sites:
        tensors |= {f"site:{site.name}:{leaf}": tensor for leaf, tensor in _site_tensors(model, site).items()}
    tensors |= {f"router:{name}": tensor for name, tensor in router_tensors(model).items()}
    for kind in ("pareto", "check"):
        module = mixture.state.get(kind)
        if isinstance(module, nn.Module):
            tensors |= {f"{kind}:{name}": tensor for name, tensor in module.state_dict().items()}
    return tensors


def load_mixture(directory: Path, *, base: Weights | None = None, allowed: Sequence[Path] | None = None) -> nn.Module:
    """Read a mixture, in evaluation mode; tensors are mapped from the file and read when they are first used.

    Args:
        base: the weights it was saved against; their storage is shared. Without it the recorded path is opened.
        allowed: folders that a recorded path may lie in; None allows any.

    Raises:
        CheckpointError: no mixture, an unknown format, or a damaged file.
        IncompatibleError: another base than the one it was saved against.
    """
    manifest = read_manifest(directory)
    parameters = find(manifest.method).read_parameters(manifest.parameters)
    try:
        with safe_open(directory / TENSORS, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{str(directory / TENSORS)!r} cannot be read: {error}", AGAIN) from error
    model = _skeleton(manifest)
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(":")
        groups.setdefault(kind, {})[rest] = tensor
    sites = [Site(name, layer, "mlp" if part == "mlp" else "attention") for name, layer, part in manifest.sites]
    mixture = Mixture(manifest.method, parameters, manifest.experts, sites)
    _assign(model, {**_gated(groups.get("pareto", {})), **groups.get("own", {})}, _base(manifest, base, allowed))
    try:
        _rebuild(model, mixture, groups)
        if "check" in groups:
            mixture.state["check"] = RouterCheck(manifest.check_layers or [], **groups["check"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{str(directory)!r} lacks tensors: {error}", AGAIN) from error
    model.mixture = mixture
    if isinstance(parameters, ParetoParameters):
        set_preference(model, [1.0] * manifest.experts)
    else:
        watch(backbone(model))
    if "check" in groups:
        attach(model)
    return model.eval()


def read_manifest(directory: Path) -> Manifest:
    """What a folder says of its mixture.

    Raises:
        CheckpointError: it holds none, or one of another format.
    """
    try:
        manifest = Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except OSError as error:
        raise CheckpointError(f"{str(directory)!r} holds no mixture: {error}", f"It needs a {MANIFEST}.") from error
    except ValidationError as error:
        raise CheckpointError(f"{str(directory / MANIFEST)!r} is damaged: {error}", AGAIN) from error
    if manifest.format != FORMAT:
        raise CheckpointError(f"{str(directory)!r} has format {manifest.format}, not {FORMAT}.", AGAIN)
    if manifest.check_layers is not None and manifest.check_format != CHECK_FORMAT:
        raise CheckpointError(
            f"{str(directory)!r} has a router check of format {manifest.check_format}, not {CHECK_FORMAT}.",
            "Build the mixture again.",
        )
    return manifest


def router_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What was learnt: the tensors of the routers, by `index.name`. All that a mixture needs beside its recipe."""
    return {
        f"{index}.{name}": tensor
        for index, router in enumerate(routers_of(model))
        for name, tensor in router.state_dict().items()
    }


def load_routers(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a mixture that was built again the routers it had.

    Raises:
        IncompatibleError: they are of another mixture.
    """
    own = router_tensors(model)
    wrong = {name for name in own if name not in tensors or tensors[name].shape != own[name].shape}
    wrong |= tensors.keys() - own.keys()
    if wrong:
        fix = "Build the mixture with the settings they were trained with."
        raise IncompatibleError(f"The router tensor {min(wrong)!r} does not fit.", fix=fix)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _own(model: nn.Module, mixture: Mixture) -> dict[str, Tensor]:
    """The model's own tensors under the names they had before maps were replaced; what Pareto gates is left out."""
    inside = tuple(f"{site.name}." for site in mixture.sites)
    gated = set(weights_of(model).blocks) if mixture.method == "pareto" else set()
    found = {}
    for name, tensor in own_tensors(model).items():
        site = next((prefix for prefix in inside if name.startswith(prefix)), None)
        if site is None and name not in gated:
            found[name] = tensor.detach()
        elif site is not None and name.startswith(f"{site}base."):
            found[f"{site}{name.removeprefix(f'{site}base.')}"] = tensor.detach()
    return found


def _is_in(base: Weights | None, name: str, tensor: Tensor) -> bool:
    if base is None or name not in base:
        return False
    other = base[name]
    return bool(other.dtype == tensor.dtype and torch.equal(other, tensor.to(other.device)))


def _site_tensors(model: nn.Module, site: Site) -> dict[str, Tensor]:
    module = model.get_submodule(site.name)
    found: dict[str, Tensor] = {}
    bias_deltas = getattr(module, "bias_deltas", None)
    if isinstance(bias_deltas, Tensor):
        found["bias_deltas"] = bias_deltas
    if isinstance(module, SMILELinear):
        return found | {"reduce": module.reduce, "expand": module.expand}
    assert isinstance(module, MixedLinear)
    if isinstance(module.deltas, SparseTaskVectors):
        mask = module.deltas.mask()
        found["mask"] = pack(mask)
        found["shape"] = torch.tensor(mask.shape)
    return found | {"values": module.deltas.values}


def pack(mask: Tensor) -> Tensor:
    """Eight entries of a mask in a byte, the first one in the lowest bit; the last byte is filled with False."""
    bits = mask.flatten().to(torch.uint8)
    bits = torch.nn.functional.pad(bits, (0, -len(bits) % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(dim=1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mask of this shape."""
    bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[: torch.Size(shape).numel()].view(shape).bool()


def _skeleton(manifest: Manifest) -> nn.Module:
    """The empty model; its memory is not touched before it is replaced, its computed buffers are real."""
    kind: Any = getattr(transformers, manifest.architecture, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise CheckpointError(f"{manifest.architecture!r} is no model of transformers.", "Code of others is not run.")
    with initialization.no_init_weights():
        model: nn.Module = kind(kind.config_class.from_dict(manifest.config))  # type: ignore[attr-defined]
    model.tie_weights()
    return model


def _assign(model: nn.Module, own: Mapping[str, Tensor], base: Weights | None) -> None:
    """Put tensors in place without copying; tied parameters stay tied."""
    with torch.no_grad():
        for name, target in own_tensors(model).items():
            if name not in own and (base is None or name not in base):
                raise CheckpointError(f"tensor {name!r} is not in the mixture.", OWN_BASE)
            tensor = own[name] if name in own else base[name]  # type: ignore[index]
            if tensor.shape != target.shape:
                raise IncompatibleError(f"tensor {name!r} has shape {tuple(tensor.shape)}", fix=OWN_BASE)
            target.data = tensor


def _base(manifest: Manifest, base: Weights | None, allowed: Sequence[Path] | None) -> Weights | None:
    if base is None and manifest.base is not None:
        from merge_backends.checkpoint import Checkpoint

        base = Checkpoint.open(manifest.base, allowed=allowed)
    digest = getattr(base, "digest", None)
    if manifest.base_digest is not None and digest is not None and digest != manifest.base_digest:
        raise IncompatibleError(
            f"the base has digest {digest[:12]}, the mixture was saved with {manifest.base_digest[:12]}",
            fix=OWN_BASE,
        )
    return base


def _gated(pareto: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Room for the tensors that a preference will fill: the model must not write into the base's."""
    prefix = "base."
    named = {name.removeprefix(prefix).replace("/", "."): name for name in pareto if name.startswith(prefix)}
    return {name: torch.empty_like(pareto[stored]) for name, stored in named.items()}


def _rebuild(model: nn.Module, mixture: Mixture, groups: Mapping[str, dict[str, Tensor]]) -> None:
    by_site: dict[str, dict[str, Tensor]] = {}
    for name, tensor in groups.get("site", {}).items():
        site_name, _, leaf = name.rpartition(":")
        by_site.setdefault(site_name, {})[leaf] = tensor
    parameters = mixture.parameters
    if isinstance(parameters, WEMoEParameters):
        gates = make_gates(model, mixture.sites, parameters, mixture.experts, seed=0)
        for site in mixture.sites:
            given = by_site[site.name]
            place(model, site, gates[site.layer], _task_vectors(given), given.get("bias_deltas"), parameters)
        load_routers(model, groups["router"])
    elif isinstance(parameters, SMILEParameters):
        for site in mixture.sites:
            given = by_site[site.name]
            linear = model.get_submodule(site.name)
            loaded = SMILELinear(
                linear, given["reduce"], given["expand"], given.get("bias_deltas"), parameters, site.layer
            )
            replace_module(model, site.name, loaded)
    else:
        _rebuild_pareto(model, mixture, parameters, groups["pareto"])


def _rebuild_pareto(
    model: nn.Module, mixture: Mixture, parameters: MixtureParameters, tensors: Mapping[str, Tensor]
) -> None:
    assert isinstance(parameters, ParetoParameters)
    blocks = blocks_of(model, partial=parameters.partial)
    own = own_tensors(model)
    weights = ParetoWeights(
        blocks,
        {name: tensors[f"base.{name.replace('.', '/')}"] for name in blocks},
        {name: tensors[f"deltas.{name.replace('.', '/')}"] for name in blocks},
        {name: tensor.detach() for name, tensor in own.items() if name not in blocks},
        parameters,
        seed=0,
    )
    weights.load_state_dict(dict(tensors))
    mixture.state["pareto"] = weights


def _task_vectors(given: Mapping[str, Tensor]) -> TaskVectors:
    if "mask" not in given:
        return DenseTaskVectors(given["values"])
    shape = tuple(int(size) for size in given["shape"])
    return SparseTaskVectors.from_mask(unpack(given["mask"], shape), given["values"])
