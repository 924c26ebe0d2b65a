"""What is known of single models beyond their weights: how each differs near known prompts and within topics.

The weights of a model stand for a few directions that all models share, so that a newcomer's answers can place it. A
model with thousands of outcomes has more to say; this is it, and a model without an entry simply has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OwnHeads:
    """Linear heads of K known models, in logits.

    Attributes:
        near: `[L, K]` per unit of closeness to each landmark of the ease head.
        topical: `[C, K]` per topic.  bias: `[K]`.
    """

    near: FloatArray
    topical: FloatArray
    bias: FloatArray

    def read(self, close: FloatArray, topics: FloatArray) -> FloatArray:
        """Logits `[B, K]` of closeness `[B, L]` and topics `[B, C]`."""
        return np.asarray(close @ self.near + topics @ self.topical + self.bias, dtype=np.float32)

    def of(self, columns: IntArray) -> OwnHeads:
        """The heads of some models, in the order given."""
        return OwnHeads(self.near[:, columns], self.topical[:, columns], self.bias[columns])
