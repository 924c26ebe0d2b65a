"""What a merge method is: a name, a parameter model, and a generator of merged tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from merge_backends.errors import IncompatibleError, RecipeError

if TYPE_CHECKING:
    import torch

    Weights = Mapping[str, torch.Tensor]
    """Tensors by name: a plain dict, or a checkpoint that reads each one when asked."""
else:
    Weights = Mapping


class Parameters(BaseModel):
    """Base of every method's parameters: frozen, and nothing unknown is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


ParametersT = TypeVar("ParametersT", bound=BaseModel)


class MergeMethod(ABC, Generic[ParametersT]):
    """One way of making one set of weights out of several. Instances hold no state."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    parameters: ClassVar[type[BaseModel]]
    needs_base: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False
    order_matters: ClassVar[bool] = False
    """Whether swapping two experts (with their weights) changes the result."""

    @abstractmethod
    def merge(
        self,
        base: Weights | None,
        experts: Sequence[Weights],
        parameters: ParametersT,
        *,
        seed: int = 0,
        data: Any = None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the merged tensors one after the other, in the order of the base's (or first expert's) names.

        Args:
            base: the common ancestor; required where `needs_base`.
            experts: at least one; same names and shapes as the base.
            seed: of everything random; the same seed gives the same bits.
            data: what methods with `needs_data` learn from.

        Dtype and shape of each tensor are those of the base (else of the first expert); inputs are never changed.
        """

    def require(self, base: Weights | None, experts: Sequence[Weights], data: Any = None) -> None:
        """Raises `RecipeError` or `IncompatibleError` where the inputs cannot be those of this method."""
        if not experts:
            raise RecipeError(f"The merge method {self.name!r} needs at least one model.", "Add it to `models`.")
        if self.needs_base and base is None:
            raise RecipeError(f"The merge method {self.name!r} needs a base model.", "Set `base_model`.")
        if self.needs_data and data is None:
            raise RecipeError(f"The merge method {self.name!r} needs data.", "Give example texts of each task.")
        reference = base if base is not None else experts[0]
        for number, expert in enumerate(experts, start=1):
            missing = sorted(set(reference) ^ set(expert))
            if missing:
                raise IncompatibleError(
                    f"Model {number} has not the same tensors: {missing[0]!r} is on one side only"
                    f" ({len(missing)} such tensors).",
                    "Merge models of one architecture.",
                )


class TensorMethod(MergeMethod[ParametersT]):
    """A method that treats each tensor on its own, so that parameters may differ per tensor."""

    def merge(
        self,
        base: Weights | None,
        experts: Sequence[Weights],
        parameters: ParametersT,
        *,
        seed: int = 0,
        data: Any = None,
        parameters_of: Callable[[str], ParametersT] | None = None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """See `MergeMethod.merge`; `parameters_of` gives the parameters of one tensor in place of `parameters`."""
        self.require(base, experts, data)
        state = self.prepare(base, experts, parameters)
        for name in base if base is not None else experts[0]:
            own = parameters_of(name) if parameters_of is not None else parameters
            ancestor = base[name] if base is not None else None
            yield name, self.merged(name, ancestor, [w[name] for w in experts], own, seed=seed, state=state)

    def merged(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: ParametersT,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        """`merge_tensor` after the checks that all methods share; whole numbers (position ids) must agree.

        Raises:
            IncompatibleError: for other shapes, or whole numbers that differ.
        """
        reference = base if base is not None else experts[0]
        for number, expert in enumerate(experts, start=1):
            if expert.shape != reference.shape:
                raise IncompatibleError(
                    f"Tensor {name!r} of model {number} is {tuple(expert.shape)}, not {tuple(reference.shape)}.",
                    "Merge models of one architecture and vocabulary.",
                )
            if not reference.is_floating_point() and not bool((expert == reference).all()):
                raise IncompatibleError(f"Tensor {name!r} holds whole numbers that differ between the models.")
        if not reference.is_floating_point():
            return reference.clone()
        return self.merge_tensor(name, base, experts, parameters, seed=seed, state=state)

    def prepare(self, base: Weights | None, experts: Sequence[Weights], parameters: ParametersT) -> Any:
        """What has to be known of the whole model before the first tensor, handed to each `merge_tensor`."""
        return None

    @abstractmethod
    def merge_tensor(
        self,
        name: str,
        base: torch.Tensor | None,
        experts: Sequence[torch.Tensor],
        parameters: ParametersT,
        *,
        seed: int = 0,
        state: Any = None,
    ) -> torch.Tensor:
        """The merged tensor, of the dtype and shape of `base` (else of the first expert)."""
