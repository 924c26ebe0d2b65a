"""Whether an input is one the routers have learnt about; where it is not, the mixture uses its static merge.

Routers collapse off their domain (noisy EuroSAT: 9.7 % for WEMoE, 53 % for task arithmetic), so they are checked first:
the pooled input of a few layers is compared with what in-domain inputs look like there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.errors import MergeError
from merge_backends.moe.adapt import Batch
from merge_backends.moe.gates import Gates, gating, masked_mean, running
from merge_backends.moe.mixture import mixture_of
from merge_backends.moe.structure import layer_stack

# Share of the inputs of each task that the statistics are made of; the others set the threshold.
FITTED = 2 / 3


class RouterCheck(nn.Module):  # type: ignore[misc]
    """Distance of a pooled layer input to the nearest task, in units of what is usual, and the threshold.

    Args:
        layers: whose inputs are looked at, from 0, the embeddings.
        centers: `(layers, tasks, features)` means of each task's pooled inputs.
        whitener: `(layers, features, features)`, a square root of the inverse covariance within tasks.
        scales: `(layers,)` median distance of in-domain inputs.
        threshold: scaled distance, at the worst layer, that a share of `quantile` of in-domain inputs stays below.
    """

    centers: Tensor
    whitener: Tensor
    scales: Tensor
    threshold: Tensor

    def __init__(
        self, layers: Sequence[int], centers: Tensor, whitener: Tensor, scales: Tensor, threshold: Tensor
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.enabled = True
        self.register_buffer("centers", centers)
        self.register_buffer("whitener", whitener)
        self.register_buffer("scales", scales)
        self.register_buffer("threshold", threshold)

    def distance(self, layer: int, pooled: Tensor) -> Tensor:
        """Scaled distance `(batch,)` of the pooled inputs `(batch, features)` of a layer; about 1 is usual."""
        place = self.layers.index(layer)
        return _distance(pooled.float(), self.centers[place], self.whitener[place]) / self.scales[place]

    def is_out(self, layer: int, pooled: Tensor) -> Tensor:
        """`(batch,)`: True where an input is out of the domain at this layer."""
        return self.distance(layer, pooled) > self.threshold


def fit_router_check(
    model: nn.Module,
    batches: Mapping[str, Sequence[Batch]],
    *,
    layers: Sequence[int] | None = None,
    quantile: float = 0.99,
    shrinkage: float = 0.01,
) -> RouterCheck:
    """Learn the domain from in-domain inputs and put the check into the mixture; labels are not needed.

    Args:
        batches: in-domain inputs by task; a third of each task's sets the threshold and nothing else.
        layers: whose inputs to look at; by default the embeddings and the middle layer.
        quantile: share of in-domain inputs that is to pass.
        shrinkage: share of the mean variance mixed into the covariance, so that few inputs suffice.

    Raises:
        MergeError: no mixture, a layer there is not, or fewer than three inputs of a task.
    """
    mixture = mixture_of(model)
    detach(model)
    depth = len(layer_stack(model)[1])
    chosen = sorted(set(layers if layers is not None else (0, depth // 2)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= depth:
        raise MergeError(f"layers {chosen} cannot be checked", fix=f"The model has layers 0 to {depth - 1}.")
    pooled = [pooled_inputs(model, some, chosen) for some in batches.values()]
    if not pooled or min(len(each) for each in pooled) < 3:
        raise MergeError("a task has fewer than three inputs", fix="Give at least three inputs of each task.")
    cuts = [max(1, int(len(each) * FITTED)) for each in pooled]
    fitted = [each[:cut] for each, cut in zip(pooled, cuts, strict=True)]
    held = torch.cat([each[cut:] for each, cut in zip(pooled, cuts, strict=True)])
    centers = torch.stack([each.mean(0) for each in fitted], dim=1)
    within = torch.cat([each - each.mean(0) for each in fitted])
    whitener = torch.stack([_whitener(within[:, place], shrinkage) for place in range(len(chosen))])
    distances = torch.stack(
        [_distance(held[:, place], centers[place], whitener[place]) for place in range(len(chosen))]
    )
    scales = distances.median(dim=1).values.clamp(min=1e-12)
    worst = (distances / scales.unsqueeze(1)).max(dim=0).values
    check = RouterCheck(chosen, centers, whitener, scales, worst.quantile(quantile))
    mixture.state["check"] = check.to(next(model.parameters()).device)
    attach(model)
    return check


def pooled_inputs(model: nn.Module, batches: Sequence[Batch], layers: Sequence[int]) -> Tensor:
    """Mean input of each layer over the positions the gate looks at: `(inputs, layers, features)`, float32."""
    _, stack = layer_stack(model)
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: int, hidden: Tensor) -> None:
        found[layer].append(_pooled(hidden, running()).cpu())

    hooks = [
        stack[layer].register_forward_pre_hook(_hook(lambda hidden, layer=layer: keep(layer, hidden)), with_kwargs=True)
        for layer in layers
    ]
    try:
        with torch.no_grad():
            for batch in batches:
                with gating(mask=batch.gate_mask):
                    model(**batch.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([torch.cat(found[layer]) for layer in layers], dim=1)


def attach(model: nn.Module) -> None:
    """Make forward passes obey the check that the mixture holds; a loaded mixture already does."""
    mixture = mixture_of(model)
    check = mixture.state["check"]
    assert isinstance(check, RouterCheck)
    _, stack = layer_stack(model)
    mixture.hooks += [
        stack[layer].register_forward_pre_hook(
            _hook(lambda hidden, layer=layer: _judge(check, layer, hidden)), with_kwargs=True
        )
        for layer in check.layers
    ]


def detach(model: nn.Module) -> None:
    """Take the check out of the mixture; no effect where there is none."""
    mixture = mixture_of(model)
    for hook in mixture.hooks:
        hook.remove()
    mixture.hooks.clear()
    mixture.state.pop("check", None)


def _judge(check: RouterCheck, layer: int, hidden: Tensor) -> None:
    """Flag the inputs of a prompt; whoever is out at one layer stays out, and generated tokens are not judged."""
    gates = running()
    if not check.enabled or gates.passes or gates.static:
        return
    out = check.is_out(layer, _pooled(hidden, gates))
    gates.out_of_domain = out if gates.out_of_domain is None else gates.out_of_domain | out


def _pooled(hidden: Tensor, gates: Gates) -> Tensor:
    mask = gates.mask if gates.mask is not None and gates.mask.shape == hidden.shape[:2] else None
    return masked_mean(hidden.detach().float(), mask)


def _hook(act: Any) -> Any:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        act(args[0] if args else kwargs["hidden_states"])

    return before


def _whitener(centred: Tensor, shrinkage: float) -> Tensor:
    exact = centred.double()
    covariance = exact.T @ exact / len(exact)
    mean = covariance.diagonal().mean().clamp(min=1e-24)
    covariance = (1 - shrinkage) * covariance + shrinkage * mean * torch.eye(len(covariance), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=1e-24).rsqrt()).float()


def _distance(pooled: Tensor, centers: Tensor, whitener: Tensor) -> Tensor:
    """Mahalanobis distance `(batch,)` to the nearest of the centers. Ref: Lee et al., arXiv:1807.03888, equation 2."""
    return ((pooled.unsqueeze(1) - centers.unsqueeze(0)) @ whitener).norm(dim=-1).min(dim=1).values
