"""LoRA sets: the exact sum, by hand and by PEFT's own formula; folders read and written; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merge_backends.adapters import AdaptedWeights, LoraAdapter, LowRank, combine
from merge_backends.errors import CheckpointError, IncompatibleError, MergeError, RecipeError
from merge_backends.methods import entry, parse_parameters

TARGET = "layers.0.q_proj.weight"


def merged(base: Any, adapters: list[Any], **given: Any) -> dict[str, Tensor]:
    found = entry("lora")
    return dict(found.merge(base, adapters, parse_parameters(found.parameters, given, owner="lora")))


def random_adapter(seed: int, rank: int, rows: int = 6, columns: int = 5, target: str = TARGET) -> LoraAdapter:
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator)
    return LoraAdapter({target: LowRank(up, down)}, f"adapter{seed}")


def write_peft(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    folder.mkdir()
    save_file(
        {f"base_model.model.{name}": value.clone() for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}))
    return folder


def factors(rank: int = 2, rows: int = 6, columns: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)


def test_two_adapters_by_hand() -> None:
    # B1 A1 = [[0, 2], [0, 0]], B2 A2 = [[0, 0], [3, 0]]; factors merged apart would give (B1+B2)(A1+A2) = [[1, 2]...].
    one = LoraAdapter({"w": LowRank(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 2.0]]))})
    two = LoraAdapter({"w": LowRank(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0, 0.0]]))})
    result = merged({"w": torch.eye(2)}, [one, two], weight=[1.0, 2.0])
    assert result["w"].tolist() == [[1.0, 2.0], [6.0, 1.0]]


def test_adapters_of_different_ranks_and_targets_add_up_exactly() -> None:
    other = random_adapter(3, 1, target="layers.1.q_proj.weight")
    adapters = [random_adapter(1, 2), random_adapter(2, 4), other]
    base = {TARGET: torch.zeros(6, 5), "layers.1.q_proj.weight": torch.ones(6, 5), "norm": torch.ones(3)}
    result = merged(base, adapters, weight=[0.5, -2.0, 0.25])
    reference = 0.5 * adapters[0][TARGET] - 2 * adapters[1][TARGET]
    assert torch.allclose(result[TARGET], reference, atol=1e-5)
    assert torch.allclose(result["layers.1.q_proj.weight"], 1 + 0.25 * other["layers.1.q_proj.weight"], atol=1e-6)
    assert torch.equal(result["norm"], base["norm"])


def test_the_merge_as_one_adapter_changes_the_base_in_the_same_way() -> None:
    adapters = [random_adapter(1, 2), random_adapter(2, 3)]
    one = combine(adapters, [0.3, 0.7])
    assert one.targets[TARGET].rank == 5
    base = {TARGET: torch.zeros(6, 5)}
    assert torch.allclose(merged(base, adapters, weight=[0.3, 0.7])[TARGET], one[TARGET], atol=1e-6)


def test_one_adapter_of_weight_one_is_that_expert_and_lambda_zero_is_the_base() -> None:
    base = {TARGET: torch.randn(6, 5, generator=torch.Generator().manual_seed(9))}
    adapter = random_adapter(1, 2)
    assert torch.equal(merged(base, [adapter])[TARGET], base[TARGET] + adapter[TARGET])
    assert torch.equal(merged(base, [adapter], **{"lambda": 0.0})[TARGET], base[TARGET])


def test_cutting_the_rank_gives_the_nearest_change_of_that_rank() -> None:
    cut = combine([random_adapter(1, 2), random_adapter(2, 3)], [1.0, 1.0], rank=2)
    whole = combine([random_adapter(1, 2), random_adapter(2, 3)], [1.0, 1.0])[TARGET]
    u, s, vh = torch.linalg.svd(whole)
    assert cut.targets[TARGET].rank == 2
    assert torch.allclose(cut[TARGET], u[:, :2] * s[:2] @ vh[:2], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "scale"),
    [({}, 2.0), ({"use_rslora": True}, 4 / 2**0.5), ({"alpha_pattern": {"q_proj": 1}}, 0.5), ({"lora_alpha": 3}, 1.5)],
    ids=["alpha over rank", "rsLoRA", "alpha of one module", "odd alpha"],
)
def test_a_peft_folder_is_read_with_its_scale(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    a, b = factors()
    tensors = {"layers.0.q_proj.lora_A.weight": a, "layers.0.q_proj.lora_B.weight": b}
    adapter = LoraAdapter.open(write_peft(tmp_path / "a", tensors, **config))
    assert torch.allclose(adapter[TARGET], scale * b @ a, atol=1e-5)


def test_transposed_weights_and_embeddings_change_in_their_own_layout(tmp_path: Path) -> None:
    a, b = factors()
    conv = LoraAdapter.open(
        write_peft(tmp_path / "c", {"h.c_attn.lora_A.weight": a, "h.c_attn.lora_B.weight": b}, fan_in_fan_out=True)
    )
    embedding = LoraAdapter.open(write_peft(tmp_path / "e", {"wte.lora_embedding_A": a, "wte.lora_embedding_B": b}))
    assert torch.allclose(conv["h.c_attn.weight"], 2 * (b @ a).T, atol=1e-5)
    assert torch.allclose(embedding["wte.weight"], 2 * (b @ a).T, atol=1e-5)


@pytest.mark.parametrize("layout", [{}, {"fan_in_fan_out": True}], ids=["linear", "transposed"])
def test_a_saved_merge_reads_back_as_the_same_change(tmp_path: Path, layout: dict[str, Any]) -> None:
    a, b = factors()
    tensors = {"layers.0.q_proj.lora_A.weight": a, "layers.0.q_proj.lora_B.weight": b, "wte.lora_embedding_A": a,
               "wte.lora_embedding_B": b}  # fmt: skip
    adapter = LoraAdapter.open(write_peft(tmp_path / "a", tensors, **layout))
    combine([adapter, adapter], [0.5, 1.5]).save(tmp_path / "sum", "some/base")
    again = LoraAdapter.open(tmp_path / "sum")
    assert {target: pair.rank for target, pair in again.targets.items()} == {TARGET: 4, "wte.weight": 4}
    assert all(torch.allclose(again[target], 2 * adapter[target], atol=1e-5) for target in adapter)
    stored = load_file(tmp_path / "sum" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.") for name in stored)


def test_any_method_takes_a_base_with_an_adapter_as_an_expert() -> None:
    base = {TARGET: torch.ones(6, 5), "norm": torch.ones(3)}
    adapters = [random_adapter(1, 2), random_adapter(2, 3)]
    arithmetic = entry("task_arithmetic")
    parameters = parse_parameters(arithmetic.parameters, {}, owner="task_arithmetic")
    experts = [AdaptedWeights(base, adapter) for adapter in adapters]
    result = dict(arithmetic.merge(base, experts, parameters))
    assert torch.allclose(result[TARGET], merged(base, adapters)[TARGET], atol=1e-5)


def test_keeps_the_bases_dtype() -> None:
    base = {TARGET: torch.ones(6, 5).bfloat16()}
    assert merged(base, [random_adapter(1, 2)])[TARGET].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("config", "word"),
    [({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias"), ({"modules_to_save": ["head"]}, "modules_to_save"),
     ({"peft_type": "IA3"}, "IA3")],
)  # fmt: skip
def test_what_is_more_than_two_factors_is_refused_by_name(tmp_path: Path, config: dict[str, Any], word: str) -> None:
    a, b = factors()
    folder = write_peft(tmp_path / "a", {"q.lora_A.weight": a, "q.lora_B.weight": b}, **config)
    with pytest.raises(RecipeError, match=word):
        LoraAdapter.open(folder)


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    a, b = factors()
    half = write_peft(tmp_path / "half", {"q.lora_A.weight": a})
    poisoned = write_peft(tmp_path / "nan", {"q.lora_A.weight": a * float("nan"), "q.lora_B.weight": b})
    pickled = write_peft(tmp_path / "pickle", {"q.lora_A.weight": a, "q.lora_B.weight": b})
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    strange = write_peft(tmp_path / "more", {"q.lora_A.weight": a, "q.lora_B.weight": b, "q.bias": b})
    for folder in (half, poisoned, pickled, strange, tmp_path / "absent"):
        with pytest.raises(MergeError):
            LoraAdapter.open(folder)
    with pytest.raises(CheckpointError, match="outside"):
        LoraAdapter.open(strange, allowed=[tmp_path / "half"])


def test_adapters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(IncompatibleError, match="does not have"):
        merged({"other": torch.ones(2, 2)}, [random_adapter(1, 2)])
    with pytest.raises(IncompatibleError, match="shape"):
        merged({TARGET: torch.ones(2, 2)}, [random_adapter(1, 2)])
    with pytest.raises(IncompatibleError, match="agree"):
        merged({TARGET: torch.ones(6, 5)}, [random_adapter(1, 2), random_adapter(2, 2, rows=7)])
    with pytest.raises(RecipeError, match="not an adapter"):
        merged({TARGET: torch.ones(6, 5)}, [{TARGET: torch.ones(6, 5)}])
    with pytest.raises(RecipeError, match="2 values"):
        merged({TARGET: torch.ones(6, 5)}, [random_adapter(1, 2)] * 3, weight=[1.0, 2.0])
