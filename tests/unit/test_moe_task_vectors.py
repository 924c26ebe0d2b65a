"""Task vectors of one map: pruning, sparse against dense, gradients, and when merging pays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from merge_backends.moe.mixed import Router, crossover, encode_layer
from merge_backends.moe.parameters import SMILEParameters
from merge_backends.moe.smile import decompose
from merge_backends.moe.task_vectors import DenseTaskVectors, SparseTaskVectors, prune

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def pruned(*, seed: int = 0, ratio: float = 0.7) -> Tensor:
    deltas = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(seed))
    return torch.stack([prune(delta, ratio) for delta in deltas])


def test_pruning_keeps_the_largest_entries_by_hand() -> None:
    delta = torch.tensor([[0.1, -5.0, 2.0], [3.0, -0.2, 1.0]])
    assert prune(delta, 0.5).tolist() == [[0.0, -5.0, 2.0], [3.0, 0.0, 0.0]]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9])
def test_pruning_drops_exactly_its_share_even_where_all_entries_tie(ratio: float) -> None:
    assert int((prune(torch.ones(7, 9), ratio) == 0).sum()) == int(ratio * 63)


def test_sparse_and_dense_vectors_multiply_alike() -> None:
    values, hidden = pruned(), torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    sparse, dense = SparseTaskVectors.from_dense(values), DenseTaskVectors(values)
    torch.testing.assert_close(sparse.times(hidden), dense.times(hidden), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sparse_and_dense_vectors_add_up_alike(dtype: torch.dtype) -> None:
    values, weights = pruned().to(dtype), torch.tensor([0.5, -1.0, 2.0], dtype=dtype)
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    sparse, dense = SparseTaskVectors.from_dense(values), DenseTaskVectors(values)
    near = CLOSE if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(sparse.add_to(weight, weights), dense.add_to(weight, weights), **near)


def test_gradients_of_sparse_sums_are_those_of_dense_ones() -> None:
    values, direction = pruned(), torch.randn(6, 5, generator=torch.Generator().manual_seed(4))
    found = []
    for vectors in (SparseTaskVectors.from_dense(values), DenseTaskVectors(values)):
        weight = torch.ones(6, 5, requires_grad=True)
        weights = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
        (vectors.add_to(weight, weights) * direction).sum().backward()
        found.append((weight.grad, weights.grad))
    for sparse, dense in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense, **CLOSE)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "autocast"])
def test_dense_sums_and_their_gradients_are_those_of_plain_tensors(half: bool) -> None:
    values, direction = pruned(), torch.randn(6, 5, generator=torch.Generator().manual_seed(4))
    weight = torch.ones(6, 5, requires_grad=True)
    weights = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    expected = (weight + torch.einsum("k,koi->oi", weights, values)) * direction
    wanted = [expected.detach(), *torch.autograd.grad(expected.sum(), (weight, weights))]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):  # the sum is not rounded to bf16
        merged = DenseTaskVectors(values).add_to(weight, weights) * direction
    found = [merged.detach(), *torch.autograd.grad(merged.sum(), (weight, weights))]
    torch.testing.assert_close(found, wanted, **CLOSE)


def test_scattering_and_adding_rows_give_the_same() -> None:
    vectors, weights = SparseTaskVectors.from_dense(pruned()), torch.tensor([0.5, -1.0, 2.0])
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(vectors._scatter(weight, weights), vectors.summed(weight, weights), **CLOSE)


def test_a_mask_and_its_values_make_the_vectors_again() -> None:
    values = pruned()
    vectors = SparseTaskVectors.from_dense(values)
    again = SparseTaskVectors.from_mask(vectors.mask(), vectors.values)
    assert torch.equal(vectors.mask(), values != 0)
    assert torch.equal(again.times(torch.eye(5).unsqueeze(0)), vectors.times(torch.eye(5).unsqueeze(0)))


def test_an_expert_that_lost_all_entries_adds_nothing() -> None:
    values = pruned()
    values[1] = 0
    vectors, weight = SparseTaskVectors.from_dense(values), torch.zeros(6, 5)
    assert not vectors.add_to(weight, torch.tensor([0.0, 7.0, 0.0])).any()


def test_merging_pays_from_where_the_formula_says() -> None:
    """(8 + 2) * 4 bytes * 133 / 16 = 332.5 tokens in float32, half of it in bfloat16, on a GPU."""
    device = torch.device("cuda")
    assert crossover(8, device, torch.float32) == 333
    assert crossover(8, device, torch.bfloat16) == 167


def test_a_router_has_the_papers_size_and_start() -> None:
    """d^2 + d + dK + K numbers; with its last weights at 0 it gives the initial weight to everything."""
    router = Router(8, 3, hidden_layers=2, init_lambda=0.3, generator=torch.Generator().manual_seed(0))
    assert sum(parameter.numel() for parameter in router.parameters()) == 64 + 8 + 24 + 3
    router.make_static(0.3)
    assert torch.equal(router(torch.randn(2, 5, 8)), torch.full((2, 5, 3), 0.3))


@pytest.mark.parametrize(("layers", "numbers"), [(0, 3), (1, 8 * 3 + 3)])
def test_shallow_routers_are_small(layers: int, numbers: int) -> None:
    router = Router(8, 3, hidden_layers=layers, init_lambda=0.3, generator=torch.Generator().manual_seed(0))
    assert sum(parameter.numel() for parameter in router.parameters()) == numbers
    assert router(torch.zeros(2, 5, 8)).shape == (2, 5, 3)


def test_the_code_of_a_layer_by_hand() -> None:
    """Width 2: sine and cosine of the index itself."""
    assert encode_layer(1, 2).tolist() == pytest.approx([0.841471, 0.540302], abs=1e-6)
    assert encode_layer(3, 0).numel() == 0


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_low_rank_factors_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    delta = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    reduce, expand = decompose(delta.unsqueeze(0), SMILEParameters(k=3, gate_k=2))
    left, values, right = torch.linalg.svd(delta)
    expected = (left[:, :3] * values[:3]) @ right[:3]
    torch.testing.assert_close(expand[0] @ reduce[0], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reduce[0] @ reduce[0].T, torch.eye(3), atol=1e-4, rtol=0)


def test_a_wide_gate_beside_narrow_experts_keeps_its_own_directions() -> None:
    deltas = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0))
    reduce, expand = decompose(deltas, SMILEParameters(k=2, gate_k=5))
    assert reduce.shape == (2, 5, 9)
    assert expand.shape == (2, 6, 2)


def test_ranks_that_no_expert_fills_are_not_kept() -> None:
    """Experts of rank 1, as a LoRA leaves them, take one row whatever `k` allows, and are exact."""
    first, second = torch.arange(1.0, 7).unsqueeze(1), torch.arange(1.0, 10).unsqueeze(0)
    delta = first @ second
    reduce, expand = decompose(delta.unsqueeze(0), SMILEParameters(k=4, gate_k=4))
    assert reduce.shape == (1, 1, 9)
    torch.testing.assert_close(expand[0] @ reduce[0], delta, atol=1e-4, rtol=1e-5)
