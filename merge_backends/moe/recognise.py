"""Teaches routers by regression which expert each input is for: cheap, for no weight per input is ever built.

Our own step, not the papers': it asks whose task an input is from, and no label of it. `adapt` may go on from there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from merge_backends.errors import MergeError
from merge_backends.moe.adapt import Batch, only_gradients_of
from merge_backends.moe.gates import Gates, gating, masked_mean
from merge_backends.moe.mixed import LayerGate
from merge_backends.moe.mixture import mixture_of
from merge_backends.moe.parameters import MixtureParameters
from merge_backends.moe.wemoe import routers_of

Call = Callable[[str, nn.Module, Mapping[str, Tensor]], Any]


class RecogniseParameters(MixtureParameters):
    """What routers should give, and how they are trained."""

    own: float = Field(1.0, ge=-10, le=10, description="weight wanted for the expert of the input's task")
    other: float = Field(0.0, ge=-10, le=10, description="weight wanted for each other expert")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's, falling linearly to nothing")
    steps: int = Field(150, ge=1, description="each takes one batch of every task")


@dataclass
class RecogniseReport:
    """Of the last tenth of the steps: mean squared error, and by layer the share of inputs whose expert weighs most."""

    error: float
    found: dict[int, float] = field(default_factory=dict)


def recognise(
    model: nn.Module,
    train: Mapping[str, Sequence[Batch]],
    *,
    call: Call | None = None,
    parameters: RecogniseParameters | None = None,
    seed: int = 0,
) -> RecogniseReport:
    """Train the routers in place on which task each input is from; labels are not looked at.

    What a layer's router sees depends on the layers before it. So every other step passes inputs through the weights
    that are wanted for their task, and the steps between through task arithmetic, as where nothing is recognised yet.

    Args:
        train: batches by task, one task per expert and in the experts' order.
        call: runs `(task, model, inputs)`; what it gives is not looked at. Without it `model(**inputs)`.

    Raises:
        MergeError: no router, not one task per expert, or a task without batches.
    """
    parameters = parameters or RecogniseParameters()
    routers, gates = routers_of(model), _gates_of(model)
    if not routers:
        raise MergeError("the model has no routers to train", fix="Only wemoe and e_wemoe have some.")
    if len(train) != mixture_of(model).experts or not all(train.values()):
        raise MergeError(
            f"{len(train)} tasks for {mixture_of(model).experts} experts", fix="Give batches of one task per expert."
        )
    rng = random.Random(seed)
    learnt = [parameter for router in routers for parameter in router.parameters()]
    optimizer = torch.optim.Adam(learnt, lr=parameters.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / parameters.steps)
    wanted = torch.full((len(train), len(train)), parameters.other, device=learnt[0].device)
    wanted.fill_diagonal_(parameters.own)
    errors: list[float] = []
    hits: list[dict[int, float]] = []
    with only_gradients_of(model, routers):
        for step in range(parameters.steps):
            error, hit = torch.zeros((), device=wanted.device), dict.fromkeys(gates, 0.0)
            for index, (task, batches) in enumerate(train.items()):
                weights = wanted[index] if step % 2 else gates[min(gates)].static_weights().to(wanted)
                batch = rng.choice(batches)
                for layer, routed in _routed(model, gates, task, batch, weights, call).items():
                    error = error + (routed - wanted[index]).square().mean()
                    hit[layer] += float((routed.argmax(-1) == index).float().mean()) / len(train)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            schedule.step()
            errors.append(error.item() / (len(train) * len(gates)))
            hits.append(hit)
    last = max(1, parameters.steps // 10)
    found = {layer: sum(hit[layer] for hit in hits[-last:]) / last for layer in gates}
    return RecogniseReport(sum(errors[-last:]) / last, found)


def _routed(
    model: nn.Module, gates: Mapping[int, LayerGate], task: str, batch: Batch, weights: Tensor, call: Call | None
) -> dict[int, Tensor]:
    """What each layer's router gives, `(batch, experts)`, where all layers are merged with these weights."""
    fixed = Gates(coefficients={layer: weights.unsqueeze(0) for layer in gates})
    with torch.no_grad(), _seen(gates) as seen, gating(fixed):
        model(**batch.inputs) if call is None else call(task, model, batch.inputs)
    mask = batch.gate_mask if batch.gate_mask is not None else batch.inputs.get("attention_mask")
    with torch.enable_grad():
        return {layer: masked_mean(gate.route(seen[layer]), mask).float() for layer, gate in gates.items()}


@contextmanager
def _seen(gates: Mapping[int, LayerGate]) -> Iterator[dict[int, Tensor]]:
    """Collects the input of each layer's first map, which is what its router would read."""
    seen: dict[int, Tensor] = {}

    def keep(gate: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(gate, LayerGate)
        seen.setdefault(gate.layer, args[0].detach())

    handles = [gate.register_forward_pre_hook(keep) for gate in gates.values()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _gates_of(model: nn.Module) -> dict[int, LayerGate]:
    return {module.layer: module for module in model.modules() if isinstance(module, LayerGate)}
