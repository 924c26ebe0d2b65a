"""Mixtures on disk: bit-equal when loaded, small for real, complete or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_backends import moe
from merge_backends.checkpoint import Checkpoint
from merge_backends.errors import BuildError, CheckpointError, IncompatibleError, MergeError, UnknownNameError
from merge_backends.moe import pareto
from merge_backends.moe.adapt import Batch
from merge_backends.moe.mixture import size_of
from merge_backends.moe.store import (
    MANIFEST,
    TENSORS,
    load_mixture,
    load_routers,
    pack,
    router_tensors,
    save_mixture,
    unpack,
)
from merge_backends.moe.wemoe import routers_of
from merge_backends.router_check import fit_router_check
from tests.support.tiny_models import SHAPES, family, inputs, run, tiny_model

SETTINGS: dict[str, dict[str, Any]] = {
    "wemoe": {"layer_encoding": 4, "shared_gate": True},
    "e_wemoe": {},
    "smile": {"k": 4, "gate_k": 2, "rest": "average"},
    "pareto": {"partial": False},
}
shapes = pytest.mark.parametrize("shape", SHAPES)
methods = pytest.mark.parametrize("method", SETTINGS)


def mixture(method: str, shape: str = "llama", **more: Any) -> torch.nn.Module:
    base, experts = family(shape)
    made = moe.build(method, tiny_model(shape), base, experts, SETTINGS[method] | more)
    for router in routers_of(made):
        for weight in router.weights:
            weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    return made


def nbytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


@shapes
@methods
def test_a_loaded_mixture_answers_bit_for_bit_as_the_saved_one(shape: str, method: str, tmp_path: Path) -> None:
    made = mixture(method, shape)
    if method == "pareto":
        pareto.set_preference(made, [1, 1, 1])
    save_mixture(tmp_path / "mixture", made)
    loaded = load_mixture(tmp_path / "mixture")
    assert torch.equal(run(loaded, inputs(padding=2)), run(made, inputs(padding=2)))
    assert loaded.mixture == made.mixture or method == "pareto"


@methods
def test_a_loaded_decoder_generates_what_the_saved_one_does(method: str, tmp_path: Path) -> None:
    made = mixture(method, "gpt2")
    save_mixture(tmp_path / "mixture", made)
    loaded = load_mixture(tmp_path / "mixture")
    texts = [model.generate(**inputs(), max_new_tokens=5, do_sample=False) for model in (made, loaded)]
    assert torch.equal(*texts)


@methods
def test_half_precision_is_kept(method: str, tmp_path: Path) -> None:
    base, experts = family("llama")
    half = tiny_model("llama")
    for parameter in half.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    made = moe.build(method, half, base, experts)
    save_mixture(tmp_path / "mixture", made)
    loaded = load_mixture(tmp_path / "mixture")
    assert run(loaded, inputs()).dtype == torch.bfloat16
    assert torch.equal(run(loaded, inputs()), run(made, inputs()))


def test_a_shared_base_is_neither_written_nor_copied(tmp_path: Path) -> None:
    base, experts = family("llama")
    made = moe.build("smile", tiny_model("llama"), base, experts, {"k": 2, "gate_k": 2})
    save_mixture(tmp_path / "whole", made)
    save_mixture(tmp_path / "small", made, base=base)
    loaded = load_mixture(tmp_path / "small", base=base)
    assert nbytes(tmp_path / "whole") - nbytes(tmp_path / "small") > size_of(tiny_model("llama")).nbytes * 0.9
    embedding = loaded.get_parameter("model.embed_tokens.weight")
    assert embedding.data_ptr() == base["model.embed_tokens.weight"].data_ptr()
    assert torch.equal(run(loaded, inputs()), run(made, inputs()))


def test_a_shared_base_that_is_not_given_is_asked_for(tmp_path: Path) -> None:
    base, experts = family("llama")
    save_mixture(tmp_path / "small", moe.build("smile", tiny_model("llama"), base, experts), base=base)
    with pytest.raises(CheckpointError, match="base it was saved with"):
        load_mixture(tmp_path / "small")


def test_a_recorded_base_is_opened_only_where_it_may_be_and_if_it_is_the_same(tmp_path: Path) -> None:
    tiny_model("llama", seed=1).save_pretrained(tmp_path / "base")
    tiny_model("llama", seed=9).save_pretrained(tmp_path / "other")
    base = Checkpoint.open(tmp_path / "base")
    made = moe.build("smile", tiny_model("llama"), base, family("llama")[1])
    save_mixture(tmp_path / "small", made, base=base, base_path=tmp_path / "base")
    assert torch.equal(run(load_mixture(tmp_path / "small"), inputs()), run(made, inputs()))
    with pytest.raises(MergeError, match="outside"):
        load_mixture(tmp_path / "small", allowed=[tmp_path / "elsewhere"])
    with pytest.raises(IncompatibleError, match="digest"):
        load_mixture(tmp_path / "small", base=Checkpoint.open(tmp_path / "other"))


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    save_mixture(tmp_path / "mixture", mixture("wemoe"))
    loaded = load_mixture(tmp_path / "mixture")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_pruned_task_vectors_are_small_on_disk_and_in_memory() -> None:
    """A tenth of the entries: 8 bytes each in memory (float32 and a 32-bit column), 4 and a bit per entry on disk."""
    base, experts = family("llama")
    dense = moe.build("wemoe", tiny_model("llama"), base, experts, {"shared_gate": True})
    sparse = moe.build("e_wemoe", tiny_model("llama"), base, experts)
    entries = 2 * 3 * 3 * 32 * 48
    rows = 2 * 4 * 3 * (48 + 48 + 32)
    saved = size_of(dense).nbytes - size_of(sparse).nbytes
    assert saved == pytest.approx(4 * entries - 8 * 0.1 * entries - rows, rel=0.01)


def test_pruned_task_vectors_are_written_as_a_bit_mask_and_values(tmp_path: Path) -> None:
    save_mixture(tmp_path / "mixture", mixture("e_wemoe"))
    stored = load_file(tmp_path / "mixture" / TENSORS)
    vectors = {name: tensor for name, tensor in stored.items() if name.startswith("site:")}
    entries = 2 * 3 * 3 * 32 * 48
    size = sum(tensor.numel() * tensor.element_size() for tensor in vectors.values())
    assert size == pytest.approx(entries / 8 + 4 * 0.1 * entries, rel=0.02)


def test_e_wemoe_with_eight_experts_is_below_twice_the_base(tmp_path: Path) -> None:
    """On disk and in memory, for a model whose MLPs are a third of it or more."""
    base, experts = family("llama", experts=8)
    made = moe.build("e_wemoe", tiny_model("llama"), base, experts, {"router_hidden_layers": 1})
    save_mixture(tmp_path / "mixture", made)
    whole = size_of(tiny_model("llama")).nbytes
    config = (tmp_path / "mixture" / MANIFEST).stat().st_size
    assert size_of(made).nbytes < 2 * whole
    assert nbytes(tmp_path / "mixture") - config < 2 * whole


def test_a_mask_of_any_length_is_packed_and_unpacked() -> None:
    mask = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.3
    assert pack(mask).numel() == 14
    assert torch.equal(unpack(pack(mask), (3, 5, 7)), mask)


def test_routers_alone_make_a_rebuilt_mixture_the_old_one() -> None:
    made = mixture("wemoe")
    base, experts = family("llama")
    again = moe.build("wemoe", tiny_model("llama"), base, experts, SETTINGS["wemoe"], seed=5)
    load_routers(again, router_tensors(made))
    assert torch.equal(run(again, inputs()), run(made, inputs()))


def test_routers_of_other_settings_are_refused() -> None:
    base, experts = family("llama")
    other = moe.build("wemoe", tiny_model("llama"), base, experts)
    with pytest.raises(IncompatibleError, match="does not fit"):
        load_routers(other, router_tensors(mixture("wemoe")))


@pytest.mark.parametrize("method", ["wemoe", "e_wemoe", "smile"])
def test_the_router_check_is_saved_too(method: str, tmp_path: Path) -> None:
    made = mixture(method)
    check = fit_router_check(made, {"only": [Batch(inputs(batch=40, seed=1))]}, quantile=0.5)
    save_mixture(tmp_path / "mixture", made)
    loaded = load_mixture(tmp_path / "mixture")
    pooled = torch.randn(20, len(check.layers), 32, generator=torch.Generator().manual_seed(2))
    assert torch.equal(loaded.mixture.state["check"].scores(pooled), check.scores(pooled))
    assert torch.equal(run(loaded, inputs(batch=8)), run(made, inputs(batch=8)))


def test_a_router_check_of_another_format_is_refused(tmp_path: Path) -> None:
    made = mixture("wemoe")
    fit_router_check(made, {"only": [Batch(inputs(batch=40, seed=1))]})
    save_mixture(tmp_path / "mixture", made)
    manifest = json.loads((tmp_path / "mixture" / MANIFEST).read_text())
    del manifest["check_format"]
    (tmp_path / "mixture" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="router check of format None, not 2"):
        load_mixture(tmp_path / "mixture")


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="exists already"):
        save_mixture(tmp_path, mixture("smile"))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("merge_backends.writer.os.fsync", full)
    with pytest.raises(BuildError, match="No space left"):
        save_mixture(tmp_path / "mixture", mixture("smile"))
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_mixture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no mixture"):
        load_mixture(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"format": 99}, CheckpointError, "format 99"),
        ({"method": "smiley"}, UnknownNameError, "smile"),
        ({"architecture": "os"}, CheckpointError, "no model of transformers"),
        ({"surprise": 1}, CheckpointError, "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(
    change: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    save_mixture(tmp_path / "mixture", mixture("smile"))
    manifest = tmp_path / "mixture" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(error, match=says):
        load_mixture(tmp_path / "mixture")


@methods
def test_a_missing_tensor_is_refused(method: str, tmp_path: Path) -> None:
    save_mixture(tmp_path / "mixture", mixture(method))
    tensors = load_file(tmp_path / "mixture" / TENSORS)
    kind = {"pareto": "pareto:base."}.get(method, "site:")
    del tensors[next(name for name in tensors if name.startswith(kind))]
    save_file(tensors, tmp_path / "mixture" / TENSORS)
    with pytest.raises(CheckpointError, match=r"lacks tensors|not in the mixture"):
        load_mixture(tmp_path / "mixture")


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    save_mixture(tmp_path / "mixture", mixture("smile"))
    file = tmp_path / "mixture" / TENSORS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_mixture(tmp_path / "mixture")
