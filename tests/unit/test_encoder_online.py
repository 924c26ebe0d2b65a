"""Grades from production move a model's token the right way, survive a crash, and value other policies fairly."""

import json
from pathlib import Path

import numpy as np
import pytest

from capability_encoder.online import Grade, GradeLog, evidence_by_model, learn, policy_value
from capability_encoder.posterior import Gaussian

VECTOR = np.array([0.6, 0.8], dtype=np.float32)
PRIOR = Gaussian(np.zeros(2), np.eye(2))


def grade(decision: str, score: float = 1.0, model: str = "m", **more: float) -> Grade:
    return Grade(decision, model, VECTOR, score, more.get("p", 0.5), more.get("propensity", 1.0))


def test_good_grades_raise_the_token_and_narrow_it() -> None:
    design = np.tile([1.0, 0.0], (20, 1))
    after = learn(PRIOR, design, np.zeros(20), np.ones(20))
    assert after.mean[0] > 1.0
    assert after.covariance[0, 0] < 0.5 * PRIOR.covariance[0, 0]
    assert after.mean[1] == pytest.approx(0.0)


def test_order_and_batches_hardly_matter() -> None:
    rng = np.random.default_rng(0)
    design, scores = rng.normal(size=(40, 2)), rng.integers(2, size=40).astype(float)
    at_once = learn(PRIOR, design, np.zeros(40), scores)
    first = learn(PRIOR, design[:20], np.zeros(20), scores[:20])
    in_two = learn(first, design[20:], np.zeros(20), scores[20:])
    # The Laplace posterior is not exactly conjugate; two batches agree with one within a fraction of its deviation.
    np.testing.assert_allclose(in_two.mean, at_once.mean, atol=0.3 * np.sqrt(at_once.covariance[0, 0]))


def test_a_lighter_weight_moves_less() -> None:
    design = np.tile([1.0, 0.0], (5, 1))
    full, half = (learn(PRIOR, design, np.zeros(5), np.ones(5), weight=weight).mean[0] for weight in (1.0, 0.5))
    assert 0.0 < half < full


def test_the_log_gives_back_its_grades_without_text(tmp_path: Path) -> None:
    log = GradeLog(tmp_path / "new" / "grades.jsonl", "e1")
    log.append([grade("a", 0.25, propensity=0.5), grade("b")])
    read = log.read()
    assert [(one.decision, one.score, one.propensity) for one in read] == [("a", 0.25, 0.5), ("b", 1.0, 1.0)]
    np.testing.assert_allclose(read[0].vector, VECTOR, atol=1e-3)
    record = json.loads((tmp_path / "new" / "grades.jsonl").read_text().splitlines()[0])
    assert set(record) == {"decision", "model", "score", "p", "propensity", "embedder", "vector"}


def test_the_last_grade_of_a_decision_counts(tmp_path: Path) -> None:
    log = GradeLog(tmp_path / "grades.jsonl", "e1")
    log.append([grade("a", 0.0), grade("a", 1.0)])
    assert [one.score for one in log.read()] == [1.0]
    assert log.compact() == 1


def test_torn_and_foreign_lines_are_skipped_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "grades.jsonl"
    GradeLog(path, "old").append([grade("a")])
    log = GradeLog(path, "e1")
    log.append([grade("b")])
    with path.open("a") as stream:
        stream.write('{"decision": "c", "mod')
    assert [one.decision for one in log.read()] == ["b"]
    assert "skipped 2 lines" in caplog.text


def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    assert GradeLog(tmp_path / "none.jsonl", "e1").read() == []


@pytest.mark.parametrize(("score", "propensity"), [(1.5, 1.0), (0.5, 0.0), (0.5, 1.5)])
def test_impossible_grades_are_refused(score: float, propensity: float) -> None:
    with pytest.raises(ValueError, match="is not in"):
        grade("a", score, propensity=propensity)


def test_evidence_is_grouped_by_model() -> None:
    evidence = evidence_by_model([grade("a", 0.0), grade("b", 1.0, "n"), grade("c", 0.5)])
    assert evidence["m"].scores.tolist() == [0.0, 0.5]
    assert evidence["n"].vectors.shape == (1, 2)


def test_another_policys_value_is_recovered_from_explored_traffic() -> None:
    rng = np.random.default_rng(0)
    truth = {"good": 0.8, "bad": 0.3}
    grades = []
    for number in range(4_000):
        model, propensity = ("good", 0.1) if rng.random() < 0.1 else ("bad", 0.9)
        grades.append(grade(str(number), float(rng.random() < truth[model]), model, propensity=propensity))
    wrong_predictions = [{"good": 0.5, "bad": 0.5}] * len(grades)
    value = policy_value(grades, ["good"] * len(grades), wrong_predictions)
    assert value.low < 0.8 < value.high
    assert value.value == pytest.approx(0.8, abs=0.06)


def test_the_value_of_no_traffic_is_refused() -> None:
    with pytest.raises(ValueError, match="no grade"):
        policy_value([], [], [])
