"""No test prompt, and no unseen model beyond its aptitude answers, reaches a fit; the cost dial does what it says."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from capability_encoder.training import cost_dial, disturbance
from capability_encoder.training import protocol as module
from capability_encoder.training.bootstrap import Resampler
from capability_encoder.training.data import AptitudeItem, ModelFacts, Outcomes
from capability_encoder.training.pool_scores import gain_columns, gains, measure
from capability_encoder.training.protocol import Contenders, Protocol, visible_scores

MODELS = ("old", "other", "new")
SPLITS = np.array(["train", "aptitude", "aptitude", "dev", "test", "train"])
SETS = np.array(["mmlu_pro"] * 5 + ["gsm"])


def outcomes(scores: np.ndarray | None = None, costs: np.ndarray | None = None) -> Outcomes:
    table = np.tile(np.array([1.0, 0.0, 1.0], dtype=np.float32), (6, 1)) if scores is None else scores
    labels = np.array(list("abcdef"))
    return Outcomes(
        prompt_ids=tuple(labels),
        asks=tuple(labels),
        vectors=np.eye(6, dtype=np.float32),
        models=MODELS,
        scores=table,
        costs=np.full_like(table, np.nan) if costs is None else costs,
        datasets=SETS,
        tasks=labels,
        categories=labels,
        splits=SPLITS,
        groups=labels,
    )


def facts(name: str) -> ModelFacts:
    return ModelFacts(name, None, 7.0, None, None, None, None, "unseen" if name == "new" else "seen")


def protocol(recorded_outcomes: Outcomes) -> Protocol:
    recorded = SimpleNamespace(outcomes=recorded_outcomes, facts={name: facts(name) for name in MODELS}, embedder=None)
    items = [AptitudeItem("mmlu_pro_50x20", "t", "b"), AptitudeItem("mmlu_pro_50x20", "t", "c")]
    return Protocol(cast(Any, recorded), items)


def test_a_fit_sees_no_test_prompt_no_unseen_model_and_no_data_set_left_out() -> None:
    visible = ~np.isnan(visible_scores(outcomes(), unseen=["new"], without_datasets=["gsm"]))
    assert visible.tolist() == [[True, True, False]] * 3 + [[False] * 3] * 3


def test_what_reaches_the_fit_is_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}

    def spy(recorded: Any, rows: np.ndarray, scores: np.ndarray, *, seed: int) -> Any:
        seen.update(rows=rows, scores=scores)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fit_state", spy)
    under_test = protocol(outcomes())
    with pytest.raises(KeyboardInterrupt):
        under_test.fit(unseen=under_test.unseen, without_datasets=["gsm"])
    assert seen["rows"].tolist() == [True, True, True, False, False, False]
    assert np.isnan(seen["scores"][3:]).all()
    assert np.isnan(seen["scores"][:, MODELS.index("new")]).all()


def test_the_recorded_scores_are_not_changed_by_hiding() -> None:
    recorded = outcomes()
    visible_scores(recorded, unseen=["new"], without_datasets=["gsm"])
    assert not np.isnan(recorded.scores).any()


def test_a_newcomer_is_known_by_aptitude_answers_only() -> None:
    under_test = protocol(outcomes())
    assert under_test.unseen == ("new",)
    assert under_test.unseen_with_suite == ("new",)
    profile = under_test.answers("new", under_test.suite_rows("mmlu_pro_50x20"))
    assert {answer.item for answer in profile.answers} == {"b", "c"}
    assert profile.known_as is None
    assert len(under_test.answers("new", under_test.suite_rows("mmlu_pro_50x20"), 1).answers) == 1


def test_the_best_single_model_is_chosen_on_train() -> None:
    scores = np.tile(np.array([1.0, 0.0, 0.5], dtype=np.float32), (6, 1))
    scores[4] = [0.0, 1.0, 0.5]
    pool = protocol(outcomes(scores)).pool("P", ["mmlu_pro"], MODELS)
    assert (pool.models[pool.best], pool.rows.tolist()) == ("old", [4])


def test_gain_of_a_perfect_router_is_the_gap_to_the_oracle() -> None:
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]], dtype=np.float32)
    pool = Contenders("P", ("d",), ("m", "n"), np.arange(4), np.arange(2), best=1)
    assert gains(truth, truth, 1).tolist() == [1.0, 0.0, 0.0, 0.0]
    score, routed = measure("x", truth, truth, pool, Resampler(np.array(list("abcd")), np.repeat("d", 4), draws=100))
    assert (score.gain.estimate, score.recovered_gap, score.brier) == (25.0, 1.0, 0.0)
    smaller = replace(pool, rows=np.array([1, 3]))
    columns = gain_columns([pool, smaller], [routed, routed._replace(gain=np.zeros(2))], np.arange(4))
    assert np.isnan(columns[:, 1]).tolist() == [True, False, True, False]


def test_the_dial_goes_from_quality_at_any_price_to_the_cheapest() -> None:
    expected = np.tile(np.array([1.0, 0.01]), (5, 1))
    picked = cost_dial.choices(np.tile(np.array([0.9, 0.4], dtype=np.float32), (5, 1)), expected)
    assert set(picked[:, 0]) == {0}
    assert set(picked[:, -1]) == {1}
    assert (np.diff(picked, axis=1) >= 0).all()


def test_saving_and_loss_at_the_chosen_penalty_by_hand() -> None:
    scores = np.tile(np.array([[1.0, 1.0], [1.0, 0.0]]), (10, 1))
    costs = np.tile(np.array([4.0, 1.0]), (20, 1))
    predicted = np.tile(np.array([[0.9, 0.9], [0.9, 0.0]], dtype=np.float32), (10, 1))
    pool = Contenders("P7", ("d",), ("dear", "cheap"), np.arange(20), np.arange(2), best=0)
    split = cost_dial.Priced(pool, scores, costs, costs)
    resampler = Resampler(np.array([str(i) for i in range(20)]), np.repeat("d", 20), draws=200)
    (curve,), undialled = cost_dial.cost_curves(split, split, {"x": (predicted, predicted)}, resampler)
    assert curve.saved_percent is not None
    assert curve.saved_percent.estimate == pytest.approx(37.5)
    assert curve.quality_lost is not None
    assert curve.quality_lost.estimate == 0.0
    assert undialled["x"].quality_lost is not None
    # The hull: cheapest (1, 50), routed (2.5, 100), then level up to 4.
    assert curve.aiq is not None
    assert curve.aiq.estimate == pytest.approx((75.0 * 1.5 + 100.0 * 1.5) / 3.0)


def test_disturbances_keep_the_ask_but_change_the_text() -> None:
    ask = "A train leaves at noon at 60 miles per hour. When has it gone 210 miles?"
    rng = np.random.default_rng(0)
    for kind, disturb in disturbance.KINDS.items():
        changed = disturb(ask * 3, rng)
        assert changed != ask * 3
        assert kind == "typos" or ask * 3 in changed
    assert 3000 < len(disturbance.with_context(ask, rng).split()) < 4500
