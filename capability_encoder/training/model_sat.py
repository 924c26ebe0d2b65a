"""Trains Model-SAT's serving form: aptitude answers -> capability encoder -> connector -> scorer (`encoder_head.py`).

Every step draws another subset of answers for each model, so that one network serves any number of answers, and
compares models within a prompt: the published loss does not (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from capability_encoder.encoder_head import EncoderHead, Instruction, ItemBank
from capability_encoder.posterior import sigmoid
from capability_encoder.state import ScorerState, design_of
from capability_encoder.training.baselines.columns import read_population
from capability_encoder.training.baselines.gradient import drawn, one_thread, seeded, to_array
from capability_encoder.training.data import FloatArray, IntArray, Outcomes
from capability_encoder.training.losses import binary_cross_entropy, plackett_luce

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SatSettings:
    """Knobs of the serving form.

    Attributes:
        width, queries, values, connector, directions: H, K, V, W and E of `EncoderHead`.
        steps, batch, rate: of AdamW with a cosine rate.
        task_decay: weight decay of the prompt's side; decay: of all else.
        dropout: of prompt features; flips: highest share of scores turned round in an instruction.
        listwise: weight of the Plackett-Luce term.
        drawn_items: items of which a step's instructions are drawn.
        nothing, everything: share of instructions without answers, and with all drawn ones.
    """

    width: int = 48
    queries: int = 16
    values: int = 16
    connector: int = 96
    directions: int = 24
    steps: int = 400
    batch: int = 256
    rate: float = 3e-3
    task_decay: float = 0.3
    decay: float = 0.03
    dropout: float = 0.2
    flips: float = 0.1
    listwise: float = 0.1
    drawn_items: int = 512
    nothing: float = 0.1
    everything: float = 0.3


class Material(NamedTuple):
    """What the training sees: N prompts, M models.

    Attributes:
        features: `[N, P]`.  categories: `[N]`, -1 for none.  groups: `[N]` number of the near-duplicate group.
        scores: `[N, M]` with NaN.  expected: `[N, M]` score of an average model, this model's own outcome taken out.
        suite: `[N]` mask of aptitude items.  facts: `[M, F]`.
    """

    features: FloatArray
    categories: IntArray
    groups: IntArray
    scores: FloatArray
    expected: FloatArray
    suite: BoolArray
    facts: FloatArray

    def instruction(self, model: int, rows: IntArray) -> Instruction:
        """The capability instruction of one model from its outcomes among `rows`."""
        rows = rows[~np.isnan(self.scores[rows, model])]
        return Instruction(
            self.features[rows],
            self.categories[rows],
            self.expected[rows, model],
            self.scores[rows, model],
            self.facts[model],
        )


def material_of(train: Outcomes, features: FloatArray, facts: FloatArray, categories: Sequence[str]) -> Material:
    """Training outcomes as `Material`.

    Args:
        features: `[N, P]` of the prompts.  facts: `[M, F]`.  categories: names that get a number of their own.
    """
    numbers = {name: number for number, name in enumerate(categories)}
    return Material(
        features=features,
        categories=np.array([numbers.get(str(name), -1) for name in train.categories], dtype=np.int64),
        groups=np.unique(train.groups, return_inverse=True)[1].astype(np.int64),
        scores=train.scores,
        expected=expected_scores(train),
        suite=train.splits == "aptitude",
        facts=facts,
    )


def material_of_state(state: ScorerState, scores: FloatArray, facts: FloatArray, suite: BoolArray) -> Material:
    """The items of a fitted scorer as `Material`: out-of-fold coordinates as features, its ease as expectation.

    Args:
        scores: `[N, M]` of the state's items and known models, as the scorer's fit saw them.
        facts: `[M, F]`.  suite: `[N]` mask of aptitude items.
    """
    bank = ItemBank.of(state.items)
    means = np.array([gaussian.mean for gaussian in state.weights])
    p = sigmoid(design_of(state.items.coordinates) @ means.T + state.items.offset[:, None].astype(np.float64))
    # One Newton step takes the model's own outcome out of the ease of the item, as in `hierarchy.evidence_of`.
    precision = np.maximum(1.0 / state.items.variance[:, None] - p * (1.0 - p), 1e-3)
    own = np.where(np.isnan(scores), 0.0, (scores - p) / precision)
    return Material(
        features=bank.features,
        categories=bank.categories,
        groups=np.arange(len(scores), dtype=np.int64),
        scores=scores,
        expected=sigmoid(bank.ease[:, None] - np.clip(own, -3.0, 3.0)).astype(np.float32),
        suite=suite,
        facts=facts,
    )


def expected_scores(train: Outcomes) -> FloatArray:
    """Score of an average model on each prompt `[N, M]`, without the outcome of the model of the column."""
    population = read_population(train)
    measured = train.measured
    own = np.where(measured, train.scores - population.prompt[:, None] - population.model[None, :], 0.0)
    others = np.maximum(measured.sum(axis=1, keepdims=True) - 1.0, 1.0)
    return np.asarray(np.clip(population.prompt[:, None] - own / others, 0.0, 1.0), dtype=np.float32)


def train_head(material: Material, settings: SatSettings | None = None, *, seed: int = 0) -> EncoderHead:
    """Fit the encoder, the connector and the scorer together. The same material and seed give the same weights."""
    settings = settings or SatSettings()
    generator = seeded(seed)
    scale = material.features.std(axis=0) + np.float32(1e-6)
    mean = material.features.mean(axis=0)
    tables = _Tables.of(material, mean, scale)
    categories = int(max(material.categories.max() + 1, 1))
    weights = _initial(material, categories, settings, generator)
    prompt_side = ("task_map", "ease_map")
    optimizer = torch.optim.AdamW(
        [
            {"params": [weights[name] for name in prompt_side], "weight_decay": settings.task_decay},
            {"params": [w for name, w in weights.items() if name not in prompt_side], "weight_decay": settings.decay},
        ],
        lr=settings.rate,
    )
    for weight in weights.values():
        weight.requires_grad_(True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.steps)
    with one_thread():
        for _ in range(settings.steps):
            optimizer.zero_grad()
            loss = _loss(tables, weights, settings, generator)
            loss.backward()
            optimizer.step()
            cosine.step()
    arrays = {name: to_array(weight) for name, weight in weights.items()}
    return EncoderHead.from_arrays({**arrays, "mean": mean, "scale": scale})


class _Tables(NamedTuple):
    """The material as tensors; features standardised, scores 0 where not measured."""

    features: Tensor
    categories: Tensor
    groups: Tensor
    scores: Tensor
    observed: Tensor
    expected: Tensor
    suite: Tensor
    others: Tensor
    facts: Tensor

    @classmethod
    def of(cls, material: Material, mean: FloatArray, scale: FloatArray) -> _Tables:
        """Copy into tensors."""
        anything = np.arange(len(material.scores))
        return cls(
            features=torch.from_numpy(((material.features - mean) / scale).astype(np.float32)),
            categories=torch.from_numpy(material.categories),
            groups=torch.from_numpy(material.groups),
            scores=torch.from_numpy(np.nan_to_num(material.scores).astype(np.float32)),
            observed=torch.from_numpy(~np.isnan(material.scores)),
            expected=torch.from_numpy(material.expected),
            suite=torch.from_numpy(np.flatnonzero(material.suite) if material.suite.any() else anything),
            others=torch.from_numpy(anything),
            facts=torch.from_numpy(material.facts),
        )


def _initial(
    material: Material, categories: int, settings: SatSettings, generator: torch.Generator
) -> dict[str, Tensor]:
    features, facts = material.features.shape[1], material.facts.shape[1]
    h, k, v, w, e = (
        settings.width,
        settings.queries,
        settings.values,
        settings.connector,
        settings.directions,
    )
    joined = k * v + k + 16

    def normal(*shape: int, fan: int) -> Tensor:
        return drawn(generator, *shape, scale=fan**-0.5)

    return {
        "item_map": normal(features, h, fan=features),
        "item_bias": torch.zeros(h),
        "category_map": torch.zeros(categories, h),
        "score_map": drawn(generator, 2, h, scale=1.0),
        "query_map": normal(features, k, fan=features),
        "query_category": torch.zeros(categories, k),
        # The null answer weighs as much as about twelve answers at the start.
        "query_null": torch.full((k,), 2.5),
        "value_map": normal(k, h, v, fan=h),
        "facts_map": normal(facts, 16, fan=facts),
        "facts_bias": torch.zeros(16),
        "connect_map": normal(joined, w, fan=joined),
        "connect_bias": torch.zeros(w),
        "out_map": normal(w, e + 2, fan=w) * 0.3,
        "out_bias": torch.zeros(e + 2),
        "task_map": normal(features, e, fan=features) * 0.3,
        "task_bias": torch.zeros(e),
        "ease_map": torch.zeros(features),
        "ease_bias": torch.zeros(1),
    }


def _loss(tables: _Tables, weights: dict[str, Tensor], settings: SatSettings, generator: torch.Generator) -> Tensor:
    rows = torch.randint(len(tables.features), (settings.batch,), generator=generator)
    models = _drawn_instructions(tables, weights, rows, settings, generator)
    features = tables.features[rows]
    kept = torch.rand(features.shape, generator=generator) >= settings.dropout
    features = features * kept / (1.0 - settings.dropout)
    logits = prompt_logits(weights, features, models)
    scores, observed = tables.scores[rows], tables.observed[rows]
    loss = binary_cross_entropy(logits, scores, observed)
    return loss + settings.listwise * plackett_luce(logits, scores, observed) if settings.listwise else loss


def _drawn_instructions(
    tables: _Tables, weights: dict[str, Tensor], rows: Tensor, settings: SatSettings, generator: torch.Generator
) -> Tensor:
    """Model vectors `[M, E + 2]` from a random subset of each model's answers, none of them to prompts like `rows`."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    source = tables.suite if float(uniform(1)) < 0.5 else tables.others
    items = source[torch.randint(len(source), (settings.drawn_items,), generator=generator)].unique()
    items = items[~torch.isin(tables.groups[items], tables.groups[rows])]
    count = tables.scores.shape[1]
    # Log-uniform between about five of the drawn answers and all of them.
    share = torch.exp(torch.log(torch.tensor(0.01)) * uniform(count, 1))
    kind = uniform(count, 1)
    share = torch.where(kind < settings.nothing, torch.zeros_like(share), share)
    share = torch.where(kind > 1.0 - settings.everything, torch.ones_like(share), share)
    chosen = tables.observed[items].T & (uniform(count, len(items)) < share)
    scores = tables.scores[items].T
    flipped = uniform(count, len(items)) < settings.flips * uniform(count, 1)
    scores = torch.where(flipped, 1.0 - scores, scores)
    # A category goes unnamed half of the time: new suites have categories of their own.
    categories = tables.categories[items] if float(uniform(1)) < 0.5 else torch.full_like(items, -1)
    return model_vectors(
        weights, tables.features[items], categories, tables.expected[items].T, scores, chosen, tables.facts
    )


def model_vectors(
    weights: dict[str, Tensor],
    items: Tensor,
    categories: Tensor,
    expected: Tensor,
    scores: Tensor,
    chosen: Tensor,
    facts: Tensor,
) -> Tensor:
    """As `EncoderHead.model_vector` for M models over shared items.

    Args:
        items: `[S, P]` standardised.  categories: `[S]`.  expected, scores, chosen: `[M, S]`.  facts: `[M, F]`.
    """
    known = (categories >= 0).unsqueeze(1)
    place = categories.clamp(min=0)
    nothing = torch.zeros(())
    read = items @ weights["query_map"] + torch.where(known, weights["query_category"][place], nothing)
    base = items @ weights["item_map"] + weights["item_bias"]
    base = base + torch.where(known, weights["category_map"][place], nothing)
    said = torch.stack([scores - 0.5, scores - expected], dim=2)
    tokens = functional.silu(base.unsqueeze(0) + said @ weights["score_map"])
    top = torch.maximum(read.amax(dim=0) if len(read) else weights["query_null"], weights["query_null"]).detach()
    loud = torch.exp(read - top).T.unsqueeze(0) * chosen.unsqueeze(1)  # [M, K, S]
    total = loud.sum(dim=2)
    everything = total + torch.exp(weights["query_null"] - top)
    pooled = (loud @ tokens) / everything.unsqueeze(2)
    values = torch.einsum("mkh,khv->mkv", pooled, weights["value_map"]).flatten(1)
    known_facts = functional.silu(facts @ weights["facts_map"] + weights["facts_bias"])
    hidden = torch.cat([values, total / everything, known_facts], dim=1)
    connected = functional.silu(hidden @ weights["connect_map"] + weights["connect_bias"])
    return connected @ weights["out_map"] + weights["out_bias"]


def prompt_logits(weights: dict[str, Tensor], features: Tensor, models: Tensor) -> Tensor:
    """Logits `[B, M]` of standardised prompt features `[B, P]`; as `EncoderHead.logits`."""
    task = features @ weights["task_map"] + weights["task_bias"]
    ease = features @ weights["ease_map"] + weights["ease_bias"]
    return task @ models[:, :-2].T + models[:, -2] + ease.unsqueeze(1) * (1.0 + models[:, -1])
