"""The JSON of `encoder evaluate`: what the evaluation writes and the report page draws.

Accuracies, gains and costs saved are in points (0..100); probabilities, Brier scores, errors of calibration and areas
under curves are in 0..1; costs are US dollars per thousand prompts. `None` means "not measured", never zero.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

#: Rises when a field changes its meaning or goes away; readers refuse another major number.
SCHEMA_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(_Record):
    """An estimate with its 95 % paired bootstrap interval."""

    estimate: float
    low: float | None = None
    high: float | None = None


class MethodInfo(_Record):
    """One router that was measured: a baseline of the registry, ours, or a bound."""

    name: str
    summary: str
    paper: str | None = None
    ours: bool = False
    #: Uses what a router cannot know (true task, outcomes): shown apart, never ranked.
    bound: bool = False
    params: dict[str, float | int | str | bool | None] = {}
    fit_seconds: float | None = None


class MethodScore(_Record):
    """How one method did on one pool. `gain` is routed accuracy minus the best single model chosen on train."""

    method: str
    routed: Interval
    gain: Interval
    recovered_gap: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    calibration_error: float | None = None
    auc_within_prompt: float | None = None
    auc_within_model: float | None = None
    choice_entropy: float | None = None


class PoolResult(_Record):
    """All methods on one pool of models and its test prompts."""

    pool: str
    title: str
    dataset: str
    models: tuple[str, ...]
    prompts: int
    best_single: str
    best_single_accuracy: float
    oracle_accuracy: float
    scores: tuple[MethodScore, ...]


class ReliabilityBin(_Record):
    """One equal-mass bin: mean predicted probability, share that was right, how many pairs."""

    predicted: float
    observed: float
    count: int


class Reliability(_Record):
    """A reliability diagram of one method on one population, for example `seen models, test`."""

    method: str
    population: str
    error: float
    coverage_90: float | None = None
    bins: tuple[ReliabilityBin, ...]


class CostPoint(_Record):
    """One setting of the cost dial."""

    penalty: float
    cost: float
    quality: float


class CostCurve(_Record):
    """Quality against cost of one method over the sweep of the cost dial; `aiq` is the area under its upper hull."""

    pool: str
    method: str
    points: tuple[CostPoint, ...]
    aiq: Interval | None = None
    #: At the penalty chosen on dev: percent of the best single model's cost saved, and points of quality given up.
    saved_percent: Interval | None = None
    quality_lost: Interval | None = None


class SingleModel(_Record):
    """A model used for every prompt of a pool: a dot in the cost-quality plane."""

    pool: str
    model: str
    cost: float
    quality: float


class OnboardingPoint(_Record):
    """Unseen models known by `answers` aptitude answers only."""

    answers: int
    brier: Interval
    routed_gain: Interval | None = None


class OnboardingCurve(_Record):
    """Brier score against the number of aptitude answers, one method, one population of new models."""

    method: str
    population: str
    points: tuple[OnboardingPoint, ...]


class Check(_Record):
    """One bar of the plan: what was asked, what was measured, whether it holds."""

    name: str
    wanted: str
    measured: str
    met: bool


class EvaluationReport(_Record):
    """Everything one run of `encoder evaluate` measured, with what is needed to run it again."""

    schema_version: int = SCHEMA_VERSION
    date: str
    command: str
    commit: str
    machine: str
    seed: int
    data: dict[str, str]
    artifact: str | None = None
    notes: tuple[str, ...] = ()
    methods: tuple[MethodInfo, ...]
    pools: tuple[PoolResult, ...]
    reliability: tuple[Reliability, ...] = ()
    cost_curves: tuple[CostCurve, ...] = ()
    singles: tuple[SingleModel, ...] = ()
    onboarding: tuple[OnboardingCurve, ...] = ()
    checks: tuple[Check, ...] = ()


def load_report(path: Path) -> EvaluationReport:
    """Read and check a report.

    Raises:
        ValueError: not a report (the message names the field), or of another schema version.
    """
    report = EvaluationReport.model_validate_json(path.read_bytes())
    if report.schema_version != SCHEMA_VERSION:
        raise ValueError(
            f"{str(path)!r} has report schema {report.schema_version}, this version reads {SCHEMA_VERSION}: "
            "run `orbweaver encoder evaluate` again"
        )
    return report
