"""Tables as signed bytes with one scale per column: a quarter of the size, within 0.4 % of each column's largest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.int8]


def to_bytes(table: FloatArray) -> tuple[ByteArray, FloatArray]:
    """Bytes `[N, Q]` and scales `[Q]` of a table `[N, Q]`; a column of zeros stays one."""
    scale = (np.abs(table).max(axis=0) / 127.0).astype(np.float32)
    return np.rint(table / np.where(scale > 0.0, scale, 1.0)).astype(np.int8), scale


def from_bytes(table: ByteArray, scale: FloatArray) -> FloatArray:
    """The table `[N, Q]` again."""
    return table.astype(np.float32) * scale


def rounded(table: FloatArray) -> FloatArray:
    """The table as it will be read back, so that a fit sees what the run time will see."""
    return from_bytes(*to_bytes(table))
