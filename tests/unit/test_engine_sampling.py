"""Drawing tokens: hand-computed choices, the same draw in any batch, penalties and log probabilities."""

from __future__ import annotations

import math
import random

import pytest
import torch

from merge_backends.engine.sampling import Chooser, Draw, Sampling, report

CPU = torch.device("cpu")


class Fixed(random.Random):
    """Gives the numbers it was made with."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self._numbers = iter(numbers)

    def random(self) -> float:
        return next(self._numbers)


def choose(logits: list[list[float]], *draws: Draw) -> list[int]:
    return Chooser(draws, CPU).choose(torch.tensor(logits))[0]


@pytest.mark.parametrize(("point", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.74, 1), (0.76, 2), (0.999999, 2)])
def test_a_point_falls_into_the_cumulated_distribution(point: float, token: int) -> None:
    logits = [math.log(0.5), math.log(0.25), math.log(0.25)]
    assert choose([logits], Draw(Sampling(), Fixed(point))) == [token]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = [math.log(0.1), math.log(0.6), math.log(0.3)]
    drawn = {choose([logits], Draw(Sampling(top_p=0.85), Fixed(at / 100)))[0] for at in range(100)}
    assert drawn == {1, 2}


def test_top_p_zero_is_greedy() -> None:
    assert choose([[0.0, 2.0, 1.0]], Draw(Sampling(top_p=0.0), Fixed(0.99))) == [1]


def test_temperature_sharpens() -> None:
    logits = [0.0, 1.0]
    counts = [
        sum(choose([logits], Draw(Sampling(temperature=t), Fixed(at / 200)))[0] for at in range(200))
        for t in (2.0, 1.0, 0.25)
    ]
    expected = [200 / (1 + math.exp(-1 / t)) for t in (2.0, 1.0, 0.25)]
    assert counts == pytest.approx(expected, abs=1.5)


def test_a_row_draws_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 50)
    settings = [Sampling(), Sampling(temperature=0), Sampling(top_p=0.5), Sampling(temperature=0.3)]
    together = Chooser([Draw(s, random.Random(at)) for at, s in enumerate(settings)], CPU).choose(logits)[0]
    alone = [
        Chooser([Draw(s, random.Random(at))], CPU).choose(logits[at : at + 1])[0][0] for at, s in enumerate(settings)
    ]
    assert together == alone


def test_a_bias_forbids_and_forces_tokens() -> None:
    assert choose([[0.0, 9.0, 1.0]], Draw(Sampling(temperature=0, logit_bias=((1, -100.0),)), Fixed())) == [2]
    assert choose([[0.0, 9.0, 1.0]], Draw(Sampling(logit_bias=((0, 100.0),)), Fixed(0.9999))) == [0]


def test_penalties_count_what_was_chosen_before() -> None:
    draw = Draw(Sampling(temperature=0, frequency_penalty=0.4, presence_penalty=0.2), Fixed())
    chooser = Chooser([draw], CPU)
    chosen = [chooser.choose(torch.tensor([[1.0, 0.5]]))[0][0] for _ in range(3)]
    # 1.0 wins; then 1.0 - 0.6 loses against 0.5; then 0.4 wins against 0.5 - 0.6.
    assert chosen == [0, 1, 0]


def test_penalties_do_not_touch_the_other_rows() -> None:
    rows = [Draw(Sampling(temperature=0, frequency_penalty=2.0), Fixed()), Draw(Sampling(temperature=0), Fixed())]
    chooser = Chooser(rows, CPU)
    logits = torch.tensor([[1.0, 0.5], [1.0, 0.5]])
    assert [chooser.choose(logits)[0] for _ in range(2)] == [[0, 0], [1, 0]]


def test_log_probabilities_are_those_of_the_logits() -> None:
    logits = torch.tensor([math.log(0.5), math.log(0.3), math.log(0.2)])
    likely = report(logits, 2, 2)
    assert likely.logprob == pytest.approx(math.log(0.2), abs=1e-6)
    assert [token for token, _ in likely.top] == [0, 1]
    assert likely.top[0][1] == pytest.approx(math.log(0.5), abs=1e-6)
