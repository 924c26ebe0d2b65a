"""TEEN by hand-computed numbers and laws; tasks join and leave an index without changing it."""

import numpy as np
import pytest

from capability_encoder.task_index import (
    Calibration,
    CalibrationSettings,
    TaskError,
    TaskIndex,
    softmax,
    teen,
    unit,
)
from capability_encoder.task_tuning import draw_episode, tune_calibration, tune_settings

AXES = np.eye(4, dtype=np.float32)
KNOWN = TaskIndex.from_examples(np.repeat(AXES[:3], 2, axis=0), ["a", "a", "b", "b", "c", "c"])


def test_calibration_agrees_with_the_equations() -> None:
    new, base = unit(np.array([[1.0, 1.0, 0.0]])), np.eye(3)[:2]
    moved, weights = teen(new, base, alpha=0.5, tau=16.0)
    # Both base prototypes are equally near, so their mean points where the new one does already.
    np.testing.assert_allclose(weights, [[0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(moved, new, atol=1e-6)
    lone = np.array([[0.6, 0.0, 0.8]], dtype=np.float32)
    moved, weights = teen(lone, base, alpha=0.5, tau=16.0)
    w = np.exp(16 * 0.6) / (np.exp(16 * 0.6) + 1.0)
    np.testing.assert_allclose(weights[0], [w, 1 - w], rtol=1e-5)
    pull = unit(np.array([w, 1 - w, 0.0]))
    np.testing.assert_allclose(moved[0], unit(0.5 * lone[0] + 0.5 * pull), rtol=1e-5)


def test_alpha_zero_changes_nothing_and_alpha_one_forgets_the_examples() -> None:
    new = unit(np.array([[0.6, 0.0, 0.8, 0.0]]))
    np.testing.assert_allclose(teen(new, AXES[:2], alpha=0.0, tau=16.0)[0], new, atol=1e-6)
    moved, weights = teen(new, AXES[:2], alpha=1.0, tau=16.0)
    np.testing.assert_allclose(moved, unit(weights @ AXES[:2]), atol=1e-6)


def test_a_taught_task_wins_its_own_prompts_at_once() -> None:
    index = KNOWN.added("law", np.array([[0.1, 0.0, 0.0, 1.0]], dtype=np.float32))
    best = index.nearest(AXES[3], 2)
    assert (best[0].name, best[0].is_new) == ("law", True)
    assert best[0].calibrated_from[0][0] == "a"
    assert index.nearest(AXES[0], 1)[0].name == "a"
    assert len(KNOWN.tasks) == 3


def test_neighbour_weights_sum_to_at_most_one_and_memberships_to_one() -> None:
    index = KNOWN.added("law", AXES[3:])
    assert sum(weight for _, weight in index.tasks[-1].calibrated_from) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(index.memberships(AXES).sum(1), 1.0, rtol=1e-5)


def test_the_penalty_option_gives_new_tasks_a_head_start_and_moves_nothing() -> None:
    settings = CalibrationSettings("penalty", bonus=0.1)
    index = TaskIndex(KNOWN.tasks, settings).added("law", AXES[3:])
    law = index.tasks[-1]
    np.testing.assert_array_equal(law.raw, law.calibrated)
    assert index.similarities(AXES[3:])[0, -1] == pytest.approx(1.1)


def test_no_calibration_means_plain_prototypes() -> None:
    index = TaskIndex(KNOWN.tasks, CalibrationSettings("none")).added("law", AXES[3:])
    assert index.similarities(AXES[3:])[0].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_settings_go_by_the_number_of_examples() -> None:
    settings = CalibrationSettings(table=(Calibration(1, 0.6, 0.1), Calibration(5, 0.2, 0.0)))
    assert settings.for_shots(4) == Calibration(4, 0.6, 0.1)
    assert settings.for_shots(50) == Calibration(50, 0.2, 0.0)
    assert CalibrationSettings(alpha=0.3).for_shots(2).alpha == 0.3


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [("a", 1, "exists already"), (" ", 1, "needs a name"), ("law", 0, "0 examples"), ("law", 1001, "1001 examples")],
)
def test_a_task_that_cannot_be_added_is_named(name: str, count: int, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        KNOWN.added(name, np.zeros((count, 4), dtype=np.float32))


def test_only_taught_tasks_can_be_removed() -> None:
    index = KNOWN.added("law", AXES[3:])
    assert index.removed("law").tasks == KNOWN.tasks
    with pytest.raises(TaskError, match="no added task is called 'a'"):
        index.removed("a")


def test_an_index_of_nothing_answers() -> None:
    empty = TaskIndex([])
    assert empty.nearest(AXES[0]) == []
    assert empty.added("law", AXES[:1]).nearest(AXES[0], 1)[0].name == "law"


def test_tuning_finds_that_scarce_noisy_examples_want_help() -> None:
    rng = np.random.default_rng(0)
    families = rng.normal(size=(6, 32))
    centres = unit(np.repeat(families, 5, axis=0) + 0.7 * rng.normal(size=(30, 32)))
    labels = np.repeat(np.arange(30), 20)
    vectors = unit(centres[labels] + 0.25 * rng.normal(size=(600, 32)))
    tuned = tune_calibration(vectors, labels, shots=1, seed=1)
    episode = draw_episode(vectors, labels, shots=1, new_share=1 / 3, rng=np.random.default_rng(7))
    moved, _ = teen(episode.new, episode.base, alpha=tuned.alpha, tau=tuned.tau)
    helped, plain = episode.accuracy(moved, penalty=tuned.penalty), episode.accuracy(episode.new)
    assert helped.harmonic > plain.harmonic
    assert tune_calibration(vectors, labels, shots=1, seed=1) == tuned
    assert [row.shots for row in tune_settings(vectors, labels).table] == [1, 2, 5, 10, 20]


def test_softmax_is_stable() -> None:
    np.testing.assert_allclose(softmax(np.array([1e4, 1e4], dtype=np.float32)), [0.5, 0.5])
