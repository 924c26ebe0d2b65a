"""Whether an input is one the routers have learnt about; where it is not, the mixture uses its static merge.

Routers can fail off their domain (published, EuroSAT with noise: 9.7 % for WEMoE, 53 % for task arithmetic). So before
a prompt is routed, its pooled inputs of two middle layers, as the static merge computes them, are compared with those
of each known task; what that catches and misses is in docs/experiments.md, "The router check".
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.errors import MergeError
from merge_backends.moe.adapt import Batch
from merge_backends.moe.gates import Gates, gating, inside, masked_mean, running
from merge_backends.moe.mixture import mixture_of
from merge_backends.moe.structure import backbone, layer_stack

# Changes with what `RouterCheck` stores or means; a mixture saved with another one is refused.
FORMAT = 2
# One input in so many of each task sets the threshold, the statistics are made of the others; batches are often sorted
# by length, so the first or last part would be no fair sample.
HELD = 3
# Chosen on validation texts of MiniLM at 100, 300 and 800 fitted texts per task (docs/experiments.md).
POOLED = 0.5
SHRUNK = 0.3
BACKGROUND = 0.8


class RouterCheck(nn.Module):  # type: ignore[misc]
    """Distance of an input to each task less that to all tasks together, and each task's threshold.

    Args:
        layers: whose inputs are looked at, from 0, the embeddings; `FORMAT` and these are saved beside the tensors.
        centers: `(layers, tasks + 1, features)` means of the pooled inputs of each task and, last, of all.
        whitener: `(layers, tasks + 1, features, features)` square roots of their inverse covariances.
        thresholds: `(tasks,)` scores that a share of `quantile` of the task's own held-out inputs stays below.
    """

    centers: Tensor
    whitener: Tensor
    thresholds: Tensor

    def __init__(self, layers: Sequence[int], centers: Tensor, whitener: Tensor, thresholds: Tensor) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.enabled = True
        self.register_buffer("centers", centers)
        self.register_buffer("whitener", whitener)
        self.register_buffer("thresholds", thresholds)

    def scores(self, pooled: Tensor) -> Tensor:
        """`(batch, tasks)`: how much farther than usual pooled inputs `(batch, layers, features)` lie from each task.

        Squared Mahalanobis distance to the task less `BACKGROUND` times that to all tasks, summed over the layers.
        Ref: Ren et al., arXiv:2106.09022, section 3, who subtract it in full and share one covariance.
        """
        return _scores(pooled.float(), self.centers, self.whitener)

    def is_out(self, pooled: Tensor) -> Tensor:
        """`(batch,)`: True where inputs `(batch, layers, features)` are beyond the threshold of every task."""
        return (self.scores(pooled) > self.thresholds).all(dim=1)


def fit_router_check(
    model: nn.Module,
    batches: Mapping[str, Sequence[Batch]],
    *,
    layers: Sequence[int] | None = None,
    quantile: float = 0.98,
) -> RouterCheck:
    """Learn the domain from in-domain inputs and put the check into the mixture; labels are not needed.

    Args:
        batches: in-domain inputs by task; a third of each task's sets the threshold and nothing else. A few hundred
            of each task see more than a hundred.
        layers: whose inputs to look at; by default the middle layer and the next.
        quantile: share of each task's inputs that is to pass.

    Raises:
        MergeError: no mixture, a layer there is not, or fewer than three inputs of a task.
    """
    mixture = mixture_of(model)
    detach(model)
    depth = len(layer_stack(model)[1])
    chosen = sorted(set(layers if layers is not None else (depth // 2, min(depth // 2 + 1, depth - 1))))
    if not chosen or chosen[0] < 0 or chosen[-1] >= depth:
        raise MergeError(f"layers {chosen} cannot be checked", fix=f"The model has layers 0 to {depth - 1}.")
    check = learn([pooled_inputs(model, some, chosen) for some in batches.values()], chosen, quantile=quantile)
    mixture.state["check"] = check.to(next(model.parameters()).device)
    attach(model)
    return check


def learn(pooled: Sequence[Tensor], layers: Sequence[int], *, quantile: float = 0.98) -> RouterCheck:
    """The check of pooled inputs by task, each `(inputs, layers, features)`; see `fit_router_check`.

    Raises:
        MergeError: fewer than three inputs of a task.
    """
    if not pooled or min(len(each) for each in pooled) < 3:
        raise MergeError("a task has fewer than three inputs", fix="Give at least three inputs of each task.")
    fitted = [each[torch.arange(len(each)) % HELD != HELD - 1] for each in pooled]
    held = [each[HELD - 1 :: HELD] for each in pooled]
    made = [_statistics([each[:, place] for each in fitted]) for place in range(len(layers))]
    centers, whitener = torch.stack([one for one, _ in made]), torch.stack([one for _, one in made])
    own = [_scores(each, centers, whitener)[:, task].quantile(quantile) for task, each in enumerate(held)]
    return RouterCheck(layers, centers, whitener, torch.stack(own))


def pooled_inputs(model: nn.Module, batches: Sequence[Batch], layers: Sequence[int]) -> Tensor:
    """Mean input of each layer over the positions the gate looks at: `(inputs, layers, features)`, float32.

    The layers before it use the static merge, whatever the routers say.
    """
    found: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(_look(module, layers, args, kwargs, running()).cpu())
        raise _SeenError

    hooks = [*_watch_layers(model, layers), backbone(model).register_forward_pre_hook(look, with_kwargs=True)]
    try:
        for batch in batches:
            try:
                with gating(mask=batch.gate_mask):
                    model(**batch.inputs)
            except _SeenError:
                continue
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(found) if found else torch.empty(0, len(layers), 0)


def attach(model: nn.Module) -> None:
    """Make forward passes obey the check that the mixture holds; a loaded mixture already does."""
    mixture = mixture_of(model)
    check = mixture.state["check"]
    assert isinstance(check, RouterCheck)

    def judge(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        gates = running()
        # Generated tokens keep the verdict on their prompt.
        if check.enabled and not (gates.passes or gates.static):
            gates.out_of_domain = check.is_out(_look(module, check.layers, args, kwargs, gates))

    mixture.hooks += [
        *_watch_layers(model, check.layers),
        backbone(model).register_forward_pre_hook(judge, with_kwargs=True),
    ]


def detach(model: nn.Module) -> None:
    """Take the check out of the mixture; no effect where there is none."""
    mixture = mixture_of(model)
    for hook in mixture.hooks:
        hook.remove()
    mixture.hooks.clear()
    mixture.state.pop("check", None)


@dataclass
class _Look(Gates):
    """The gates of a pass that only looks: static everywhere, and over at the last layer that is looked at."""

    found: dict[int, Tensor] = field(default_factory=dict)
    last: int = 0


class _SeenError(Exception):
    """Ends a forward pass that has seen what it was started for."""


def _look(
    module: nn.Module, layers: Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any], gates: Gates
) -> Tensor:
    """Pooled inputs `(batch, layers, features)` of a transformer's layers, without touching its KV cache."""
    given = {**dict(zip(inspect.signature(type(module).forward).parameters, (None, *args), strict=False)), **kwargs}
    given.pop("self", None)
    inputs = next(given[name] for name in ("input_ids", "inputs_embeds") if given.get(name) is not None)
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape != inputs.shape[:2]:  # it covers what lies in the cache too
        fits = gates.mask is not None and gates.mask.shape == inputs.shape[:2]
        given["attention_mask"] = gates.mask if fits else None
    given |= {name: value for name, value in (("past_key_values", None), ("use_cache", False)) if name in given}
    static = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
    seen = _Look(mask=gates.mask, static=True, out_of_domain=static, last=max(layers))
    with torch.no_grad(), inside(seen), suppress(_SeenError):
        module.forward(**given)
    return torch.stack([seen.found[layer] for layer in sorted(layers)], dim=1)


def _watch_layers(model: nn.Module, layers: Sequence[int]) -> list[Any]:
    """Hooks that keep the layers' inputs where the pass under way is one that only looks."""

    def keep(layer: int, hidden: Tensor) -> None:
        gates = running()
        if isinstance(gates, _Look):
            mask = gates.mask if gates.mask is not None and gates.mask.shape == hidden.shape[:2] else None
            gates.found[layer] = masked_mean(hidden.detach().float(), mask)
            if layer == gates.last:
                raise _SeenError

    _, stack = layer_stack(model)
    return [
        stack[layer].register_forward_pre_hook(_hook(lambda hidden, layer=layer: keep(layer, hidden)), with_kwargs=True)
        for layer in layers
    ]


def _hook(act: Any) -> Any:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        act(args[0] if args else kwargs["hidden_states"])

    return before


def _statistics(tasks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Centers `(tasks + 1, features)` and whiteners `(tasks + 1, features, features)` of inputs by task, all last.

    A task's covariance is half its own and half that within all tasks: its own alone needs more inputs than features.
    """
    everything = torch.cat(list(tasks))
    covariances = [_covariance(each) for each in tasks]
    within = sum(covariances[1:], covariances[0]) / len(covariances)
    whole = _covariance(everything)
    mixed = [*((1 - POOLED) * own + POOLED * within for own in covariances), whole]
    centers = torch.stack([each.mean(0) for each in (*tasks, everything)])
    return centers, torch.stack([_whitener(one) for one in mixed])


def _covariance(inputs: Tensor) -> Tensor:
    centred = (inputs - inputs.mean(0)).double()
    return centred.T @ centred / len(centred)


def _whitener(covariance: Tensor) -> Tensor:
    mean = covariance.diagonal().mean().clamp(min=1e-24)
    shrunk = (1 - SHRUNK) * covariance + SHRUNK * mean * torch.eye(len(covariance), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(shrunk)
    return (vectors * values.clamp(min=1e-24).rsqrt()).float()


def _scores(pooled: Tensor, centers: Tensor, whitener: Tensor) -> Tensor:
    """See `RouterCheck.scores`."""
    away = torch.einsum("bltf,ltfk->bltk", pooled.unsqueeze(2) - centers.unsqueeze(0), whitener)
    squared = away.square().sum(dim=(1, 3))
    result: Tensor = squared[:, :-1] - BACKGROUND * squared[:, -1:]
    return result
