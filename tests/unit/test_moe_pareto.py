"""Preferences to weights, exact Pareto steps, fronts and their hypervolume."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from merge_backends import moe
from merge_backends.errors import MergeError, RecipeError
from merge_backends.moe import pareto
from merge_backends.moe.adapt import Batch
from merge_backends.moe.exact_pareto import exact_pareto_weights
from merge_backends.moe.front import (
    FrontParameters,
    Point,
    evaluate_front,
    hypervolume,
    monotonicity,
    non_dominated,
    train_front,
)
from tests.support.tiny_models import SHAPES, dense, family, inputs, run, task_arithmetic, tiny_model

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
HEAD = torch.randn(4, 32, generator=torch.Generator().manual_seed(9)) * 3
shapes = pytest.mark.parametrize("shape", SHAPES)


def classes(task: str, model: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
    return model(**given).last_hidden_state.mean(1) @ HEAD.T


def batches(experts: list[dict[str, Tensor]], *, seed: int) -> dict[str, list[Batch]]:
    """The same inputs with the labels of each expert, so that the tasks pull apart."""
    made = {}
    for index, expert in enumerate(experts):
        given = inputs(batch=24, seed=seed)
        with torch.no_grad():
            made[f"task{index}"] = [Batch(given, classes("", dense("bert", expert), given).argmax(-1))]
    return made


@shapes
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("expert", [0, 2])
def test_a_one_hot_preference_with_identity_gates_is_that_expert(shape: str, layers: int, expert: int) -> None:
    base, experts = family(shape)
    settings = {"identity": True, "partial": False, "router_hidden_layers": layers}
    mixture = moe.build("pareto", tiny_model(shape), base, experts, settings)
    pareto.set_preference(mixture, [float(index == expert) for index in range(3)])
    torch.testing.assert_close(run(mixture, inputs()), run(dense(shape, experts[expert]), inputs()), **CLOSE)


@shapes
def test_a_deployed_preference_is_a_plain_model_that_answers_the_same(shape: str) -> None:
    base, experts = family(shape)
    mixture = moe.build("pareto", tiny_model(shape), base, experts, {"partial": False})
    weights = pareto.deploy(mixture, [0.2, 0.5, 0.3])
    pareto.set_preference(mixture, [0.2, 0.5, 0.3])
    assert torch.equal(run(dense(shape, weights), inputs()), run(mixture, inputs()))


@shapes
def test_new_partial_gates_are_near_task_arithmetic(shape: str) -> None:
    """Gate weights of size 0.01 move a coefficient by less than 0.002, so weights by a few 1e-4."""
    base, experts = family(shape)
    mixture = moe.build("pareto", tiny_model(shape), base, experts)
    expected = task_arithmetic(base, experts, 0.3)
    for name, tensor in pareto.deploy(mixture, [1, 1, 1]).items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-3, rtol=0)


def test_gates_have_the_papers_size() -> None:
    """4 K^2 + 3 K numbers a module: 22 for two experts, so 44 for the MLPs of two layers."""
    base, experts = family("llama", experts=2)
    mixture = moe.build("pareto", tiny_model("llama"), base, experts)
    assert sum(parameter.numel() for parameter in pareto.weights_of(mixture).gates.parameters()) == 44


@pytest.mark.parametrize(
    ("preference", "grid", "expected"),
    [
        ((0.3, 0.7), 10, (0.3, 0.7)),
        ((0.34, 0.66), 10, (0.3, 0.7)),
        ((1 / 3, 1 / 3, 1 / 3), 10, (0.4, 0.3, 0.3)),
        ((0.05, 0.95), 2, (0.0, 1.0)),
    ],
)
def test_preferences_snap_to_the_grid(preference: tuple[float, ...], grid: int, expected: tuple[float, ...]) -> None:
    assert pareto.snap(preference, grid) == pytest.approx(expected)


def test_the_grid_of_three_experts_has_66_points() -> None:
    points = list(pareto.lattice(3, 10))
    assert len(set(points)) == 66
    assert all(sum(point) == pytest.approx(1) for point in points)


def test_near_preferences_deploy_the_same_model() -> None:
    base, experts = family("llama", experts=2)
    mixture = moe.build("pareto", tiny_model("llama"), base, experts)
    first, second = pareto.deploy(mixture, [0.31, 0.69]), pareto.deploy(mixture, [30, 70])
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("preference", [[1.0], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]])
def test_a_preference_that_does_not_fit_is_refused(preference: list[float]) -> None:
    with pytest.raises(RecipeError, match="does not fit 2 experts"):
        pareto.normalised(preference, 2)


def test_a_mixture_that_reads_no_preference_says_so() -> None:
    base, experts = family("llama")
    with pytest.raises(MergeError, match="smile mixture reads no preference"):
        pareto.set_preference(moe.build("smile", tiny_model("llama"), base, experts), [1, 0, 0])


@pytest.mark.parametrize("method", ["linear", "epo"])
def test_training_moves_each_corner_to_its_task(method: str) -> None:
    """After training, a preference for a task answers it better than a preference for the other does."""
    base, experts = family("bert", experts=2, scale=0.1)
    mixture = moe.build("pareto", tiny_model("bert"), base, experts, {"partial": False, "router_hidden_layers": 1})
    settings = FrontParameters(method=method, steps=80, learning_rate=5e-2)
    given = batches(experts, seed=1)
    report = train_front(mixture, given, validation=given, predict=classes, parameters=settings)
    first, second = evaluate_front(mixture, given, predict=classes, preferences=[(1.0, 0.0), (0.0, 1.0)])
    assert report.kept
    assert first.loss[0] < second.loss[0]
    assert second.loss[1] < first.loss[1]


def test_gates_that_end_worse_are_put_back() -> None:
    """Gates start at each corner's own expert and learn the other's answers: worse, so nothing may stay of it."""
    base, experts = family("bert", experts=2, scale=0.1)
    mixture = moe.build("pareto", tiny_model("bert"), base, experts, {"partial": False, "identity": True})
    before = pareto.deploy(mixture, [0.5, 0.5])
    right, wrong = batches(experts, seed=1), batches(experts[::-1], seed=1)
    settings = FrontParameters(steps=60, learning_rate=0.1, hold=0)
    report = train_front(mixture, wrong, validation=right, predict=classes, parameters=settings)
    assert not report.kept
    assert report.end > report.start
    assert all(torch.equal(tensor, before[name]) for name, tensor in pareto.deploy(mixture, [0.5, 0.5]).items())


def test_losses_count_in_units_of_guessing() -> None:
    """Four classes, no temperature: the loss in units of guessing is the one in nats over log 4, or over its root."""
    base, experts = family("bert", experts=2, scale=0.1)
    given = batches(experts, seed=1)
    starts = {}
    for unit in ("nats", "root", "chance"):
        mixture = moe.build("pareto", tiny_model("bert"), base, experts, {"partial": False, "identity": True})
        settings = FrontParameters(unit=unit, temper=False, steps=1)
        report = train_front(mixture, given, validation=given, predict=classes, parameters=settings)
        assert report.temperatures == (1.0, 1.0)
        starts[unit] = report.start
    assert starts["nats"] / starts["chance"] == pytest.approx(np.log(4))
    assert starts["root"] / starts["chance"] == pytest.approx(np.sqrt(np.log(4)))


def test_without_its_gates_a_preference_is_the_plain_merge() -> None:
    base, experts = family("bert", experts=2, scale=0.1)
    mixture = moe.build("pareto", tiny_model("bert"), base, experts, {"partial": False})
    found = pareto.weights_of(mixture)(torch.tensor([0.7, 0.3]), plain=True)
    for name, tensor in found.items():
        deltas = [expert[name] - base[name] for expert in experts]
        torch.testing.assert_close(tensor.detach(), base[name] + 0.7 * deltas[0] + 0.3 * deltas[1])


def test_what_is_held_does_not_lose_to_the_plain_merge() -> None:
    """What one task gains the other loses at some preferences; held, no loss is above task arithmetic's anywhere."""
    base, experts = family("bert", experts=2, scale=0.1)
    given, preferences = batches(experts, seed=1), [(0.9, 0.1), (0.5, 0.5), (0.1, 0.9)]
    rises = {}
    for hold in (0.0, 30.0):
        mixture = moe.build("pareto", tiny_model("bert"), base, experts, {"partial": False, "identity": True})
        plain = evaluate_front(mixture, given, predict=classes, preferences=preferences)
        settings = FrontParameters(steps=80, learning_rate=5e-3, hold=hold)
        train_front(mixture, given, validation=given, predict=classes, parameters=settings)
        learnt = evaluate_front(mixture, given, predict=classes, preferences=preferences)
        rises[hold] = max(
            np.subtract(after.loss, before.loss).max() for after, before in zip(learnt, plain, strict=True)
        )
    assert rises[0.0] > 0.5
    assert rises[30.0] < 0.001


def test_a_temperature_takes_up_how_sure_the_answers_are() -> None:
    """Answers that are right and not sure enough: the temperature falls below 1, and the model keeps its logits."""
    base, experts = family("bert", experts=1, scale=0.1)
    experts *= 2
    mixture = moe.build("pareto", tiny_model("bert"), base, experts, {"partial": False, "identity": True})

    def unsure(task: str, model: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
        return classes(task, model, given) * 0.1

    given = batches(experts, seed=1)
    settings = FrontParameters(steps=80, learning_rate=5e-2)
    report = train_front(mixture, given, validation=given, predict=unsure, parameters=settings)
    assert max(report.temperatures) < 0.7


def test_training_wants_a_task_per_expert() -> None:
    base, experts = family("bert", experts=3)
    given = batches(experts[:2], seed=1)
    with pytest.raises(MergeError, match="2 tasks for 3 experts"):
        train_front(moe.build("pareto", tiny_model("bert"), base, experts), given, validation=given, predict=classes)


@pytest.mark.parametrize("preference", [(0.5, 0.5), (0.2, 0.8), (0.75, 0.25)])
def test_exact_steps_reach_the_ray_of_the_preference(preference: tuple[float, float]) -> None:
    """Two bowls with minima at (-1, 0) and (1, 0): on the front, exact means preference times loss is equal."""
    target = np.array([[-1.0, 0.0], [1.0, 0.0]])
    point = np.array([0.3, 0.8])
    share = np.asarray(preference)
    for _ in range(600):
        losses = ((point - target) ** 2).sum(axis=1)
        gradients = 2 * (point - target)
        weights, _ = exact_pareto_weights(losses, gradients, share)
        point = point - 0.02 * weights @ gradients
    scaled = share * ((point - target) ** 2).sum(axis=1)
    assert scaled[0] / scaled[1] == pytest.approx(1, abs=0.05)
    assert abs(point[1]) < 0.05


def test_exact_weights_lie_on_the_simplex_where_gradients_oppose() -> None:
    weights, _ = exact_pareto_weights(np.array([1.0, 2.0]), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.5, 0.5]))
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()


def test_hypervolume_of_two_steps_by_hand() -> None:
    """(1, 3) and (2, 1) over (0, 0): 1*3 + 2*1 - 1*1 = 4; the dominated (1, 1) adds nothing."""
    assert hypervolume([(1, 3), (2, 1), (1, 1)], (0, 0)) == pytest.approx(4)


def test_hypervolume_of_three_tasks_agrees_with_counting() -> None:
    """Two boxes 2x1x1 and 1x2x3 over the origin: 2 + 6 - 1 = 7; below the reference counts nothing."""
    assert hypervolume([(2, 1, 1), (1, 2, 3), (-1, 5, 5)], (0, 0, 0)) == pytest.approx(7)


def test_the_front_is_what_nothing_dominates() -> None:
    assert non_dominated([(0.9, 0.1), (0.5, 0.5), (0.4, 0.5), (0.1, 0.9), (0.5, 0.5)]) == [0, 1, 3, 4]


def test_monotonicity_counts_pairs_in_order() -> None:
    points = [
        Point((0.0, 1.0), (0.1, 0.9), (0, 0)),
        Point((0.5, 0.5), (0.3, 0.5), (0, 0)),
        Point((1.0, 0.0), (0.2, 0.1), (0, 0)),
    ]
    assert monotonicity(points) == pytest.approx([2 / 3, 1.0])
