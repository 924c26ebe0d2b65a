"""Fisher, RegMean and AdaMerging: numbers by hand, slow references from the papers, and laws on four shapes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from merge_backends.calibration import CalibrationData, TaskData, forward, in_float32
from merge_backends.errors import IncompatibleError, MergeError, RecipeError
from merge_backends.methods import entry, parse_parameters
from merge_backends.methods.adamerging import disjoint, learn_coefficients
from merge_backends.methods.fisher import fisher_diagonal
from merge_backends.methods.regmean import gram_matrices, linear_layers
from tests.support.merge_models import SHAPES, nearby, tiny_model, token_batches, weights_of

METHODS = ("fisher", "regmean", "adamerging")
FAST = {"fisher": {"examples": 4}, "regmean": {}, "adamerging": {"steps": 2}}


class OneLayer(nn.Module):
    """logits = W x: small enough to merge by hand."""

    def __init__(self, inputs: int = 2, outputs: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(logits=self.layer(x))


def merged(name: str, base: Any, experts: list[Any], data: Any, seed: int = 0, **given: Any) -> dict[str, Tensor]:
    found = entry(name)
    parameters = parse_parameters(found.parameters, given, owner=name)
    return dict(found.merge(base, experts, parameters, seed=seed, data=data))


def hand(rows: list[list[float]], labels: list[int] | None = None) -> TaskData:
    answers = None if labels is None else [torch.tensor(labels)]
    return TaskData("hand", [{"x": torch.tensor(rows)}], answers)


def world(shape: str, experts: int = 2) -> tuple[dict[str, Tensor], list[dict[str, Tensor]], CalibrationData]:
    model = tiny_model(shape)
    base = weights_of(model)
    tasks = [TaskData(f"task{number}", token_batches(seed=number)) for number in range(experts)]
    return base, [nearby(base, seed=number) for number in range(experts)], CalibrationData(model, tasks)


def close(left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float) -> bool:
    return list(left) == list(right) and all(
        torch.allclose(left[name].float(), right[name].float(), atol=tolerance, rtol=0) for name in left
    )


def test_regmean_by_hand() -> None:
    # G1 = diag(4, 1), G2 = diag(1, 4), W1 = [1 0], W2 = [0 1]: (G1 + G2)^-1 (G1 W1' + G2 W2') = [4/5, 4/5].
    data = CalibrationData(OneLayer(2, 1), [hand([[2.0, 0.0], [0.0, 1.0]]), hand([[1.0, 0.0], [0.0, 2.0]])])
    experts = [{"layer.weight": torch.tensor([[1.0, 0.0]])}, {"layer.weight": torch.tensor([[0.0, 1.0]])}]
    result = merged("regmean", None, experts, data, ridge=0.0)
    assert torch.allclose(result["layer.weight"], torch.tensor([[0.8, 0.8]]), atol=1e-6)


def test_regmean_scales_off_diagonal_entries_by_hand() -> None:
    # G1 = [[1, 1], [1, 1]] (one row [1, 1]), halved off the diagonal; G2 = I/2. W1 = [2 0], W2 = [0 0].
    data = CalibrationData(OneLayer(2, 1), [hand([[1.0, 1.0]]), hand([[1.0, 0.0], [0.0, 1.0]])])
    experts = [{"layer.weight": torch.tensor([[2.0, 0.0]])}, {"layer.weight": torch.tensor([[0.0, 0.0]])}]
    result = merged("regmean", None, experts, data, ridge=0.0, off_diagonal=0.5)
    # [[1.5, .5], [.5, 1.5]] w = [2, 1]  =>  w = [1.25, .25]
    assert torch.allclose(result["layer.weight"], torch.tensor([[1.25, 0.25]]), atol=1e-6)


def test_regmean_is_the_least_squares_fit_of_the_experts_outputs() -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(50, 5, generator=generator) for _ in range(3)]
    weights = [torch.randn(4, 5, generator=generator) for _ in range(3)]
    data = CalibrationData(OneLayer(5, 4), [TaskData(str(i), [{"x": x}]) for i, x in enumerate(inputs)])
    result = merged("regmean", None, [{"layer.weight": w} for w in weights], data, off_diagonal=1.0, ridge=0.0)
    outputs = torch.cat([x @ w.T for x, w in zip(inputs, weights, strict=True)])
    reference = torch.linalg.lstsq(torch.cat(inputs), outputs).solution.T
    assert torch.allclose(result["layer.weight"], reference, atol=1e-5)


def test_regmean_leaves_padding_out_of_the_gram_matrices() -> None:
    _, experts, data = world("bert")
    layers = linear_layers(data.model)
    weights = in_float32(data.model, experts[0])
    whole = gram_matrices(data.model, weights, data.tasks[0], layers, 100)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    total, rows = torch.zeros(16, 16), 0
    for batch in data.tasks[0].batches:
        states = data.model.bert.embeddings(batch["input_ids"])
        patched = {key.removeprefix("bert.embeddings."): value for key, value in weights.items() if "embeddings" in key}
        states = torch.func.functional_call(data.model.bert.embeddings, patched, (batch["input_ids"],))
        kept = states[batch["attention_mask"].bool()]
        total, rows = total + kept.T @ kept, rows + len(kept)
    assert torch.allclose(whole[name], total / rows, atol=1e-5)


def test_regmean_plus_plus_takes_inputs_from_the_merged_blocks() -> None:
    base, experts, data = world("llama")
    result = merged("regmean", base, experts, data, merged_inputs=True, off_diagonal=1.0)
    name = "model.layers.1.self_attn.q_proj.weight"
    gram, product = torch.zeros(16, 16).double(), torch.zeros(16, 16).double()
    for expert, task in zip(experts, data.tasks, strict=True):
        below = {key: (expert if key.startswith("model.layers.1.") else result)[key] for key in expert}
        own = gram_matrices(
            data.model, in_float32(data.model, below), task, {name: linear_layers(data.model)[name]}, 100
        )
        gram += own[name].double()
        product += own[name].double() @ expert[name].T.double()
    reference = torch.linalg.solve(gram, product).T.float()
    assert torch.allclose(result[name], reference, atol=2e-3)  # the method's ridge of 1e-6 is not in the reference


def test_fisher_by_hand() -> None:
    # At W = 0 both classes have p = 1/2, so with x = [1, 0] the gradient is +-1/2 on column 1, else 0.
    data = CalibrationData(OneLayer(), [hand([[1.0, 0.0]], [0]), hand([[0.0, 1.0]], [0])])
    parameters = parse_parameters(entry("fisher").parameters, {"targets": "labels"}, owner="fisher")
    weights = {"layer.weight": torch.zeros(2, 2)}
    fisher = fisher_diagonal(data.model, weights, data.tasks[0], parameters, 0)["layer.weight"]
    assert torch.allclose(fisher, torch.tensor([[0.25, 0.0], [0.25, 0.0]]))


def test_fisher_gives_each_entry_to_the_expert_that_uses_it() -> None:
    data = CalibrationData(OneLayer(), [hand([[1.0, 0.0]], [0]), hand([[0.0, 1.0]], [0])])
    experts = [{"layer.weight": torch.full((2, 2), 1.0)}, {"layer.weight": torch.full((2, 2), 3.0)}]
    result = merged("fisher", None, experts, data, targets="labels")["layer.weight"]
    # Equal logits: F1 = 1/4 on column 1, F2 = 1/4 on column 2; the rest is decided by the floor of 1e-6.
    low, high = (0.250001 * 1 + 1e-6 * 3) / 0.250002, (1e-6 * 1 + 0.250001 * 3) / 0.250002
    assert torch.allclose(result, torch.tensor([[low, high], [low, high]]), atol=1e-6)


def test_fisher_is_the_mean_of_squared_gradients_text_by_text() -> None:
    base, _, data = world("bert")
    labels = [torch.tensor([0, 1, 2, 0]), torch.tensor([2, 1, 1, 0])]
    task = TaskData("labelled", data.tasks[0].batches, labels)
    parameters = parse_parameters(entry("fisher").parameters, {"targets": "labels"}, owner="fisher")
    found = fisher_diagonal(data.model, base, task, parameters, 0)
    name = "bert.encoder.layer.1.output.dense.weight"
    total = torch.zeros_like(base[name])
    for batch, answers in zip(task.batches, labels, strict=True):
        for row in range(4):
            leaf = base[name].clone().requires_grad_()
            logits = forward(data.model, {**base, name: leaf}, {k: v[row : row + 1] for k, v in batch.items()}).logits
            (gradient,) = torch.autograd.grad(-logits.log_softmax(-1)[0, answers[row]], leaf)
            total += gradient**2
    assert torch.allclose(found[name], total / 8, atol=1e-6)


def test_adamerging_gradient_is_that_of_the_papers_objective() -> None:
    base, experts, data = world("bert")
    given = {"steps": 1, "learning_rate": 1e-3}
    parameters = parse_parameters(entry("adamerging").parameters, given, owner="adamerging")
    learned, taus = learn_coefficients(base, experts, parameters, data)
    weights = torch.full((2, len(learned.names)), 0.3, requires_grad=True)
    theta = {
        name: base[name] + weights[0, column] * taus[0][name] + weights[1, column] * taus[1][name]
        for column, name in enumerate(learned.names)
    }
    loss = torch.zeros(())
    for task in data.tasks:
        p = torch.func.functional_call(data.model, theta, kwargs=dict(task.batches[0])).logits.softmax(-1)
        loss = loss - (p * p.log()).sum(-1).mean()
    (gradient,) = torch.autograd.grad(loss, weights)
    # Adam's first step is the learning rate against the gradient's sign.
    used = gradient.abs() > 1e-6
    assert learned.history[0] == pytest.approx(loss.item(), abs=1e-5)
    assert torch.allclose((learned.coefficients - 0.3)[used], -1e-3 * gradient.sign()[used], atol=2e-5)


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_adamerging_lowers_the_entropy(granularity: str) -> None:
    base, experts, data = world("bert")
    given = {"steps": 30, "learning_rate": 0.05, "granularity": granularity}
    parameters = parse_parameters(entry("adamerging").parameters, given, owner="adamerging")
    learned, _ = learn_coefficients(base, experts, parameters, data)
    assert learned.history[-2] < learned.history[0]
    assert (learned.coefficients.std(1).max() == 0) == (granularity == "task")


def test_adamerging_without_steps_is_task_arithmetic() -> None:
    base, experts, data = world("llama")
    result = merged("adamerging", base, experts, data, steps=0, init=0.4)
    arithmetic = {name: base[name] + 0.4 * sum(expert[name] - base[name] for expert in experts) for name in base}
    assert close(result, arithmetic, 1e-6)


def test_adamerging_clamps_its_weights() -> None:
    base, experts, data = world("bert")
    given = {"steps": 3, "learning_rate": 2.0, "clamp": True}
    parameters = parse_parameters(entry("adamerging").parameters, given, owner="adamerging")
    learned, _ = learn_coefficients(base, experts, parameters, data)
    assert float(learned.coefficients.min()) >= 0
    assert float(learned.coefficients.max()) <= 1


def test_plus_plus_trims_and_drops_losing_signs_by_hand() -> None:
    taus = [{"a": torch.tensor([4.0, 0.1, -1.0, 3.0])}, {"a": torch.tensor([-1.0, 5.0, 0.1, 2.0])}]
    kept = disjoint(taus, density=0.75)
    # Trim drops .1 from each; entry 0: 4 - 1 > 0 elects +, so -1 goes; the others agree.
    assert kept[0]["a"].tolist() == [4.0, 0.0, -1.0, 3.0]
    assert kept[1]["a"].tolist() == [0.0, 5.0, 0.0, 2.0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", METHODS)
class TestOnEveryShape:
    def test_copies_of_one_model_give_that_model(self, name: str, shape: str) -> None:
        base, experts, data = world(shape)
        extra = {"steps": 0, "init": 0.5} if name == "adamerging" else FAST[name]
        assert close(merged(name, base, [experts[0], experts[0]], data, **extra), experts[0], 1e-4)

    def test_tied_names_stay_tied_and_names_keep_their_order(self, name: str, shape: str) -> None:
        base, experts, data = world(shape)
        result = merged(name, base, experts, data, **FAST[name])
        assert list(result) == list(base)
        if shape in ("gpt2", "qwen2"):
            embedding = "transformer.wte.weight" if shape == "gpt2" else "model.embed_tokens.weight"
            assert torch.equal(result["lm_head.weight"], result[embedding])

    def test_inputs_are_left_alone_and_the_result_moves_off_the_base(self, name: str, shape: str) -> None:
        base, experts, data = world(shape)
        before = [{key: value.clone() for key, value in weights.items()} for weights in (base, *experts)]
        result = merged(name, base, experts, data, **FAST[name])
        assert all(
            torch.equal(old[key], new[key]) for old, new in zip(before, (base, *experts), strict=True) for key in old
        )
        assert not close(result, base, 1e-3)


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_order_of_experts_does_not_matter(self, name: str) -> None:
        base, experts, data = world("bert")
        turned = CalibrationData(data.model, data.tasks[::-1])
        left = merged(name, base, experts, data, **FAST[name])
        assert close(left, merged(name, base, experts[::-1], turned, **FAST[name]), 1e-5)

    def test_two_runs_with_one_seed_agree_to_the_bit(self, name: str) -> None:
        base, experts, data = world("bert")
        left, right = (merged(name, base, experts, data, seed=7, **FAST[name]) for _ in range(2))
        assert all(torch.equal(left[key], right[key]) for key in left)

    def test_keeps_bfloat16(self, name: str) -> None:
        base, experts, data = world("llama")
        low = [{key: value.bfloat16() for key, value in weights.items()} for weights in (base, *experts)]
        result = merged(name, low[0], low[1:], data, **FAST[name])
        assert {value.dtype for value in result.values()} == {torch.bfloat16}
        assert close(result, merged(name, base, experts, data, **FAST[name]), 0.05)

    def test_refuses_missing_data_other_counts_and_other_names(self, name: str) -> None:
        base, experts, data = world("bert")
        with pytest.raises(RecipeError):
            merged(name, base, experts, None)
        with pytest.raises(IncompatibleError, match="3 models"):
            merged(name, base, [*experts, experts[0]], data)
        with pytest.raises(IncompatibleError, match="does not fit"):
            merged(name, base, experts, CalibrationData(OneLayer(), data.tasks))
        with pytest.raises(MergeError):
            merged(name, base, experts, data, no_such_setting=1)


def test_a_bare_encoder_is_merged_by_regmean_and_refused_by_what_needs_logits() -> None:
    base, experts, data = world("bert")
    bare = CalibrationData(data.model.bert, data.tasks)
    inner = [
        {key[5:]: value for key, value in weights.items() if key.startswith("bert.")} for weights in (base, *experts)
    ]
    assert list(merged("regmean", inner[0], inner[1:], bare)) == list(inner[0])
    for name in ("fisher", "adamerging"):
        with pytest.raises(RecipeError, match="no logits"):
            merged(name, inner[0], inner[1:], bare)


def test_labels_that_are_not_there_are_asked_for() -> None:
    base, experts, data = world("bert")
    with pytest.raises(RecipeError, match="no labels"):
        merged("fisher", base, experts, data, targets="labels")
    with pytest.raises(RecipeError, match="no labels"):
        merged("adamerging", base, experts, data, objective="cross_entropy", steps=1)
