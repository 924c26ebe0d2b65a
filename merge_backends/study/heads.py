"""Classification heads: logistic regression on the frozen base encoder's vectors, never trained further.

The head stands in for CLIP's text tower: only the encoder differs between the rows of the table, and the base encoder
with this head is the probe.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Head:
    """A linear classifier: `weight` is `(classes, width)`, `bias` is `(classes,)`."""

    weight: torch.Tensor
    bias: torch.Tensor

    def logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """`(rows, width)` to `(rows, classes)`."""
        return nn.functional.linear(vectors, self.weight, self.bias)

    def accuracy(self, vectors: torch.Tensor, labels: torch.Tensor) -> float:
        """Share of rows whose largest logit is the label, in 0..1."""
        return float((self.logits(vectors).argmax(-1) == labels).float().mean())


PENALTIES = (3.0, 10.0, 30.0)


def fit_head(vectors: torch.Tensor, labels: torch.Tensor, classes: int, *, strength: float) -> Head:
    """Multinomial logistic regression with `0.5 |W|^2 / strength` added to the summed loss (scikit-learn's C)."""
    weight = torch.zeros(classes, vectors.shape[1], dtype=torch.float32, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=150, line_search_fn="strong_wolfe", tolerance_change=1e-7)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        error = nn.functional.cross_entropy(vectors @ weight.T + bias, labels)
        total = error + 0.5 * weight.square().sum() / (strength * len(labels))
        total.backward()
        return total

    optimiser.step(loss)
    return Head(weight.detach(), bias.detach())


def choose_head(
    train: tuple[torch.Tensor, torch.Tensor], validation: tuple[torch.Tensor, torch.Tensor], classes: int
) -> Head:
    """The head of the penalty that does best on the validation rows; the earlier, stronger penalty at equality."""
    best, best_accuracy = None, -1.0
    for strength in PENALTIES:
        head = fit_head(*train, classes, strength=strength)
        accuracy = head.accuracy(*validation)
        if accuracy > best_accuracy:
            best, best_accuracy = head, accuracy
    assert best is not None
    return best
