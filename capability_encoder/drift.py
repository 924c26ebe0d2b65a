"""Signs that traffic or models have changed: mix of clusters (PSI), rolling Brier score and calibration error."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

PSI_MODERATE = 0.1
PSI_LARGE = 0.25
"""The usual reading of the population stability index: below 0.1 stable, above 0.25 another population."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What the last `prompts` prompts and `graded` graded answers say; None where there are too few to say anything."""

    psi: float | None
    brier: float | None
    calibration_error: float | None
    prompts: int
    graded: int


class DriftMonitor:
    """Rolling statistics of traffic against training. Not thread-safe: feed it from one thread or the event loop.

    Args:
        reference_mix: share of each cluster in the training prompts `[K]`, summing to 1.
        window: how many of the last prompts and grades count.
        fewest: below this many, no figure is given.
    """

    def __init__(self, reference_mix: Sequence[float], *, window: int = 2_000, fewest: int = 200) -> None:
        self._reference = np.asarray(reference_mix, dtype=np.float64)
        self._clusters: deque[int] = deque(maxlen=window)
        self._counts = np.zeros(len(self._reference), dtype=np.int64)
        self._graded: deque[tuple[float, float]] = deque(maxlen=window)
        self._fewest = fewest

    def see_prompt(self, cluster: int) -> None:
        """Count one routed prompt."""
        if len(self._clusters) == self._clusters.maxlen:
            self._counts[self._clusters[0]] -= 1
        self._clusters.append(cluster)
        self._counts[cluster] += 1

    def see_grade(self, p: float, score: float) -> None:
        """Count one graded answer with the probability that was predicted for it."""
        self._graded.append((p, score))

    def report(self) -> DriftReport:
        """The figures of this moment."""
        graded = np.array(self._graded, dtype=np.float64).reshape(-1, 2)
        enough = len(graded) >= self._fewest
        return DriftReport(
            psi=stability_index(self._reference, self._counts) if len(self._clusters) >= self._fewest else None,
            brier=float(np.mean((graded[:, 0] - graded[:, 1]) ** 2)) if enough else None,
            calibration_error=expected_calibration_error(graded[:, 0], graded[:, 1]) if enough else None,
            prompts=len(self._clusters),
            graded=len(graded),
        )


def stability_index(reference: npt.ArrayLike, counts: npt.ArrayLike) -> float:
    """Population stability index: sum (q - r) ln(q / r) over clusters, with half a count added to each cluster."""
    expected = np.asarray(reference, dtype=np.float64)
    found = np.asarray(counts, dtype=np.float64)
    total = found.sum() + 0.5 * len(found)
    q = (found + 0.5) / total
    r = (expected * found.sum() + 0.5) / total
    return float(np.sum((q - r) * np.log(q / r)))


def expected_calibration_error(p: npt.ArrayLike, scores: npt.ArrayLike, *, bins: int = 15) -> float:
    """Mean absolute difference of predicted and observed over bins of equal mass, weighted by their size."""
    predicted = np.asarray(p, dtype=np.float64)
    observed = np.asarray(scores, dtype=np.float64)
    if not len(predicted):
        raise ValueError("no prediction to judge")
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(abs(predicted[part].mean() - observed[part].mean()) * len(part) for part in parts) / len(order))
