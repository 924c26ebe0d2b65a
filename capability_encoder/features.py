"""Views of a prompt -> the coordinates in which models are compared: difficulty, interaction directions, domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class Coordinates(NamedTuple):
    """Where prompts lie.

    Attributes:
        difficulty: `[B]` expected logit of the population's success; higher is easier.
        directions: `[B, R]` along which models differ, about unit variance on known prompts.
    """

    difficulty: FloatArray
    directions: FloatArray


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
class Heads:
    """Linear heads on the features.

    Attributes:
        difficulty: `[P]` and `difficulty_bias`.
        directions: `[P, R]`.
    """

    difficulty: FloatArray
    difficulty_bias: float
    directions: FloatArray

    def locate(self, features: FloatArray) -> Coordinates:
        """Coordinates of features `[B, P]`."""
        return Coordinates(
            difficulty=(features @ self.difficulty + self.difficulty_bias).astype(np.float32),
            directions=(features @ self.directions).astype(np.float32),
        )
