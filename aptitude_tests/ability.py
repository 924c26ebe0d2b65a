"""From answers to ability: the profile that the scorer reads, what it says of typical prompts, and when to stop asking.

The posterior itself (mean and covariance of the model's token over the calibrated item bank) is the scorer's own, so
that what is measured here is exactly what routing uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from aptitude_tests.flow import Record
from aptitude_tests.item import Item
from aptitude_tests.render import render_text
from aptitude_tests.selection import Information
from capability_encoder.posterior import attenuation, sigmoid
from capability_encoder.profile import Answer, CapabilityProfile
from capability_encoder.scorer import CapabilityScorer
from capability_encoder.state import design_of

Float64Array = npt.NDArray[np.float64]
_REFERENCE_PROMPTS = 500
_NORMAL_90 = 1.6449
#: The embedder reads the head and the tail of a text; what lies between is left out of a stored profile.
_TEXT_END = 6_000


def profile_of_records(
    facts: CapabilityProfile, suite: str, records: Iterable[Record], bank: frozenset[str]
) -> CapabilityProfile:
    """The profile that the answers make.

    A reply in which no answer was found counts as not right, as it would for a user (and as in the data that the
    encoder was trained on); a call that brought no reply says nothing and is left out.

    Args:
        facts: what is known of the model otherwise; its answers are replaced.
        bank: items that the encoder holds calibrated; others carry their text.
    """
    answers = []
    for record in records:
        if record.verdict is None:
            continue
        item = record.item
        text = None if item.id in bank else _shortened(render_text(item))
        answers.append(Answer(item.id, record.verdict.score or 0.0, suite, text))
    return replace(facts, answers=tuple(answers))


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * _TEXT_END else f"{text[:_TEXT_END]}\n...\n{text[-_TEXT_END:]}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a profile predicts for typical prompts: mean P(correct) with a 90 % interval, and the ability in logits.

    Attributes:
        spread: standard deviation of the ability.
    """

    p: float
    p_low: float
    p_high: float
    ability: float
    spread: float


class Measure:
    """Reads profiles through a scorer. Costs milliseconds, and seconds where texts must be embedded: for a thread."""

    def __init__(self, scorer: CapabilityScorer) -> None:
        self.scorer = scorer
        items = scorer.state.items
        stream = np.random.default_rng(20261121)
        rows = stream.choice(len(items.ids), min(_REFERENCE_PROMPTS, len(items.ids)), replace=False)
        self._reference = design_of(items.coordinates[np.sort(rows)])

    @cached_property
    def bank(self) -> frozenset[str]:
        """Items that the encoder holds calibrated."""
        return frozenset(self.scorer.item_ids)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.scorer.item_ids)}

    def standing(self, profile: CapabilityProfile) -> Standing:
        """What the profile predicts for typical prompts (a fixed sample of the item bank)."""
        pool = self.scorer.prepare([profile])
        mean, covariance = pool.means[0], pool.covariances[0]
        p = self._predicted(mean, covariance)
        slope = self._slopes(mean, covariance) @ self._reference / len(self._reference)
        half = _NORMAL_90 * float(np.sqrt(max(slope @ covariance @ slope, 0.0)))
        middle = float(p.mean())
        return Standing(
            middle, max(0.0, middle - half), min(1.0, middle + half), float(mean[0]), float(np.sqrt(covariance[0, 0]))
        )

    def typical_p(self, profiles: Sequence[CapabilityProfile]) -> Float64Array:
        """P(correct) `[N, M]` of M profiles on the typical prompts."""
        pool = self.scorer.prepare(profiles)
        columns = [self._predicted(mean, spread) for mean, spread in zip(pool.means, pool.covariances, strict=True)]
        return np.stack(columns, axis=1)

    def surprise(self, profile: CapabilityProfile) -> float:
        """How far the answers lie from what the artefact knows of the model `known_as`, in standard deviations.

        0 for a model that it does not know. Only items of the bank are compared.
        """
        if profile.known_as not in self.scorer.known_models:
            return 0.0
        state = self.scorer.state
        column = self.scorer.known_models.index(str(profile.known_as))
        pairs = [(self._row_of[one.item], one.score) for one in profile.answers if one.item in self._row_of]
        if not pairs:
            return 0.0
        rows, scores = np.array([row for row, _ in pairs]), np.array([score for _, score in pairs])
        weights = state.weights[column]
        design = design_of(state.items.coordinates[rows])
        slope = state.items.slope[rows].astype(np.float64)
        spread = np.einsum("nw,wv,nv->n", design, weights.covariance, design) + state.items.variance[rows]
        spread, logit = slope**2 * spread, slope * (design @ weights.mean + state.items.offset[rows])
        p = sigmoid(np.asarray(logit * attenuation(np.asarray(spread, dtype=np.float64)), dtype=np.float64))
        return float((scores - p).sum() / np.sqrt((p * (1.0 - p)).sum()))

    def information(self, profile: CapabilityProfile, items: Sequence[Item]) -> Information:
        """What answers to `items` would tell of a model with this profile."""
        design, offset, _ = self._placed(items)
        pool = self.scorer.prepare([profile])
        p = sigmoid(design @ pool.means[0] + offset)
        return Information(design, np.asarray(p * (1.0 - p)), pool.covariances[0])

    def movement(self, profile: CapabilityProfile, answered: Sequence[Item], left: Sequence[Item]) -> float:
        """Expected mean |change| of P(correct) on typical prompts, were `left` asked as well (0..1).

        From the covariance now and then (the mean moves by as much as the covariance shrinks: van Trees).
        """
        pool = self.scorer.prepare([profile])
        mean, width = pool.means[0], self.scorer.state.width
        known = profile.known_as in self.scorer.known_models if profile.known_as else False
        start = (
            self.scorer.state.weights[self.scorer.known_models.index(str(profile.known_as))].covariance
            if known
            else self.scorer.state.population.covariance
        )
        precision = np.zeros((width + 1, width + 1))
        precision[:width, :width] = np.linalg.inv(start)
        precision[width, width] = 1.0 / self.scorer.state.calibration.centre_variance
        now = precision + self._told(mean, answered)
        then = now + self._told(mean, left)
        shrunk = (np.linalg.inv(now) - np.linalg.inv(then))[:width, :width]
        variance = np.maximum(np.einsum("nw,wv,nv->n", self._reference, shrunk, self._reference), 0.0)
        slopes = self._slopes(mean, pool.covariances[0])
        return float(np.mean(np.sqrt(2.0 / np.pi) * slopes * np.sqrt(variance)))

    def _told(self, mean: Float64Array, items: Sequence[Item]) -> Float64Array:
        """Information `[W + 1, W + 1]` of answers to the items on the weights and on the suite's common error."""
        if not items:
            return np.zeros((len(mean) + 1, len(mean) + 1))
        design, offset, shared = self._placed(items)
        p = sigmoid(design @ mean + offset)
        wide = np.column_stack([design, shared])
        return np.asarray((wide * (p * (1.0 - p))[:, None]).T @ wide)

    def _placed(self, items: Sequence[Item]) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Design rows `[N, W]`, offsets `[N]`, and how far each shares its suite's common error `[N]`."""
        width, state = self.scorer.state.width, self.scorer.state
        design, offset, shared = np.zeros((len(items), width)), np.zeros(len(items)), np.zeros(len(items))
        here = [number for number, item in enumerate(items) if item.id in self._row_of]
        if here:
            rows = np.array([self._row_of[items[number].id] for number in here])
            slope = state.items.slope[rows].astype(np.float64)
            factor = slope * attenuation(slope**2 * state.items.variance[rows])
            design[here] = design_of(state.items.coordinates[rows]) * factor[:, None]
            offset[here] = state.items.offset[rows].astype(np.float64) * factor
        others = [number for number, item in enumerate(items) if item.id not in self._row_of]
        if others:
            place = self.scorer.locate_texts([_shortened(render_text(items[number])) for number in others])
            factor = attenuation(place.item_variance)
            design[others] = place.design * factor[:, None]
            shared[others] = factor
        return design, offset, shared

    def _predicted(self, mean: Float64Array, covariance: Float64Array) -> Float64Array:
        calibration = self.scorer.state.calibration
        logit = self._reference @ mean
        return sigmoid(calibration.intercept + calibration.slope * logit * self._factor(covariance))

    def _slopes(self, mean: Float64Array, covariance: Float64Array) -> Float64Array:
        """dP/dlogit of the reference prompts `[N]`."""
        p = self._predicted(mean, covariance)
        return np.asarray(self.scorer.state.calibration.slope * self._factor(covariance) * p * (1.0 - p))

    def _factor(self, covariance: Float64Array) -> Float64Array:
        variance = np.einsum("nw,wv,nv->n", self._reference, covariance, self._reference)
        return attenuation(variance + self.scorer.state.calibration.item_variance)
