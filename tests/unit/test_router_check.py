"""Routers are used in their domain only: what is shifted gets the static merge, what is usual does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from merge_backends import moe
from merge_backends.errors import MergeError
from merge_backends.moe.adapt import Batch
from merge_backends.moe.gates import Gates, gating
from merge_backends.moe.wemoe import make_static, routers_of
from merge_backends.router_check import RouterCheck, detach, fit_router_check
from tests.support.tiny_models import SHAPES, family, run, tiny_model

USUAL, SHIFTED = (1, 20), (40, 60)


def texts(words: tuple[int, int], count: int, *, seed: int, length: int = 12) -> dict[str, Tensor]:
    """Random texts over a range of the vocabulary."""
    tokens = torch.randint(*words, (count, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def lively(shape: str, method: str = "wemoe") -> nn.Module:
    """A mixture whose routers stray far from task arithmetic."""
    base, experts = family(shape)
    mixture = moe.build(method, tiny_model(shape), base, experts)
    for router in routers_of(mixture):
        for weight in router.weights:
            weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    return mixture


def domain() -> dict[str, list[Batch]]:
    return {f"task{index}": [Batch(texts(USUAL, 150, seed=index))] for index in (0, 1)}


def flags(mixture: nn.Module, given: dict[str, Tensor]) -> Tensor:
    with gating() as gates:
        run(mixture, given)
    assert gates.out_of_domain is not None
    return gates.out_of_domain


@pytest.mark.parametrize("shape", SHAPES)
def test_shifted_inputs_are_flagged_and_usual_ones_pass(shape: str) -> None:
    """Fresh usual inputs are flagged at about the rate the quantile allows; 100 of them at 5 % gives 0 to 15."""
    mixture = lively(shape)
    fit_router_check(mixture, domain(), quantile=0.95)
    assert flags(mixture, texts(USUAL, 100, seed=7)).float().mean() < 0.16
    assert flags(mixture, texts(SHIFTED, 100, seed=7)).float().mean() > 0.9


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shifted_input_gets_exactly_the_static_merge(shape: str) -> None:
    mixture, static = lively(shape), lively(shape)
    make_static(static)
    fit_router_check(mixture, domain())
    given = texts(SHIFTED, 6, seed=7)
    assert flags(mixture, given).all()
    torch.testing.assert_close(run(mixture, given), run(static, given), atol=1e-5, rtol=1e-5)


def test_the_two_kinds_of_input_do_not_touch_each_other_in_a_batch() -> None:
    mixture, unchecked = lively("bert"), lively("bert")
    fit_router_check(mixture, domain(), layers=[0])
    usual, shifted = texts(USUAL, 3, seed=8), texts(SHIFTED, 3, seed=8)
    both = {name: torch.cat([usual[name], shifted[name]]) for name in usual}
    assert flags(mixture, both).tolist() == [False] * 3 + [True] * 3
    torch.testing.assert_close(run(mixture, both)[:3], run(unchecked, usual), atol=1e-5, rtol=1e-5)
    assert (run(mixture, both)[3:] - run(unchecked, shifted)).abs().max() > 1e-3


def test_a_smile_token_out_of_the_domain_uses_all_experts_alike() -> None:
    base, experts = family("llama")
    mixture = moe.build("smile", tiny_model("llama"), base, experts, {"init_lambda": 0.0})
    unchecked = moe.build("smile", tiny_model("llama"), base, experts)
    fit_router_check(mixture, domain(), layers=[0])
    plain = tiny_model("llama")
    plain.load_state_dict(base)
    given = texts(SHIFTED, 4, seed=7)
    torch.testing.assert_close(run(mixture, given), run(plain, given), atol=1e-5, rtol=1e-5)
    assert (run(unchecked, given) - run(plain, given)).abs().max() > 1e-3


def test_generated_tokens_keep_the_verdict_on_their_prompt() -> None:
    """A usual prompt goes on with words that were never seen: its gates stay."""
    mixture = lively("llama")
    fit_router_check(mixture, domain(), layers=[0])
    with gating() as gates:
        run(mixture, texts(USUAL, 3, seed=8))
        verdict, kept = gates.out_of_domain, dict(gates.coefficients)
        run(mixture, texts(SHIFTED, 3, seed=8, length=1))
    assert gates.out_of_domain is verdict
    assert all(torch.equal(gates.coefficients[layer], weights) for layer, weights in kept.items())


def test_padding_does_not_count_in_the_pooled_input() -> None:
    mixture = lively("bert")
    fit_router_check(mixture, domain(), layers=[0])
    given = texts(USUAL, 5, seed=9)
    padded = {
        "input_ids": torch.cat([given["input_ids"], torch.full((5, 12), 50)], dim=1),
        "attention_mask": torch.cat([given["attention_mask"], torch.zeros(5, 12, dtype=torch.long)], dim=1),
    }
    assert torch.equal(flags(mixture, padded), flags(mixture, given))


def test_a_check_that_is_taken_out_flags_nothing() -> None:
    mixture, unchecked = lively("bert"), lively("bert")
    fit_router_check(mixture, domain())
    detach(mixture)
    given = texts(SHIFTED, 4, seed=7)
    assert torch.equal(run(mixture, given), run(unchecked, given))


def test_scores_by_hand() -> None:
    """Tasks at 0 and 10 with variances 1 and 4, all inputs at 5 with 25: 4 is 16 and 9 away, less 0.8 times 0.04."""
    check = RouterCheck(
        [0],
        torch.tensor([[[0.0], [10.0], [5.0]]]),
        torch.tensor([[[[1.0]], [[0.5]], [[0.2]]]]),
        torch.tensor([4.0, 8.0]),
    )
    given = torch.tensor([[[4.0]], [[1.0]], [[5.0]]])
    torch.testing.assert_close(check.scores(given)[0], torch.tensor([16 - 0.032, 9 - 0.032]))
    assert check.is_out(given).tolist() == [True, False, False]


def test_each_task_has_a_threshold_of_its_own() -> None:
    """A wide and a narrow task: what lies between is out, though it is nearer to the narrow one than the wide one is
    to its own inputs."""
    mixture = lively("bert")
    wide = [Batch(texts((1, 20), 150, seed=0, length=2))]
    narrow = [Batch(texts((30, 33), 150, seed=1, length=30))]
    check = fit_router_check(mixture, {"wide": wide, "narrow": narrow}, layers=[0])
    assert check.thresholds.shape == (2,)
    mixed = texts((1, 20), 60, seed=3, length=30)
    mixed["input_ids"][:, ::2] = texts((30, 33), 60, seed=4, length=15)["input_ids"]
    assert flags(mixture, mixed).float().mean() > 0.9
    assert flags(mixture, texts((30, 33), 100, seed=5, length=30)).float().mean() < 0.1


def test_a_single_task_has_a_domain_too() -> None:
    mixture = lively("llama")
    fit_router_check(mixture, {"only": domain()["task0"]}, layers=[0, 1])
    assert flags(mixture, texts(SHIFTED, 50, seed=7)).all()
    assert flags(mixture, texts(USUAL, 100, seed=7)).float().mean() < 0.12


def test_what_routers_learn_later_changes_no_verdict() -> None:
    """The look goes through the static merge, so statistics stay true when the routers are trained on."""
    mixture = lively("bert")
    fit_router_check(mixture, domain(), quantile=0.5)
    given = texts(USUAL, 40, seed=9)
    before = flags(mixture, given)
    for router in routers_of(mixture):
        for weight in router.weights:
            weight.data.mul_(3)
    assert 0 < before.float().mean() < 1
    assert torch.equal(flags(mixture, given), before)


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_looking_ahead_leaves_the_kv_cache_alone(shape: str) -> None:
    """Generation with a check that lets everything pass is generation without a check."""
    mixture, unchecked = lively(shape), lively(shape)
    check = fit_router_check(mixture, domain(), layers=[1])
    check.thresholds.fill_(1e9)
    given = texts(USUAL, 3, seed=8)
    options = {"max_new_tokens": 6, "do_sample": False, "use_cache": True}
    assert torch.equal(mixture.generate(**given, **options), unchecked.generate(**given, **options))


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(MergeError, match="layers 0 to 1"):
        fit_router_check(lively("bert"), domain(), layers=[5])


def test_too_few_inputs_are_refused() -> None:
    with pytest.raises(MergeError, match="fewer than three"):
        fit_router_check(lively("bert"), {"only": [Batch(texts(USUAL, 2, seed=1))]})


def test_gates_of_rows_are_selected_and_joined() -> None:
    gates = Gates(coefficients={0: torch.arange(6.0).view(3, 2)}, out_of_domain=torch.tensor([True, False, True]))
    again = Gates.join([gates.select([2]), gates.select([0, 1])])
    assert again.coefficients[0].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert again.out_of_domain is not None
    assert again.out_of_domain.tolist() == [True, True, False]
