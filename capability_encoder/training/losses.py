"""Training losses: pointwise, listwise across models, and the published routing losses kept as baselines.

All are pure functions of tensors. `logits` are scores of any real size, `scores` are observed outcomes in 0..1, and
`observed` is a boolean mask of the outcomes that exist; a masked entry contributes neither value nor gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Ties = Literal["strict", "breslow", "efron"]

# Stands for minus infinity where a real one would turn 0 * inf into NaN in the backward pass; exp of it is exactly 0.
_VANISHING = -1e30


def binary_cross_entropy(logits: Tensor, scores: Tensor, observed: Tensor) -> Tensor:
    """Mean cross-entropy of soft targets over the observed entries.

    Args:
        logits: `(batch, models)` real.
        scores: `(batch, models)` in 0..1; any value, NaN included, where not observed.
        observed: `(batch, models)` boolean.
    Returns:
        Scalar; 0 where nothing is observed.
    """
    targets = torch.where(observed, scores, torch.zeros_like(scores))
    pointwise = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weights = observed.to(logits.dtype)
    return (pointwise * weights).sum() / weights.sum().clamp(min=1.0)


def plackett_luce(logits: Tensor, scores: Tensor, observed: Tensor, *, ties: Ties = "strict") -> Tensor:
    """Negative log-likelihood of the order of the models, prompt by prompt, aware of ties.

    Each model is compared with the models that come after it in the true order. Outcomes of 0 or 1 tie massively, so
    what a tie means is the choice that matters:

    - `strict`: a model competes only with the strictly worse ones; ties state nothing, and a prompt that all models
      get right (or wrong) contributes nothing.
    - `breslow`: a model competes also with those that tie with it.
    - `efron`: as breslow, with the tied group leaving the race one average member at a time (the usual approximation
      of the sum over all orders within a tie).

    Without ties the three are the same Plackett-Luce likelihood (ListMLE; Model Spider's HierarchicalCE).

    Args:
        logits: `(batch, models)` real. scores: `(batch, models)`. observed: `(batch, models)` boolean.
    Returns:
        Scalar: the sum over comparisons divided by their number (models that have at least one rival in the race).
    Ref: Model Spider, arXiv:2306.03900, Eq. 8; Efron 1977 for the tie correction.
    """
    order_key = torch.where(observed, scores, torch.full_like(scores, -1.0))
    ascending, order = torch.sort(order_key.detach(), dim=1, stable=True)
    ranked_mask = torch.gather(observed, 1, order)
    ranked = torch.gather(logits, 1, order)
    # Shift by the row maximum: the likelihood does not change, and every exponent below stays finite.
    ranked = torch.where(ranked_mask, ranked, torch.full_like(ranked, _VANISHING))
    shift = ranked.detach().amax(dim=1, keepdim=True)
    ranked = torch.where(ranked_mask, ranked - shift, torch.full_like(ranked, _VANISHING))
    total_up_to = torch.logcumsumexp(ranked, dim=1)
    first = torch.searchsorted(ascending.contiguous(), ascending.contiguous(), right=False)
    last = torch.searchsorted(ascending.contiguous(), ascending.contiguous(), right=True) - 1
    worse = torch.where(
        first > 0, torch.gather(total_up_to, 1, (first - 1).clamp(min=0)), torch.full_like(ranked, _VANISHING)
    )
    unobserved = (~ranked_mask).sum(dim=1, keepdim=True)
    rivals = first > unobserved  # there is an observed, strictly worse model
    if ties == "strict":
        denominator = torch.logaddexp(ranked, worse)
        counted = ranked_mask & rivals
    else:
        at_risk = torch.gather(total_up_to, 1, last)
        denominator = at_risk if ties == "breslow" else _efron_denominator(ranked, worse, first, last)
        counted = ranked_mask & (rivals | (last > first))
    comparisons = torch.where(counted, denominator - ranked, torch.zeros_like(ranked))
    return comparisons.sum() / counted.sum().clamp(min=1).to(logits.dtype)


def _efron_denominator(ranked: Tensor, worse: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """log(worse + tied * (d - k) / d) for the k-th of d tied models; inputs sorted by rising score."""
    positions = torch.arange(ranked.shape[1], device=ranked.device).expand_as(first)
    tied_here = first.unsqueeze(2) == first.unsqueeze(1)
    tied_total = torch.logsumexp(
        torch.where(tied_here, ranked.unsqueeze(1), torch.full_like(ranked.unsqueeze(1), _VANISHING)), dim=2
    )
    size = (last - first + 1).to(ranked.dtype)
    remaining = (size - (positions - first).to(ranked.dtype)) / size
    return torch.logaddexp(worse, tied_total + torch.log(remaining))


def model_sat_contrast(yes_scores: Tensor, positive: Tensor | None = None) -> Tensor:
    """Cross-entropy of the one instruction that the model can handle among k instructions of the same model.

    Adding any number to all scores of one model leaves it unchanged, so it says nothing about the order of models.

    Args:
        yes_scores: `(groups, k)`, the Yes score of each instruction in a homogeneous group (one model per row);
            minus infinity removes an instruction from its group.
        positive: `(groups,)` index of the positive; the first column where absent.
    Ref: Model-SAT (AAAI 2025), Eq. 5.
    """
    target = torch.zeros(len(yes_scores), dtype=torch.long) if positive is None else positive
    return functional.cross_entropy(yes_scores, target)


def homogeneous_groups(
    scores: Tensor, observed: Tensor, *, negatives: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one homogeneous in-batch group per (prompt, model) that the model got right.

    Args:
        scores: `(batch, models)`; right means above one half.
        negatives: k - 1, wrong instructions of the same model, drawn with replacement.
    Returns:
        `rows (groups, k)` prompt indices with the positive first, and `columns (groups,)` model indices. Models
        without both a right and a wrong answer in the batch give no group.
    """
    right = observed & (scores > 0.5)
    wrong = observed & (scores <= 0.5)
    usable = wrong.any(dim=0)
    rows, columns = torch.nonzero(right & usable, as_tuple=True)
    if len(rows) == 0:
        return torch.zeros((0, negatives + 1), dtype=torch.long), torch.zeros(0, dtype=torch.long)
    weights = wrong.T.to(torch.float32)[columns]
    drawn = torch.multinomial(weights, negatives, replacement=True, generator=generator)
    return torch.cat([rows.unsqueeze(1), drawn], dim=1), columns


def sample_model_contrast(
    similarities: Tensor, scores: Tensor, observed: Tensor, *, top: int = 3, last: int = 3
) -> Tensor:
    """RouterDC's sample-LLM loss: each of the best models of a prompt against its worst ones.

    A best model that scored 0 is no positive, and a worst one above 0.5 is no negative, as in the authors' code.

    Args:
        similarities: `(batch, models)`, cosine of prompt and model embedding over the temperature.
    Returns:
        Scalar: summed over the `top` positives, averaged over prompts.
    Ref: RouterDC (NeurIPS 2024), arXiv:2409.19886, Eq. 4.
    """
    count = similarities.shape[1]
    top, last = min(top, count), min(last, count)
    key = torch.where(observed, scores, torch.full_like(scores, -1.0))
    best_scores, best = torch.topk(key, top, dim=1)
    far_key = torch.where(observed, scores, torch.full_like(scores, 2.0))
    worst_scores, worst = torch.topk(far_key, last, dim=1, largest=False)
    hidden = torch.full_like(similarities[:, :last], _VANISHING)
    negatives = torch.where(worst_scores <= 0.5, torch.gather(similarities, 1, worst), hidden)
    rivals = torch.logsumexp(negatives, dim=1, keepdim=True)
    positives = torch.gather(similarities, 1, best)
    per_positive = torch.logaddexp(positives, rivals) - positives
    return torch.where(best_scores > 0, per_positive, torch.zeros_like(per_positive)).sum(dim=1).mean()


def sample_sample_contrast(
    embeddings: Tensor, clusters: Tensor, *, negatives: int = 3, generator: torch.Generator
) -> Tensor:
    """RouterDC's cluster loss: a prompt is nearer to one of its cluster than to prompts of other clusters.

    Args:
        embeddings: `(batch, dim)`. clusters: `(batch,)` integers.
    Returns:
        Scalar; 0 where the batch holds a single cluster. The draw may pick the prompt itself, as in the authors' code.
    Ref: RouterDC, Eq. 5.
    """
    unit = functional.normalize(embeddings, dim=1)
    similarity = unit @ unit.T
    same = clusters.unsqueeze(0) == clusters.unsqueeze(1)
    usable = (~same).any(dim=1)
    if not bool(usable.any()):
        return embeddings.sum() * 0.0
    near = torch.multinomial(same[usable].to(torch.float32), 1, generator=generator)
    far = torch.multinomial((~same[usable]).to(torch.float32), negatives, replacement=True, generator=generator)
    chosen = torch.gather(similarity[usable], 1, torch.cat([near, far], dim=1))
    return model_sat_contrast(chosen)
