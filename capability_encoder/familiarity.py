"""Is a prompt like those known? Mahalanobis distance to the nearest kind of known prompt, in radii of that kind.

Similarity of topic is not enough: a word problem without options looks like the known physics questions, yet models
that fail these solve it. What a text is about and the form it has are therefore judged together.
Ref: Lee et al. 2018 (arXiv:1807.03888): class-conditional Gaussians with one covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_CLIP = 5.0


@dataclass(frozen=True, slots=True)
class Familiarity:
    """Kinds of known prompts as balls of their own radius in one whitened space.

    Attributes:
        mean: `[E]` of the embedding.  directions: `[E, K]` principal ones, divided by their deviation.
        form_mean, form_scale: `[S]` of the structure view.
        whiten: `[K + S, K + S]`.
        centres: `[C, K + S]`, whitened.  radii: `[C]` distance within which 95 % of a kind's prompts lie.
        compared: `[C]` whether enough models answered the kind's prompts to tell how models differ on them.
    """

    mean: FloatArray
    directions: FloatArray
    form_mean: FloatArray
    form_scale: FloatArray
    whiten: FloatArray
    centres: FloatArray
    radii: FloatArray
    compared: npt.NDArray[np.bool_]
    _squares: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_squares", (self.centres**2).sum(axis=1))

    def ratios(self, views: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Distance to the nearest kind in units of its radius, up to 1 for familiar prompts, `[B]` each.

        The second counts only kinds on which many models were compared.

        Args:
            views: `[B, V]`, beginning with the embedding and the structure view.
        """
        size, form = len(self.mean), len(self.form_mean)
        about = (views[:, :size] - self.mean) @ self.directions
        shape = np.clip((views[:, size : size + form] - self.form_mean) / self.form_scale, -_CLIP, _CLIP)
        placed = np.concatenate([about, shape], axis=1) @ self.whiten
        squares = (placed**2).sum(axis=1)[:, None] + self._squares - 2.0 * placed @ self.centres.T
        kinds = (np.sqrt(np.maximum(squares, 0.0)) / self.radii).astype(np.float32)
        return kinds.min(axis=1), kinds[:, self.compared].min(axis=1, initial=np.inf)
