"""Settings of each mixture method, under the names of fusion_bench. Light: imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MixtureParameters(BaseModel):
    """What all mixtures refuse: unknown keys, and changes after they were made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WEMoEParameters(MixtureParameters):
    """WEMoE (arXiv:2402.00433): a router per MLP, all else task arithmetic."""

    init_lambda: float = Field(0.3, ge=-10, le=10, description="weight of each task vector before the routers learn")
    router_hidden_layers: Literal[0, 1, 2] = Field(2, description="0: a constant per expert, 1: linear, 2: one ReLU")
    shared_gate: bool = Field(False, description="one router for the MLPs of all layers")
    layer_encoding: int = Field(0, ge=0, le=256, multiple_of=2, description="sinusoidal layer index given to the gate")
    tv_prune_ratio: float = Field(0.0, ge=0, lt=1, description="share of each task vector tensor that is dropped")
    upscale_attn: bool = Field(False, description="mix the attention's linear maps too, by the same gate")
    merge_above_tokens: int | None = Field(
        None, ge=0, description="tokens per input from which weights are merged; None: by device and experts"
    )


class EWEMoEParameters(WEMoEParameters):
    """E-WEMoE (arXiv:2410.21804): one router for all layers, task vectors pruned and stored sparse."""

    shared_gate: bool = True
    tv_prune_ratio: float = Field(0.9, ge=0, lt=1, description="share of each task vector tensor that is dropped")


class SMILEParameters(MixtureParameters):
    """SMILE (arXiv:2408.10174): zero-shot low-rank experts, routed per token by their right singular vectors."""

    gate_k: int = Field(16, ge=1, description="right singular vectors the router looks at")
    k: int = Field(32, description="rank of each expert; below 0: the whole difference, dense")
    top_k: int = Field(1, ge=1, description="experts per token")
    upscale_mlp: bool = True
    upscale_attn: bool = True
    rest: Literal["base", "average", "task_arithmetic"] = Field(
        "base", description="tensors outside the upscaled layers: the base's (paper), the experts' mean, or their sum"
    )
    init_lambda: float = Field(0.3, ge=-10, le=10, description="weight of each task vector where experts are summed")


class ParetoParameters(MixtureParameters):
    """Pareto MoE (arXiv:2406.09770): the router reads the preference, so each preference is a dense model."""

    init_lambda: float = Field(0.3, ge=-10, le=10, description="weight of each task vector before the gates learn")
    router_hidden_layers: Literal[1, 2] = Field(2, description="1: linear, 2: one ReLU of width 2K")
    partial: bool = Field(True, description="gates on the MLPs only; False: on every tensor, by block")
    identity: bool = Field(False, description="gates start as the preference itself: one-hot gives that expert")
    grid: int = Field(10, ge=1, le=1000, description="preferences snap to multiples of 1/grid")
