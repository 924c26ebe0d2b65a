"""Settings of the language-model form of Model-SAT: which psi and phi, how they join, how the two stages train."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class _Setting(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderSetting(_Setting):
    """psi: the sentence encoder that reads the capability text.

    `tokens: one` is the paper's single soft token, made of the first `max_tokens` pieces of the text (about half of
    the fifty tasks with 512). `tokens: windows` gives one soft token per window, so that no task is lost.
    """

    path: Path
    max_tokens: int = Field(gt=8)
    pooling: Literal["mean", "first"] = "mean"
    prefix: str = ""
    tokens: Literal["one", "windows"] = "windows"


class LanguageModelSetting(_Setting):
    """phi: the causal language model that says 'Yes'."""

    path: Path
    max_prompt_tokens: int = Field(gt=8)
    dtype: Literal["float32", "bfloat16"] = "float32"


class Stage(_Setting):
    """One training stage. A rate of 0 keeps that part frozen."""

    name: str
    datasets: tuple[str, ...] = Field(min_length=1)
    steps: int = Field(gt=0)
    groups: int = Field(gt=0, description="positives per step, all of one model and one data set")
    connector_rate: float = Field(ge=0)
    encoder_rate: float = Field(ge=0)
    language_rate: float = Field(ge=0)


class ModelSatSetting(_Setting):
    """The whole run.

    `contrast` is Eq. 5 of the paper; `pointwise` is the Yes/No cross-entropy of LLMRouterBench's port.
    """

    name: str
    encoder: EncoderSetting
    language_model: LanguageModelSetting
    question: str = (
        "\nPredict whether the model can handle the test sample by indicating 'Yes' or 'No'.\nAnswer:"  # p of z
    )
    answer: str = " Yes"
    loss: Literal["contrast", "pointwise"] = "contrast"
    negatives: int = Field(default=3, gt=0)
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    test_orders: int = Field(default=2, gt=0)
    seed: int = 0
    stages: tuple[Stage, ...] = Field(min_length=1)


def load_setting(path: Path) -> ModelSatSetting:
    """Read a YAML setting; relative model paths are taken from the YAML's folder.

    Raises:
        ValueError: no such file, not YAML, or a key is wrong; the message names the key.
    """
    if not path.is_file():
        raise ValueError(f"no Model-SAT setting at {str(path)!r}")
    try:
        setting = ModelSatSetting.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{str(path)!r} is not YAML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{str(path)!r}: {wrong}") from error
    here = path.parent
    return setting.model_copy(
        update={
            "encoder": setting.encoder.model_copy(update={"path": here / setting.encoder.path}),
            "language_model": setting.language_model.model_copy(update={"path": here / setting.language_model.path}),
        }
    )
