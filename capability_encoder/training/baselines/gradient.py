"""The one training loop behind the baselines that need gradients: AdamW with a cosine rate, one thread, seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from capability_encoder.training.data import FloatArray, Outcomes


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train. `decay` is AdamW's decoupled weight decay."""

    epochs: int = 20
    batch: int = 256
    rate: float = 3e-3
    decay: float = 1e-2


@dataclass(frozen=True, slots=True)
class Batchable:
    """Training outcomes as tensors: vectors `[N, D]`, scores `[N, M]` (0 where not measured), observed `[N, M]`."""

    vectors: Tensor
    scores: Tensor
    observed: Tensor

    @classmethod
    def of(cls, train: Outcomes) -> Batchable:
        """Copy the outcomes into tensors."""
        return cls(
            vectors=torch.from_numpy(np.ascontiguousarray(train.vectors, dtype=np.float32)),
            scores=torch.from_numpy(np.nan_to_num(train.scores, nan=0.0).astype(np.float32)),
            observed=torch.from_numpy(train.measured),
        )

    def __len__(self) -> int:
        return len(self.vectors)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: bitwise repeatable, and no collapse beside a busy core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def descend(
    parameters: Sequence[Tensor],
    loss_of_rows: Callable[[Tensor], Tensor],
    *,
    rows: int,
    schedule: Schedule,
    generator: torch.Generator,
) -> None:
    """Minimise `loss_of_rows(index)` over shuffled batches of `rows` rows; changes `parameters` in place."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(list(parameters), lr=schedule.rate, weight_decay=schedule.decay)
    batches = max(1, -(-rows // schedule.batch))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule.epochs * batches)
    with one_thread():
        for _ in range(schedule.epochs):
            order = torch.randperm(rows, generator=generator)
            for start in range(0, rows, schedule.batch):
                optimizer.zero_grad()
                loss = loss_of_rows(order[start : start + schedule.batch])
                if loss.requires_grad:
                    loss.backward()
                    optimizer.step()
                cosine.step()
    for parameter in parameters:
        parameter.requires_grad_(False)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own: no global random state is read or changed."""
    return torch.Generator().manual_seed(seed)


def drawn(generator: torch.Generator, *shape: int, scale: float) -> Tensor:
    """Normal initial values with standard deviation `scale`."""
    return torch.randn(*shape, generator=generator) * scale


def mean_logits(train: Outcomes) -> Tensor:
    """Logit of each model's smoothed mean score `[M]`: where every model's bias starts."""
    measured = train.measured
    right = np.where(measured, train.scores, 0.0).sum(axis=0)
    mean = (right + 1.0) / (measured.sum(axis=0) + 2.0)
    return torch.from_numpy(np.log(mean / (1.0 - mean)).astype(np.float32))


def to_array(values: Tensor) -> FloatArray:
    """Detached float32 numpy copy."""
    return np.asarray(values.detach().numpy(), dtype=np.float32)
