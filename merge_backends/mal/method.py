"""MAL as a merge method: a zoo of donors of any depth and width is merged into the base, step by accepted step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from merge_backends.calibration import (
    IGNORED,
    CalibrationData,
    cross_entropy,
    evaluating,
    forward,
    in_float32,
    logits_and_labels,
)
from merge_backends.errors import IncompatibleError, RecipeError
from merge_backends.mal.layout import layout_of
from merge_backends.mal.matching import Side
from merge_backends.mal.search import Reading, SearchSettings, Step, Validation, search
from merge_backends.methods.base import MergeMethod, Parameters, Weights
from merge_backends.methods.registry import method


class MalParameters(Parameters):
    """Settings of MAL; see `SearchSettings`."""

    alphas: tuple[float, ...] = Field((0.1, 0.25, 0.5), min_length=1, description="shares of a donor to try, ascending")
    granularity: Literal["model", "layer", "sublayer"] = Field("layer", description="what one step changes")
    depth: Literal["proportional", "similar"] = Field(
        "proportional", description="how layers of other depths are found"
    )
    depth_candidates: int = Field(1, ge=1, description="donor layers tried for each base layer, most similar first")
    outside: bool = Field(True, description="whether embeddings and output layers are merged too")
    similarity: Literal["distance", "product"] = Field("distance", description="what makes two units alike")
    unmatched: Literal["drop", "fold"] = Field("drop", description="donor units without a partner")
    rounds: int = Field(1, ge=1, description="passes over the zoo")
    min_gain: float = Field(0.0, ge=0, description="loss a step must save")
    max_barrier: float = Field(0.0, ge=0, description="loss above the straight line that a step may pass")

    def settings(self) -> SearchSettings:
        """The same for the search.

        Raises:
            RecipeError: shares that are not ascending within (0, 1].
        """
        if list(self.alphas) != sorted(set(self.alphas)) or self.alphas[0] <= 0 or self.alphas[-1] > 1:
            raise RecipeError(f"Parameter 'alphas' of merge method 'mal' is {self.alphas}.", "Ascend within (0, 1].")
        return SearchSettings(
            alphas=self.alphas, granularity=self.granularity, depth=self.depth, outside=self.outside,
            depth_candidates=self.depth_candidates, similarity=self.similarity, fold=self.unmatched == "fold",
            rounds=self.rounds, min_gain=self.min_gain, max_barrier=self.max_barrier,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Network(Mapping[str, Tensor]):
    """Weights with their configuration, for models that are not on disk (a `Checkpoint` has both already)."""

    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]
    name: str = "network"

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def side_of(weights: Weights) -> Side:
    """A network with its layout.

    Raises:
        IncompatibleError: the weights carry no configuration, or one of an unknown family.
    """
    config = getattr(weights, "config", None)
    if not isinstance(config, Mapping):
        raise IncompatibleError(
            "MAL needs each model's configuration.", "Give a checkpoint, or Network(weights, config)."
        )
    return Side(weights, layout_of(weights, config))


def validation_on(data: CalibrationData) -> Validation:
    """Mean cross-entropy and mean accuracy over the labelled tasks, on the data's model.

    Raises:
        RecipeError: a task without labels (texts of a language model are their own labels).
    """

    def validate(weights: Mapping[str, Tensor]) -> Reading:
        own = in_float32(data.model, weights)
        losses, scores = [], []
        with torch.inference_mode(), evaluating(data.model):
            for task in data.tasks:
                loss, right, rows = 0.0, 0, 0
                for index, batch in enumerate(task.batches):
                    logits, labels = logits_and_labels(task, forward(data.model, own, batch), index)
                    if labels is None:
                        raise RecipeError(f"Task {task.name!r} has no labels to validate on.", "Give labels.")
                    known = int((labels != IGNORED).sum())
                    loss += float(cross_entropy(logits, labels)) * known
                    right += int((logits.argmax(-1) == labels).sum())
                    rows += known
                losses.append(loss / rows)
                scores.append(right / rows)
        return Reading(sum(losses) / len(losses), sum(scores) / len(scores))

    return validate


@method("mal")
class Mal(MergeMethod[MalParameters]):
    """Partial permutations by assignment, layers of other depths, acceptance by loss barrier: our reading."""

    parameters = MalParameters
    needs_base = True
    needs_data = True
    order_matters = True

    def merge(
        self,
        base: Weights | None,
        experts: Sequence[Weights],
        parameters: MalParameters,
        *,
        seed: int = 0,
        data: CalibrationData | Callable[[Mapping[str, Tensor]], Reading] | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yields the base's tensors after all accepted steps; a rejected donor leaves it as it was, bit by bit.

        `data` holds labelled validation texts and the base's skeleton, or is a function of weights; `seed` plays no
        part.
        """
        weights, _ = self.merge_with_steps(base, experts, parameters, data)
        yield from weights.items()

    def merge_with_steps(
        self,
        base: Weights | None,
        experts: Sequence[Weights],
        parameters: MalParameters,
        data: CalibrationData | Callable[[Mapping[str, Tensor]], Reading] | None,
    ) -> tuple[dict[str, Tensor], list[Step]]:
        """The merged weights and every step that was tried."""
        if not experts:
            raise RecipeError("The merge method 'mal' needs at least one model.", "Add it to `models`.")
        if base is None:
            raise RecipeError("The merge method 'mal' needs a base model.", "Set `base_model`.")
        if data is None:
            raise RecipeError("The merge method 'mal' needs data.", "Give labelled validation texts.")
        validate = validation_on(data) if isinstance(data, CalibrationData) else data
        donors = [(str(getattr(one, "name", f"model {n}")), side_of(one)) for n, one in enumerate(experts, start=1)]
        return search(side_of(base), donors, validate, parameters.settings())
