"""Views of a prompt -> the coordinates in which models are compared: difficulty, interaction directions, domains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.own_heads import OwnHeads

FloatArray = npt.NDArray[np.float32]


class Coordinates(NamedTuple):
    """Where prompts lie.

    Attributes:
        difficulty: `[B]` expected logit of the population's success; higher is easier.
        directions: `[B, R]` along which models differ, about unit variance on known prompts.
        own: `[B, K]` logits that each known model's own head adds.
    """

    difficulty: FloatArray
    directions: FloatArray
    own: FloatArray


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """Standardised views and smooth functions of the text's form.

    Attributes:
        mean, scale: `[V]` of the views; the structure part is divided by its deviation, the others by their block's.
        structure: first and last column of the structure view.
        waves: `[S, Q]` random frequencies (random Fourier features, Rahimi and Recht 2007), `phases` `[Q]`.
        wave_weight: weight of these against the linear part.
    """

    mean: FloatArray
    scale: FloatArray
    structure: tuple[int, int]
    waves: FloatArray
    phases: FloatArray
    wave_mean: FloatArray
    wave_weight: float

    def expand(self, views: FloatArray) -> FloatArray:
        """Features `[B, P]` of views `[B, V]`."""
        first, last = self.structure
        standard = (views - self.mean) / self.scale
        form = np.clip(standard[:, first:last], -3.0, 3.0)
        waves = np.sqrt(2.0 / len(self.phases)) * np.cos(form @ self.waves + self.phases) - self.wave_mean
        parts = [standard[:, :first], standard[:, last:], waves * self.wave_weight]
        return np.concatenate(parts, axis=1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class EaseHead:
    """Ease of a prompt: a linear part, and closeness to known prompts.

    Attributes:
        linear: `[P]`.  bias: for features and closeness of 0.
        projection: `[P, K]` to the space in which closeness is measured.
        landmarks: `[L, K]` known prompts there.  near: `[L]` ease per unit of closeness to each.
    """

    linear: FloatArray
    projection: FloatArray
    landmarks: FloatArray
    near: FloatArray
    bias: float
    _landmark_squares: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_landmark_squares", (self.landmarks**2).sum(axis=1))

    def surroundings(self, features: FloatArray) -> FloatArray:
        """Closeness `[B, L]` of features `[B, P]` to the landmarks."""
        return closeness(features @ self.projection, self.landmarks, self._landmark_squares)

    def predict(self, features: FloatArray, close: FloatArray) -> FloatArray:
        """Ease `[B]` of features `[B, P]` in these surroundings `[B, L]`."""
        return np.asarray(features @ self.linear + close @ self.near + self.bias, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads on the features: ease, and directions read off topics and known surroundings.

    Attributes:
        ease: of the prompt for the population.
        topics: `[P, C]` and `topics_bias` `[C]`: logits of C topics.
        columns: `[Z]` feature columns in which surroundings are measured, each times `width`.
        landmarks: `[L, Z]` known prompts in these coordinates.
        near: `[L, R]` directions per unit of closeness to each landmark.
        topical: `[C, R]` directions per topic.  direction_bias: `[R]`.
        own: of the known models, on the ease head's surroundings and the topics.
    """

    ease: EaseHead
    topics: FloatArray
    topics_bias: FloatArray
    columns: npt.NDArray[np.int64]
    width: float
    landmarks: FloatArray
    near: FloatArray
    topical: FloatArray
    direction_bias: FloatArray
    own: OwnHeads
    _landmark_squares: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_landmark_squares", (self.landmarks**2).sum(axis=1))

    def locate(self, features: FloatArray) -> Coordinates:
        """Coordinates of features `[B, P]`."""
        places = features.take(self.columns, axis=1) * np.float32(self.width)
        close = closeness(places, self.landmarks, self._landmark_squares)
        topics = softmax(features @ self.topics + self.topics_bias)
        surroundings = self.ease.surroundings(features)
        return Coordinates(
            difficulty=self.ease.predict(features, surroundings),
            directions=(close @ self.near + topics @ self.topical + self.direction_bias).astype(np.float32),
            own=self.own.read(surroundings, topics),
        )


def closeness(points: FloatArray, landmarks: FloatArray, landmark_squares: FloatArray | None = None) -> FloatArray:
    """Gaussian kernel `[B, L]` of points `[B, Z]` and landmarks `[L, Z]`, 1 where they coincide.

    Args:
        landmark_squares: `[L]` squared lengths of the landmarks, if known: summing them costs more than the rest.
    """
    squares = (landmarks**2).sum(axis=1) if landmark_squares is None else landmark_squares
    # In place, for a prompt's whole way takes a third of a millisecond; factors of two are exact in any order.
    doubled = points @ landmarks.T
    doubled *= 2.0
    squared = np.add((points**2).sum(axis=1)[:, None], squares)
    squared -= doubled
    np.maximum(squared, 0.0, out=squared)
    squared *= -0.5
    return np.asarray(np.exp(squared, out=squared), dtype=np.float32)


def softmax(logits: FloatArray) -> FloatArray:
    """Rows `[B, C]` that sum to one."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)
