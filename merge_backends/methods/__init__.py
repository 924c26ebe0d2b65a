"""The registry of merge methods. A method is imported when it is asked for; other packages join by entry point."""

from __future__ import annotations

from merge_backends.methods.base import MergeMethod, Parameters, TensorMethod, Weights
from merge_backends.methods.registry import entry, listings, method, names, parse_parameters

__all__ = [
    "MergeMethod",
    "Parameters",
    "TensorMethod",
    "Weights",
    "entry",
    "listings",
    "method",
    "names",
    "parse_parameters",
]
