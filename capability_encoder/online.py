"""Learning on the job: graded answers from production update the models' tokens and the outcome memory.

No retraining: a grade is one more answer of the model, and the posterior is that of all its answers. A choice depends
on the prompt alone, so the likelihood needs no correction for who was asked; propensities are logged for the value of
*other* policies (`policy_value`), which does.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.posterior import Gaussian, update

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
logger = logging.getLogger(__name__)

SMALLEST_PROPENSITY = 0.01
"""Logged propensities are not taken below this: bounds the variance of `policy_value`, at a little bias."""


@dataclass(frozen=True, slots=True)
class Grade:
    """One graded answer.

    Attributes:
        decision: id of the routing decision, also what makes a repeated grade replace the first.
        model: who answered.
        vector: the prompt's unit vector `[D]`; the text is never kept.
        score: 0..1.
        p: what was predicted when the choice was made.
        propensity: probability with which the policy chose this model, in (0, 1]; 1 without exploration.
    """

    decision: str
    model: str
    vector: FloatArray
    score: float
    p: float
    propensity: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score {self.score!r} of decision {self.decision!r} is not in 0..1")
        if not 0.0 < self.propensity <= 1.0:
            raise ValueError(f"propensity {self.propensity!r} of decision {self.decision!r} is not in (0, 1]")


class Evidence(NamedTuple):
    """What has been graded of one model: unit vectors `[n, D]` and scores `[n]`."""

    vectors: FloatArray
    scores: Float64Array


class GradeLog:
    """Grades in one append-only file of JSON lines; each line holds its vector in 16-bit floats, no text.

    Args:
        path: the file; its folder is created on the first write.
        embedder: fingerprint of the vectors; lines of another embedder are skipped when reading.
    """

    def __init__(self, path: Path, embedder: str) -> None:
        self._path = path
        self._embedder = embedder

    def append(self, grades: Iterable[Grade]) -> None:
        """Add lines in one write, so that a crash loses whole lines only."""
        lines = "".join(self._line(grade) for grade in grades)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(lines)

    def read(self) -> list[Grade]:
        """All grades of this embedder, the last one of each decision; a torn or foreign line is skipped and counted."""
        latest: dict[tuple[str, str], Grade] = {}
        skipped = 0
        for line in self._lines():
            grade = self._parse(line)
            if grade is None:
                skipped += 1
                continue
            latest[grade.decision, grade.model] = grade
        if skipped:
            logger.warning("skipped %d lines of the grade log (torn, or of another embedder)", skipped)
        return list(latest.values())

    def compact(self, keep: int = 100_000) -> int:
        """Rewrite the file with the last `keep` grades; gives how many are left."""
        kept = self.read()[-keep:]
        scratch = self._path.with_suffix(".new")
        scratch.write_text("".join(self._line(grade) for grade in kept), encoding="utf-8")
        scratch.replace(self._path)
        return len(kept)

    def _lines(self) -> Iterator[str]:
        if self._path.is_file():
            with self._path.open(encoding="utf-8", errors="replace") as stream:
                yield from stream

    def _line(self, grade: Grade) -> str:
        packed = base64.b64encode(np.asarray(grade.vector, dtype=np.float16).tobytes()).decode()
        record = {
            "decision": grade.decision,
            "model": grade.model,
            "score": grade.score,
            "p": round(grade.p, 6),
            "propensity": grade.propensity,
            "embedder": self._embedder,
            "vector": packed,
        }
        return json.dumps(record) + "\n"

    def _parse(self, line: str) -> Grade | None:
        try:
            record = json.loads(line)
            if record["embedder"] != self._embedder:
                return None
            vector = np.frombuffer(base64.b64decode(record["vector"]), dtype=np.float16).astype(np.float32)
            return Grade(
                record["decision"], record["model"], vector, record["score"], record["p"], record["propensity"]
            )
        except (ValueError, KeyError, TypeError):
            return None


def evidence_by_model(grades: Iterable[Grade]) -> dict[str, Evidence]:
    """Grades as arrays, by model."""
    grouped: dict[str, list[Grade]] = {}
    for grade in grades:
        grouped.setdefault(grade.model, []).append(grade)
    return {
        model: Evidence(np.stack([one.vector for one in ones]), np.array([one.score for one in ones], dtype=np.float64))
        for model, ones in grouped.items()
    }


def learn(
    prior: Gaussian, design: Float64Array, offsets: Float64Array, scores: Float64Array, *, weight: float = 1.0
) -> Gaussian:
    """A model's token after graded answers from production.

    Args:
        prior: the token before (its posterior from the aptitude answers).
        design, offsets: `[n, W]` and `[n]`, the prompts as the scorer sees them.
        weight: how much a grade counts against a graded aptitude answer; below 1 for noisy graders (thumbs).
    """
    return update(prior, design, offsets, scores, np.full(len(scores), weight))


class PolicyValue(NamedTuple):
    """Estimated mean score of a policy on logged traffic, and its 90 % interval."""

    value: float
    low: float
    high: float


def policy_value(
    grades: Sequence[Grade], chosen: Sequence[str], predicted: Sequence[Mapping[str, float]]
) -> PolicyValue:
    """What another policy would have scored on logged prompts: doubly robust, from logged propensities.

    `p(x, new choice) + [new choice was the logged one] / propensity * (score - p(x, logged model))`, averaged; right if
    either the propensities or the predictions are right (Dudik et al. 2011, arXiv:1103.4601).

    Args:
        chosen: model that the policy in question would choose for each graded prompt.
        predicted: predicted p by model, for each graded prompt.
    """
    if not grades:
        raise ValueError("no grade to judge a policy by")
    terms = np.array(
        [
            p[choice]
            + (choice == grade.model) / max(grade.propensity, SMALLEST_PROPENSITY) * (grade.score - p[grade.model])
            for grade, choice, p in zip(grades, chosen, predicted, strict=True)
        ]
    )
    mean = float(terms.mean())
    half = 1.645 * float(terms.std(ddof=1)) / np.sqrt(len(terms)) if len(terms) > 1 else 1.0
    return PolicyValue(mean, mean - float(half), mean + float(half))
