"""The names of all built-in merge methods, with the module of each: a list that costs no torch import."""

from __future__ import annotations

from typing import NamedTuple


class Listing(NamedTuple):
    """One row of `orbweaver merge methods`."""

    module: str
    summary: str
    paper: str


CATALOGUE: dict[str, Listing] = {
    "linear": Listing(
        "merge_backends.methods.linear",
        "Weighted mean of the models.",
        "Model soups, arXiv:2203.05482",
    ),
    "slerp": Listing(
        "merge_backends.methods.slerp",
        "Spherical interpolation between two models.",
        "Shoemake 1985, Animating rotation with quaternion curves",
    ),
    "task_arithmetic": Listing(
        "merge_backends.methods.task_arithmetic",
        "Base plus the weighted sum of the task vectors.",
        "Task arithmetic, arXiv:2212.04089",
    ),
    "ties": Listing(
        "merge_backends.methods.ties",
        "Trim small changes, elect a sign per weight, merge what agrees with it.",
        "TIES-Merging, arXiv:2306.01708",
    ),
    "dare_linear": Listing(
        "merge_backends.methods.dare",
        "Drop changes at random, rescale the rest, sum them.",
        "DARE, arXiv:2311.03099",
    ),
    "dare_ties": Listing(
        "merge_backends.methods.dare",
        "Drop changes at random, rescale the rest, elect a sign per weight.",
        "DARE, arXiv:2311.03099, with the election of arXiv:2306.01708",
    ),
    "passthrough": Listing(
        "merge_backends.methods.passthrough",
        "One model's tensors as they are, times a scale: for stacking layers.",
        "Frankenmerges; depth up-scaling, arXiv:2312.15166",
    ),
    "fisher": Listing(
        "merge_backends.methods.fisher",
        "Mean weighted by how much each weight matters to its own task.",
        "Fisher merging, arXiv:2111.09832",
    ),
    "regmean": Listing(
        "merge_backends.methods.regmean",
        "Each linear layer by least squares on the inputs that its experts see.",
        "RegMean, arXiv:2212.09849",
    ),
    "adamerging": Listing(
        "merge_backends.methods.adamerging",
        "Task arithmetic with weights learned from unlabelled inputs, per task or per layer.",
        "AdaMerging, arXiv:2310.02575",
    ),
    "lora": Listing(
        "merge_backends.methods.lora",
        "LoRA adapters of any ranks and scales, merged exactly into a dense model or into one adapter.",
        "LoRA, arXiv:2106.09685",
    ),
    "mal": Listing(
        "merge_backends.mal.method",
        "A zoo of other depths and widths laid on one base by assignment, each step kept only if validation allows it.",
        "MAL, arXiv:2503.21657 (our reading)",
    ),
}
