"""The outer loop of MAL: donors one after another, layer by layer, each step kept only if the validation allows it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from merge_backends.mal.blend import blend
from merge_backends.mal.layout import Slot
from merge_backends.mal.matching import Aligner, Alignment, Side, Similarity

_ATTENTION = re.compile(r"^(attention\.|attn\.|self_attn\.|ln_1\.|input_layernorm\.)")


class Reading(NamedTuple):
    """What a validation says of a set of weights: loss (lower is better) and score (higher is better)."""

    loss: float
    score: float


Validation = Callable[[Mapping[str, Tensor]], Reading]


@dataclass(frozen=True)
class SearchSettings:
    """How donors are tried.

    Args:
        alphas: shares of the donor to try, each in (0, 1].
        granularity: what one step changes.
        depth: how base layers find donor layers; `depth_candidates` most similar ones are tried with "similar".
        outside: whether embeddings and output layers are steps too (never with granularity "model", where they belong).
        rounds: passes over all donors; ends early after a pass that accepts nothing.
        min_gain: by how much a step must lower the validation loss.
        max_barrier: how far the loss may rise above the straight line between base and step on the way to it.
    """

    alphas: tuple[float, ...] = (0.1, 0.25, 0.5)
    granularity: Literal["model", "layer", "sublayer"] = "layer"
    depth: Literal["proportional", "similar"] = "proportional"
    depth_candidates: int = 1
    outside: bool = True
    similarity: Similarity = "distance"
    fold: bool = False
    rounds: int = 1
    min_gain: float = 0.0
    max_barrier: float = 0.0


@dataclass(frozen=True)
class Step:
    """One trial. `accepted` is the share taken, 0 where the step was rejected; readings are those of `alphas`."""

    round: int
    donor: str
    group: str
    depth: int | None
    alphas: tuple[float, ...]
    before: Reading
    readings: tuple[Reading, ...]
    barrier: float
    accepted: float


def search(
    base: Side, donors: Sequence[tuple[str, Side]], validate: Validation, settings: SearchSettings
) -> tuple[dict[str, Tensor], list[Step]]:
    """Merges what helps.

    Returns:
        The weights (tensors that no accepted step touched are the base's own objects) and every step, taken or not.
    """
    weights = dict(base.weights)
    current = validate(weights)
    steps: list[Step] = []
    for number in range(settings.rounds):
        taken = 0
        for name, donor in donors:
            aligner = Aligner(Side(weights, base.layout), donor, settings.similarity, settings.fold)
            alignment = aligner.align(settings.depth)
            for group, depth, laid, pairs in _groups(aligner, alignment, settings):
                side = Side(weights, base.layout)
                trials = [blend(side, donor, laid, pairs, alpha) for alpha in settings.alphas]
                readings = [validate({**weights, **trial}) for trial in trials]
                chosen, barrier = choose(current, settings.alphas, readings, settings)
                steps.append(
                    Step(
                        number, name, group, depth, settings.alphas, current, tuple(readings), barrier,
                        0.0 if chosen is None else settings.alphas[chosen],
                    )
                )  # fmt: skip
                if chosen is not None:
                    weights.update(trials[chosen])
                    current = readings[chosen]
                    taken += 1
        if not taken:
            break
    return weights, steps


def choose(
    before: Reading, alphas: Sequence[float], readings: Sequence[Reading], settings: SearchSettings
) -> tuple[int | None, float]:
    """The share of lowest loss among those that gain, do not lower the score, and lie behind no barrier.

    Returns:
        Its index (None: reject) and its barrier; for a rejected step the barrier of the share of lowest loss.
    """
    order = sorted(range(len(alphas)), key=lambda index: readings[index].loss)
    for index in order:
        reading = readings[index]
        gains = reading.loss < before.loss - settings.min_gain and reading.score >= before.score
        barrier = loss_barrier(before.loss, alphas, [other.loss for other in readings], index)
        if gains and barrier <= settings.max_barrier:
            return index, barrier
    return None, loss_barrier(before.loss, alphas, [other.loss for other in readings], order[0])


def loss_barrier(before: float, alphas: Sequence[float], losses: Sequence[float], end: int) -> float:
    """Largest rise of the loss above the straight line from the base (share 0) to share `alphas[end]`, at least 0.

    Linear mode connectivity up to the merging threshold; measured at the tried shares on the way.
    """
    target = alphas[end]
    rises = [
        loss - (before + (losses[end] - before) * alpha / target)
        for alpha, loss in zip(alphas, losses, strict=True)
        if alpha < target
    ]
    return max([0.0, *rises])


def _groups(
    aligner: Aligner, alignment: Alignment, settings: SearchSettings
) -> Iterator[tuple[str, int | None, Alignment, list[tuple[Slot, Slot]]]]:
    """What each step changes: a label, the donor's depth, the alignment to use, and the slots."""
    if settings.granularity == "model":
        yield "model", None, alignment, aligner.pairs(alignment)
        return
    if settings.outside:
        pairs = [pair for pair in aligner.pairs(alignment) if pair[0].layer is None]
        yield "outside", None, alignment, pairs
    table = aligner.layer_similarity(alignment) if settings.depth_candidates > 1 else None
    for layer in range(aligner.base.layout.layers):
        depths = [alignment.depths[layer]]
        if table is not None:
            depths = [int(depth) for depth in table[layer].argsort(descending=True)[: settings.depth_candidates]]
        for depth in depths:
            if depth is None:
                continue
            laid = alignment if depth == alignment.depths[layer] else aligner.with_depth(alignment, layer, depth)
            pairs = [pair for pair in aligner.pairs(laid) if pair[0].layer == layer]
            if settings.granularity == "layer":
                yield f"layer {layer}", depth, laid, pairs
                continue
            for label, wanted in (("attention", True), ("mlp", False)):
                part = [pair for pair in pairs if bool(_ATTENTION.match(pair[0].role)) == wanted]
                yield f"layer {layer} {label}", depth, laid, part
