"""The base plus weighted task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from merge_backends.methods.base import TensorMethod
from merge_backends.methods.registry import method
from merge_backends.methods.weights import TaskVectorParameters, spread

if TYPE_CHECKING:
    import torch


@method("task_arithmetic")
class TaskArithmetic(TensorMethod[TaskVectorParameters]):
    """theta = theta_0 + lambda * sum of w_i (theta_i - theta_0).

    Ref: Editing models with task arithmetic, arXiv:2212.04089. Computed as one weighted sum of models, so that
    lambda 0 gives the base and one expert of weight 1 gives that expert, bit by bit.
    """

    parameters = TaskVectorParameters
    needs_base = True

    def merge_tensor(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: TaskVectorParameters,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        from merge_backends.methods.tensor_math import weighted_sum

        assert base is not None
        weights = spread(parameters.weight, len(experts), "weight")
        total = sum(weights)
        scale = parameters.scale / total if parameters.normalize and abs(total) >= 1e-8 else parameters.scale
        shares = [weight * scale for weight in weights]
        return weighted_sum([base, *experts], [1.0 - sum(shares), *shares])
