"""Model-SAT at run time: aptitude answers -> model vector -> logit for a prompt, in numpy.

The capability instruction is a set of answers with the facts of the model. A capability encoder pools the set, a
connector makes a model vector of it, and the scorer is an inner product with the prompt's task vector. Trained by
`training/model_sat.py`. Ref: Model-SAT (AAAI 2025), with a set encoder in the place of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.state import Items

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Instruction(NamedTuple):
    """The capability instruction of one model; the order of its answers does not matter.

    Attributes:
        items: `[n, P]` features of the answered items.
        categories: `[n]` number of each item's category, -1 for an unknown one.
        expected: `[n]` score of an average model on the item, 0..1.
        scores: `[n]` score of this model, 0..1.
        facts: `[F]` row of `population.facts_row`.
    """

    items: FloatArray
    categories: IntArray
    expected: FloatArray
    scores: FloatArray
    facts: FloatArray


@dataclass(frozen=True, slots=True)
class ItemBank:
    """The scorer's items as answers are read: features are its coordinates, expectations its calibrated ease.

    Attributes:
        features: `[N, 1 + R]`.  categories: `[N]` numbers, in the order of the names.  ease: `[N]` logits.
    """

    features: FloatArray
    categories: IntArray
    ease: FloatArray

    @classmethod
    def of(cls, items: Items) -> ItemBank:
        """The bank of a `ScorerState`."""
        numbers = {name: number for number, name in enumerate(sorted(set(items.categories)))}
        return cls(
            items.coordinates,
            np.array([numbers[name] for name in items.categories], dtype=np.int64),
            items.coordinates[:, 0] + items.offset,
        )

    def instruction(self, rows: IntArray, scores: npt.NDArray[np.floating], facts: FloatArray) -> Instruction:
        """Answers `[n]` to the items in `rows` `[n]`, with the model's facts `[F]`."""
        expected = 0.5 * (1.0 + np.tanh(0.5 * self.ease[rows]))
        return Instruction(
            self.features[rows],
            self.categories[rows],
            np.asarray(expected, dtype=np.float32),
            np.asarray(scores, dtype=np.float32),
            facts,
        )


@dataclass(frozen=True, slots=True)
class EncoderHead:
    """Weights of the capability encoder (H wide, K queries of V values), the connector and the scorer (E wide).

    Attributes:
        mean, scale: `[P]` of the features.
        item_map: `[P, H]`, item_bias `[H]`, category_map `[C, H]`, score_map `[2, H]`: an answer's token.
        query_map: `[P, K]`, query_category `[C, K]`, query_null `[K]`: which answers each query reads; the null answer
            says nothing, so a few answers move a query little.
        value_map: `[K, H, V]`.
        facts_map: `[F, G]`, facts_bias `[G]`.
        connect_map: `[K V + K + G, W]`, connect_bias `[W]`, out_map `[W, E + 2]`, out_bias `[E + 2]`: model vectors
            are E directions, strength, and what is added to the slope on ease.
        task_map: `[P, E]`, task_bias `[E]`, ease_map `[P]`, ease_bias `[1]`: the prompt's side.
    """

    mean: FloatArray
    scale: FloatArray
    item_map: FloatArray
    item_bias: FloatArray
    category_map: FloatArray
    score_map: FloatArray
    query_map: FloatArray
    query_category: FloatArray
    query_null: FloatArray
    value_map: FloatArray
    facts_map: FloatArray
    facts_bias: FloatArray
    connect_map: FloatArray
    connect_bias: FloatArray
    out_map: FloatArray
    out_bias: FloatArray
    task_map: FloatArray
    task_bias: FloatArray
    ease_map: FloatArray
    ease_bias: FloatArray

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.floating]]) -> EncoderHead:
        """The head from named arrays of any float type, as `arrays` gives them.

        Raises:
            KeyError: an array is missing.
        """
        return cls(**{each.name: np.ascontiguousarray(arrays[each.name], dtype=np.float32) for each in fields(cls)})

    def arrays(self) -> dict[str, FloatArray]:
        """All weights by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def model_vector(self, instruction: Instruction) -> FloatArray:
        """`[E + 2]` of one model from any number of answers, 0 included."""
        facts = silu(instruction.facts @ self.facts_map + self.facts_bias)
        queries, _, values = self.value_map.shape
        pooled = np.zeros((queries, values), dtype=np.float32)
        mass = np.zeros(queries, dtype=np.float32)
        if len(instruction.scores):
            items = (instruction.items - self.mean) / self.scale
            known = (instruction.categories >= 0)[:, None]
            place = np.maximum(instruction.categories, 0)
            read = items @ self.query_map + np.where(known, self.query_category[place], 0.0)
            said = np.stack([instruction.scores - 0.5, instruction.scores - instruction.expected], axis=1)
            tokens = silu(
                items @ self.item_map
                + self.item_bias
                + np.where(known, self.category_map[place], 0.0)
                + said @ self.score_map
            )
            top = np.maximum(read.max(axis=0), self.query_null)
            weights = np.exp(read - top)
            total = weights.sum(axis=0)
            everything = total + np.exp(self.query_null - top)
            mass = total / everything
            pooled = np.einsum("kh,khv->kv", (weights / everything).T @ tokens, self.value_map)
        hidden = np.concatenate([pooled.ravel(), mass, facts])
        return np.asarray(
            silu(hidden @ self.connect_map + self.connect_bias) @ self.out_map + self.out_bias, dtype=np.float32
        )

    def model_vectors(self, instructions: Sequence[Instruction]) -> FloatArray:
        """`[M, E + 2]`."""
        width = len(self.out_bias)
        return np.array([self.model_vector(each) for each in instructions], dtype=np.float32).reshape(-1, width)

    def logits(self, features: FloatArray, models: FloatArray) -> FloatArray:
        """Logit of P(correct) `[B, M]` of prompts with features `[B, P]` for `model_vectors` `[M, E + 2]`."""
        standard = (features - self.mean) / self.scale
        task = standard @ self.task_map + self.task_bias
        ease = standard @ self.ease_map + self.ease_bias
        directions, strength, slope = models[:, :-2], models[:, -2], models[:, -1]
        return np.asarray(task @ directions.T + strength + ease[:, None] * (1.0 + slope), dtype=np.float32)


def silu(x: npt.NDArray[np.floating]) -> FloatArray:
    """x times its logistic function."""
    return np.asarray(x * (0.5 * (1.0 + np.tanh(0.5 * x))), dtype=np.float32)
