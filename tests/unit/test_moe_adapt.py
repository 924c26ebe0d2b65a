"""Training routers: what they learn, what is guarded, and that nothing else of the model moves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from merge_backends import moe
from merge_backends.errors import MergeError
from merge_backends.moe.adapt import AdaptParameters, Batch, adapt, cross_entropy, entropy, is_right, score
from merge_backends.moe.gates import gating
from merge_backends.moe.recognise import RecogniseParameters, recognise
from merge_backends.moe.wemoe import make_static, routers_of
from tests.support.tiny_models import VOCABULARY, dense, family, run, tiny_model

CLASSES = 4
HEAD = torch.randn(CLASSES, 32, generator=torch.Generator().manual_seed(9)) * 3


def classes(task: str, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(**inputs).last_hidden_state.mean(1) @ HEAD.T


class Tasks:
    """Each task has words of its own, and the labels its expert gives; routers can tell the tasks apart."""

    def __init__(self) -> None:
        self.base, self.experts = family("bert", experts=2, scale=0.1)
        self.train = {f"task{index}": self._batches(index, 4, seed=index) for index in (0, 1)}
        self.validation = {f"task{index}": self._batches(index, 2, seed=10 + index) for index in (0, 1)}

    def _batches(self, index: int, count: int, *, seed: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(seed)
        expert = dense("bert", self.experts[index])
        made = []
        for _ in range(count):
            tokens = torch.randint(1 + 30 * index, 30 + 30 * index, (16, 6), generator=generator)
            given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            with torch.no_grad():
                made.append(Batch(given, classes("", expert, given).argmax(-1)))
        return made

    def mixture(self) -> nn.Module:
        return moe.build("wemoe", tiny_model("bert"), self.base, self.experts, {})


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return Tasks()


def unlabelled(batches: Mapping[str, list[Batch]]) -> dict[str, list[Batch]]:
    return {task: [Batch(each.inputs) for each in some] for task, some in batches.items()}


def test_routers_learn_from_labels_which_expert_an_input_needs(tasks: Tasks) -> None:
    mixture = tasks.mixture()
    settings = AdaptParameters(learning_rate=1e-2, steps=60, evaluate_every=10)
    report = adapt(mixture, tasks.train, validation=tasks.validation, predict=classes, parameters=settings)
    assert report.best.accuracy > report.task_arithmetic.accuracy + 0.02
    assert score(mixture, tasks.validation, classes) == report.best


def test_routers_that_end_worse_than_task_arithmetic_are_turned_off(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    """New routers with wild weights, and no step to learn in: worse, so the model must be task arithmetic again."""
    mixture, static = tasks.mixture(), tasks.mixture()
    make_static(static)
    for parameter in (each for name, each in mixture.named_parameters() if "router.weights" in name):
        parameter.data.normal_(0, 2, generator=torch.Generator().manual_seed(0))
    settings = AdaptParameters(steps=0)
    report = adapt(mixture, tasks.train, validation=tasks.validation, predict=classes, parameters=settings)
    given = dict(tasks.validation["task0"][0].inputs)
    assert report.fell_back
    assert "turned off" in caplog.text
    assert torch.equal(run(mixture, given), run(static, given))


def test_a_hot_entropy_run_keeps_its_best_routers(tasks: Tasks) -> None:
    mixture = tasks.mixture()
    settings = AdaptParameters(learning_rate=0.5, steps=20, evaluate_every=2, patience=10)
    report = adapt(mixture, unlabelled(tasks.train), validation=tasks.validation, predict=classes, parameters=settings)
    assert min(look.accuracy for look in report.looks) < report.best.accuracy
    assert score(mixture, tasks.validation, classes).accuracy == max(
        report.best.accuracy, report.task_arithmetic.accuracy
    )


def test_it_stops_when_nothing_gets_better(tasks: Tasks) -> None:
    settings = AdaptParameters(learning_rate=0.5, steps=500, evaluate_every=1, patience=3)
    report = adapt(
        tasks.mixture(), unlabelled(tasks.train), validation=tasks.validation, predict=classes, parameters=settings
    )
    assert report.steps <= report.best_step + 3


def test_only_routers_change(tasks: Tasks) -> None:
    mixture = tasks.mixture()
    before = {name: tensor.clone() for name, tensor in mixture.state_dict().items()}
    settings = AdaptParameters(learning_rate=1e-2, steps=10, evaluate_every=5)
    adapt(mixture, tasks.train, validation=tasks.validation, predict=classes, parameters=settings)
    changed = {name for name, tensor in mixture.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(".router." in name for name in changed)


def test_two_runs_of_one_seed_learn_the_same(tasks: Tasks) -> None:
    settings = AdaptParameters(learning_rate=1e-2, steps=6, evaluate_every=3)
    results = []
    for _ in range(2):
        mixture = tasks.mixture()
        adapt(mixture, tasks.train, validation=tasks.validation, predict=classes, parameters=settings, seed=4)
        results.append(run(mixture, dict(tasks.validation["task0"][0].inputs)))
    assert torch.equal(*results)


def test_entropy_falls_on_unlabelled_inputs(tasks: Tasks) -> None:
    mixture = tasks.mixture()
    settings = AdaptParameters(learning_rate=3e-3, steps=40, evaluate_every=10, patience=100)
    report = adapt(mixture, unlabelled(tasks.train), validation=tasks.validation, predict=classes, parameters=settings)
    assert report.looks[-1].train_loss < report.looks[1].train_loss


def test_pruned_experts_learn_too(tasks: Tasks) -> None:
    mixture = moe.build("e_wemoe", tiny_model("bert"), tasks.base, tasks.experts, {"tv_prune_ratio": 0.5})
    settings = AdaptParameters(learning_rate=1e-2, steps=20, evaluate_every=10)
    report = adapt(mixture, tasks.train, validation=tasks.validation, predict=classes, parameters=settings)
    assert report.looks[-1].train_loss < report.looks[1].train_loss


def test_decoders_learn_from_answers_with_the_gate_on_the_prompt() -> None:
    base, experts = family("llama", experts=2, scale=0.1)
    mixture = moe.build("wemoe", tiny_model("llama"), base, experts, {})
    tokens = torch.randint(1, VOCABULARY, (8, 9), generator=torch.Generator().manual_seed(1))
    labels = tokens.clone()
    labels[:, :6] = -100
    looks_at = (labels == -100).long()
    batch = Batch({"input_ids": tokens}, labels, looks_at)
    settings = AdaptParameters(learning_rate=1e-2, steps=20, evaluate_every=5)
    report = adapt(mixture, {"only": [batch]}, validation={"only": [batch]}, parameters=settings)
    assert report.best.loss < report.looks[0].loss


def test_validation_without_labels_is_refused(tasks: Tasks) -> None:
    with pytest.raises(MergeError, match="no labels"):
        adapt(tasks.mixture(), tasks.train, validation=unlabelled(tasks.validation), predict=classes)


def test_a_mixture_without_routers_is_refused(tasks: Tasks) -> None:
    smile = moe.build("smile", tiny_model("bert"), tasks.base, tasks.experts, {})
    with pytest.raises(MergeError, match="no routers"):
        adapt(smile, tasks.train, validation=tasks.validation, predict=classes)


def test_entropy_of_even_odds_is_the_log_of_the_classes() -> None:
    """ln 4 = 1.386294, and padding does not count."""
    logits = torch.zeros(2, 3, 4)
    logits[1, 2, 0] = 50.0
    assert entropy(logits[:, 0]).item() == pytest.approx(1.386294, abs=1e-6)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert entropy(logits, mask).item() == pytest.approx(1.386294, abs=1e-6)


def test_a_row_is_right_where_every_asked_token_is() -> None:
    labels = torch.tensor([[-100, 1, 2], [-100, 1, 2]])
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2], [1, 1, 1]]), 4).float()
    assert is_right(logits, labels).tolist() == [True, False]


def test_cross_entropy_leaves_out_what_is_not_asked() -> None:
    """Even odds over two classes at the one asked position: ln 2 = 0.693147."""
    logits = torch.tensor([[[9.0, -9.0], [0.0, 0.0]]])
    assert cross_entropy(logits, torch.tensor([[-100, 1]])).item() == pytest.approx(0.693147, abs=1e-6)


def test_a_learning_rate_that_decays_moves_the_routers_less_in_the_end(tasks: Tasks) -> None:
    moved = {}
    for decay in (False, True):
        mixture = tasks.mixture()
        before = {name: value.detach().clone() for name, value in mixture.named_parameters() if ".router." in name}
        settings = AdaptParameters(learning_rate=1e-2, steps=8, evaluate_every=8, decay=decay)
        report = adapt(mixture, tasks.train, validation=tasks.validation, predict=classes, parameters=settings)
        assert report.best_step == 8
        after = dict(mixture.named_parameters())
        moved[decay] = sum(float((after[name].detach() - value).norm()) for name, value in before.items())
    assert 0 < moved[True] < 0.9 * moved[False]


def test_a_look_at_whole_batches_routes_each_batch_as_one(tasks: Tasks) -> None:
    mixture = tasks.mixture()
    mixed = {
        "both": [
            Batch(
                {
                    "input_ids": torch.cat(
                        [tasks.validation[name][0].inputs["input_ids"][:2] for name in tasks.validation]
                    )
                },
                torch.zeros(4, dtype=torch.int64),
            )
        ]
    }
    for parameter in (each for name, each in mixture.named_parameters() if "router.weights" in name):
        parameter.data.normal_(0, 1, generator=torch.Generator().manual_seed(0))
    each, together = (score(mixture, mixed, classes, batch_reduce=reduced) for reduced in (False, True))
    assert each.loss != pytest.approx(together.loss, rel=1e-3)


@pytest.mark.parametrize("method", ["wemoe", "e_wemoe"])
def test_routers_recognise_without_labels_whose_task_an_input_is_from(tasks: Tasks, method: str) -> None:
    mixture = moe.build(method, tiny_model("bert"), tasks.base, tasks.experts, {})
    weights = RecogniseParameters(own=1.5, other=0.1, learning_rate=1e-2, steps=80)
    report = recognise(mixture, unlabelled(tasks.train), parameters=weights)
    assert min(report.found.values()) > 0.9
    with gating() as gates:
        run(mixture, dict(tasks.validation["task1"][0].inputs))
    for routed in gates.coefficients.values():  # of 16 unseen inputs a few are taken for the other task's
        assert (routed.argmax(-1) == 1).float().mean() > 0.8
        assert 0.9 < routed[:, 1].mean() < 1.8


def test_recognition_moves_routers_only_and_repeats_with_the_seed(tasks: Tasks) -> None:
    mixture, again = tasks.mixture(), tasks.mixture()
    routers = {id(each) for router in routers_of(mixture) for each in router.parameters()}
    before = {name: each.detach().clone() for name, each in mixture.named_parameters() if id(each) not in routers}
    for model in (mixture, again):
        recognise(model, tasks.train, parameters=RecogniseParameters(steps=4), seed=3)
    after, other = dict(mixture.named_parameters()), dict(again.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(torch.equal(after[name], other[name]) for name in after)
    assert all(each.requires_grad for each in after.values())


def test_recognition_needs_one_task_per_expert(tasks: Tasks) -> None:
    with pytest.raises(MergeError, match="1 tasks for 2 experts"):
        recognise(tasks.mixture(), {"task0": tasks.train["task0"]})
