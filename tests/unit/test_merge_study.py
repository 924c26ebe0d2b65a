"""Arithmetic of the merging study: batches, heads, recovered shares, the table and its page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from merge_backends.errors import MergeError, UnknownNameError
from merge_backends.study.bench import sets_of_tasks
from merge_backends.study.candidates import CANDIDATES, find
from merge_backends.study.data import Rows, batches, pad
from merge_backends.study.evaluate import as_lists, bootstrap_difference, compare, from_lists
from merge_backends.study.front_figures import summarise_fronts
from merge_backends.study.fronts import preferences_of
from merge_backends.study.heads import choose_head, fit_head
from merge_backends.study.page import render
from merge_backends.study.report import as_markdown, make_report


def rows_of(lengths: list[int]) -> Rows:
    return Rows(tuple(tuple(range(1, length + 1)) for length in lengths), torch.arange(len(lengths)))


def right(share: float, count: int = 100) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.arange(count) < share * count


def test_every_row_is_in_one_batch_in_order_of_length() -> None:
    cut = list(batches(rows_of([5, 2, 9, 3]), 2))
    assert torch.cat([batch.index for batch in cut]).tolist() == [1, 3, 0, 2]
    assert [batch.inputs.shape[1] for batch in cut] == [3, 9]


def test_shuffled_batches_hold_every_row_once_and_repeat_with_the_seed() -> None:
    rows = rows_of(list(range(1, 41)))
    first, second = (
        torch.cat([b.index for b in batches(rows, 8, generator=torch.Generator().manual_seed(3))]) for _ in range(2)
    )
    assert first.sort().values.tolist() == list(range(40))
    assert first.tolist() == second.tolist()


def test_padding_is_masked() -> None:
    batch = pad([(7, 8, 9), (4,)])
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.inputs.tolist() == [[7, 8, 9], [4, 0, 0]]


def test_head_separates_what_a_line_separates() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, 0.1]])
    labels = torch.tensor([0, 0, 1, 1])
    head = choose_head((vectors, labels), (vectors, labels), 2)
    assert head.accuracy(vectors, labels) == 1.0


def test_head_agrees_with_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(120, 5, generator=generator)
    labels = (vectors @ torch.randn(5, 3, generator=generator)).argmax(1)
    head = fit_head(vectors, labels, 3, strength=3.0)
    oracle = linear_model.LogisticRegression(C=3.0, max_iter=2000, tol=1e-8).fit(vectors.numpy(), labels.numpy())
    # LBFGS in fp32 stops at a gradient of 1e-7 per row; the penalised optimum itself is unique up to the biases' sum.
    assert np.allclose(head.weight.numpy(), oracle.coef_, atol=0.02)


def test_recovered_share_is_the_methods_place_between_probe_and_individual() -> None:
    found = compare([{"a": right(0.8)}], [{"a": right(0.7)}], [{"a": right(0.9)}])
    assert found.average.value == pytest.approx(0.8)
    assert found.recovered.value == pytest.approx(0.5)
    assert found.recovered.low < 0.5 < found.recovered.high


def test_tasks_count_the_same_whatever_their_size() -> None:
    small, large = {"a": right(0.0, 10), "b": right(1.0, 1000)}, {"a": right(1.0, 10), "b": right(1.0, 1000)}
    assert compare([small], [small], [large]).average.value == pytest.approx(0.5)


def test_equal_rows_differ_by_nothing() -> None:
    same = [{"a": right(0.6), "b": right(0.3)}]
    assert bootstrap_difference(same, same).high == 0.0


def test_correct_rows_survive_the_report() -> None:
    kept = from_lists(as_lists({"a": right(0.25, 8)}))
    assert kept["a"].tolist() == [True, True, *[False] * 6]


def test_unknown_rows_are_refused_with_the_near_name() -> None:
    with pytest.raises(UnknownNameError, match="regmean"):
        find(["regmaen"])
    assert find(["all"]) == list(CANDIDATES.values())


def test_fronts_take_two_or_three_tasks() -> None:
    assert sets_of_tasks(["a,b", "a,b,c"]) == (("a", "b"), ("a", "b", "c"))
    with pytest.raises(MergeError, match="two or three"):
        sets_of_tasks(["a"])


def record(seed: int = 0, tasks: tuple[str, ...] = ("a", "b")) -> dict[str, Any]:
    def row(name: str, share: float, **changes: Any) -> dict[str, Any]:
        plain = {"settings": {}, "tried": [], "seconds": 0.5, "adapt_seconds": 0.0, "parameters": 10, "nbytes": 40}
        correct = as_lists({task: right(share) for task in tasks})
        return {"name": name, **plain, "notes": {}, "correct": correct, "disk": 0, **changes}

    rows = [row("probe", 0.5), row("individual", 0.9, parameters=20), row("linear", 0.6), row("task_arithmetic", 0.7)]
    rows.append(row("e_wemoe", 0.88, parameters=15, nbytes=70, disk=80, notes={"fell_back": True}))
    sizes = {"train": 10, "test": 100}
    return {"seed": seed, "tasks": {task: {} for task in tasks}, "sizes": sizes, "rows": rows}


def test_table_gives_sizes_relative_to_one_model() -> None:
    line = make_report([record()])["table"][-1]
    assert (line["parameters_x"], line["memory_x"], line["disk_x"]) == (1.5, 1.75, 2.0)
    assert line["recovered"]["value"] == pytest.approx(0.95)
    assert line["over_task_arithmetic"]["value"] == pytest.approx(0.18)


def test_records_of_other_tasks_are_refused() -> None:
    with pytest.raises(MergeError, match="other tasks"):
        make_report([record(), record(1, ("a", "c"))])


def test_markdown_has_a_line_per_method() -> None:
    lines = as_markdown(make_report([record(), record(1)])).splitlines()
    assert len(lines) == 2 + 5
    assert lines[3].startswith("| individual experts | 90.0 | 90.0 | 400 | 90.00 [")


def test_page_shows_the_fallback_and_escapes_names() -> None:
    page = render(make_report([record(tasks=("<a>", "b"))]))
    assert "fell back" in page
    assert "<a>" not in page
    assert "&lt;a&gt;" in page


def test_a_method_tested_on_fewer_rows_is_compared_on_those() -> None:
    probe, individual = [{"a": right(0.5)}], [{"a": right(1.0)}]
    found = compare([{"a": right(0.75, 40)}], probe, individual)
    # Of the first 40 rows the probe has all right too, so there is no gap to recover.
    assert found.average.value == pytest.approx(0.75)
    assert bootstrap_difference([{"a": right(0.75, 40)}], probe).value == pytest.approx(-0.25)


def test_runs_that_share_their_test_rows_do_not_narrow_the_interval() -> None:
    method, probe, individual = {"a": right(0.8)}, {"a": right(0.7)}, {"a": right(0.9)}
    once = compare([method], [probe], [individual])
    thrice = compare([method] * 3, [probe] * 3, [individual] * 3)
    assert thrice.average.low == pytest.approx(once.average.low)
    assert thrice.recovered.high == pytest.approx(once.recovered.high)
    gain = bootstrap_difference([method] * 3, [probe] * 3)
    assert (gain.low, gain.high) == pytest.approx((0.03, 0.16), abs=0.02)  # 0.1 +- 1.96 * sqrt(.09 / 100)


def front_record(seed: int, **changes: Any) -> dict[str, Any]:
    def point(first: str, second: str, preference: tuple[float, float], loss: float = 0.5) -> dict[str, Any]:
        correct = {"a": first, "b": second}
        return {
            "preference": preference,
            "accuracy": [rows.count("1") / len(rows) for rows in correct.values()],
            "loss": [loss, loss],
            "validation": {"accuracy": [0.5, 0.5], "loss": [loss, loss]},
            "correct": correct,
            "losses": {task: [loss] * len(rows) for task, rows in correct.items()},
        }

    ends = (point("1110", "1000", (1.0, 0.0)), point("1000", "1110", (0.0, 1.0)))
    linear = [ends[0], point("1100", "1100", (0.5, 0.5)), ends[1]]
    pareto = [ends[0], point("1110", "1100", (0.5, 0.5), 0.4), ends[1]]
    plain = {"tasks": ["a", "b"], "seed": seed, "kept": True, "loss_before": 0.5, "loss_after": 0.4}
    return {**plain, "linear": linear, "pareto": pareto, **changes}


def test_front_figures_by_hand() -> None:
    (front,) = summarise_fronts([front_record(0), front_record(1)], draws=200)
    gains = front["equal_weights"]
    assert (gains["accuracy"]["a"]["value"], gains["accuracy"]["b"]["value"]) == (0.25, 0.0)
    assert gains["accuracy"]["b"]["high"] == 0.0  # row by row the same
    assert gains["loss"]["a"] == pytest.approx({"value": -0.1, "low": -0.1, "high": -0.1})
    assert front["dominates_at_equal_weights"] == {"accuracy": True, "loss": True}
    # The middle is the only point whose validation losses are both below those of linear's middle.
    assert front["chosen_preferences"] == [[0.5, 0.5], [0.5, 0.5]]
    assert front["chosen"] == front["equal_weights"]
    assert front["chosen_dominates"] == {"accuracy": True, "loss": True}
    # Above (1/4, 1/4) only the middles count: a square of 1/4 x 1/4 against 1/2 x 1/4.
    assert (front["hypervolume"]["linear"], front["hypervolume"]["pareto"]) == (0.0625, 0.125)
    assert front["monotone"] == {"linear": [1.0, 1.0], "pareto": [1.0, 1.0]}


def test_equal_fronts_do_not_dominate() -> None:
    same = front_record(0)
    (front,) = summarise_fronts([{**same, "pareto": same["linear"]}], draws=50)
    assert front["dominates_at_equal_weights"] == {"accuracy": False, "loss": False}
    assert front["hypervolume"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_chosen_point_is_taken_on_validation_rows_whatever_test_says() -> None:
    record = front_record(0)
    corner = record["pareto"][0]
    corner["validation"] = {"accuracy": [0.9, 0.9], "loss": [0.1, 0.1]}
    (front,) = summarise_fronts([record], draws=50)
    assert front["chosen_preferences"] == [[1.0, 0.0]]
    # On test the corner is better than linear's middle in a, and worse in b: 1000 against 1100.
    assert front["chosen"]["accuracy"]["b"]["value"] == -0.25
    assert front["chosen_dominates"]["accuracy"] is False


def test_fronts_of_other_tasks_are_summarised_apart() -> None:
    renamed = {**front_record(0), "tasks": ["b", "a"]}
    assert [front["tasks"] for front in summarise_fronts([front_record(0), renamed], draws=20)] == [
        ["a", "b"],
        ["b", "a"],
    ]


def test_preferences_hold_the_corners_and_equal_weights() -> None:
    assert preferences_of(2, 3) == [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    assert len(preferences_of(3, 5)) == 7  # corners, middles of the edges, centre
    assert len(preferences_of(3, 11)) == 10  # thirds hold the centre
    assert preferences_of(3, 11).count((1 / 3,) * 3) == 1
    assert preferences_of(3, 5)[-1] == pytest.approx((1 / 3,) * 3)
