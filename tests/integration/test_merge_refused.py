"""What a merge refuses, and with which words: models that do not fit, bad checkpoints, paths and parameters."""

from __future__ import annotations

import json
import shutil

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from merge_backends.checkpoint import Checkpoint  # noqa: E402
from merge_backends.errors import (  # noqa: E402
    CheckpointError,
    IncompatibleError,
    MemoryBudgetError,
    RecipeError,
    UnknownNameError,
)
from tests.support.checkpoints import family, llama_weights, save, tuned  # noqa: E402
from tests.support.merge_build import TWO, build, plan, recipe, weights  # noqa: E402


@pytest.fixture
def models(tmp_path):
    family(tmp_path)
    return tmp_path


# What does not fit together


def changed_config(folder, name, **changes):
    file = folder / name / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"vocab_size": 33}, "vocab_size"),
        ({"num_attention_heads": 4}, "num_attention_heads"),
        ({"rope_theta": 5.0}, "rope_theta"),
    ],
    ids=["architecture", "vocabulary", "heads", "positions"],
)
def test_another_config_is_refused(models, change, words):
    changed_config(models, "base", rope_theta=10000.0)
    changed_config(models, "one", rope_theta=10000.0)
    changed_config(models, "two", **change)
    with pytest.raises(IncompatibleError, match=words):
        plan(models, recipe())


def test_another_tokenizer_is_refused(models):
    (models / "two" / "vocab.txt").write_text("a c b")
    with pytest.raises(IncompatibleError, match="tokenizers of 'base' and 'two' differ"):
        plan(models, recipe())


def test_an_unrelated_model_is_refused_with_the_figure(models):
    shutil.rmtree(models / "two")
    save(models / "two", llama_weights(9))
    with pytest.raises(IncompatibleError, match=r"'two' was not tuned from 'base'.* 1\.[34]"):
        plan(models, recipe())
    assert plan(models, recipe(max_relative_change=2)).changes["two"] > 1.3


@pytest.mark.parametrize("kind", ["missing", "extra", "shape"])
def test_other_tensors_are_refused_by_name(models, kind):
    name = "model.layers.1.mlp.up_proj.weight"
    held = weights(models, "two")
    tensor = held.pop(name)
    if kind != "missing":
        held[name if kind == "shape" else "extra.weight"] = tensor[:4].clone()
        held.setdefault(name, tensor)
    save_file(held, str(models / "two" / "model.safetensors"))
    with pytest.raises(IncompatibleError, match="extra.weight" if kind == "extra" else "layers.1.mlp.up_proj"):
        plan(models, recipe())


def test_a_tied_head_that_one_model_stores_is_left_out(models):
    held = weights(models, "two")
    save_file(
        {**held, "lm_head.weight": held["model.embed_tokens.weight"].clone()}, str(models / "two" / "model.safetensors")
    )
    assert "lm_head.weight" not in plan(models, recipe()).layout


# Bad checkpoints and paths


def test_not_a_number_is_refused(models):
    held = weights(models, "two")
    held["model.norm.weight"][3] = float("nan")
    save_file(held, str(models / "two" / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight.*NaN"):
        plan(models, recipe())


def test_a_pickle_is_refused(models):
    (models / "two" / "model.safetensors").unlink()
    torch.save({}, models / "two" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled"):
        plan(models, recipe())


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 64, b"cut"], ids=["empty", "short", "noise", "cut"])
def test_a_broken_file_is_refused(models, content):
    file = models / "two" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if content == b"cut" else content)
    with pytest.raises(CheckpointError, match="broken"):
        plan(models, recipe())


@pytest.mark.parametrize("config", ["{", "[]", None])
def test_a_broken_config_is_refused(models, config):
    file = models / "two" / "config.json"
    file.unlink() if config is None else file.write_text(config)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        plan(models, recipe())


def test_a_missing_shard_is_refused(models):
    build(models, recipe(), shard_bytes=4000)
    next((models / "out").glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match="shard"):
        Checkpoint.open(models / "out")


def test_paths_outside_the_allowed_folders_are_refused(models, tmp_path_factory):
    outside = save(tmp_path_factory.mktemp("outside") / "two", tuned(llama_weights(0), 2))
    for path in (str(outside), "../" + str(outside.relative_to(models.parent))):
        with pytest.raises(CheckpointError, match="outside the allowed"):
            plan(models, recipe(models=[{"model": path}]), allowed=[models])
    (models / "link").symlink_to(outside)
    with pytest.raises(CheckpointError, match="outside the allowed"):
        plan(models, recipe(models=[{"model": "link"}]), allowed=[models])


def test_weights_that_are_a_link_to_the_outside_are_refused(models, tmp_path_factory):
    outside = save(tmp_path_factory.mktemp("outside") / "two", tuned(llama_weights(0), 2))
    (models / "two" / "model.safetensors").unlink()
    (models / "two" / "model.safetensors").symlink_to(outside / "model.safetensors")
    with pytest.raises(CheckpointError, match="outside the allowed"):
        plan(models, recipe(), allowed=[models])


def test_a_model_that_is_not_there_is_named(models):
    with pytest.raises(CheckpointError, match="three"):
        plan(models, recipe(models=[{"model": "three"}]))


# Bad parameters


@pytest.mark.parametrize(
    ("document", "error", "words"),
    [
        (recipe("ties", parameters={"densty": 0.2}), UnknownNameError, "density"),
        (recipe("ties", parameters={"density": 1.5}), RecipeError, "density"),
        (recipe(models=[{"model": "one", "parameters": {"lambda": 1}}, {"model": "two"}]), RecipeError, "lambda"),
        ({"merge_method": "ties", "models": TWO}, RecipeError, "base"),
        (recipe("slerp", parameters={"t": 0.5}), RecipeError, "exactly two"),
        (recipe(tokenizer_source="three"), RecipeError, "three"),
        (recipe("regmean"), RecipeError, "data"),
        (
            {"merge_method": "passthrough", "slices": [{"sources": [{"model": "one", "layer_range": [1, 9]}]}]},
            RecipeError,
            "layers up to 9",
        ),
    ],
    ids=["misspelt", "range", "per model", "no base", "three models", "tokenizer", "no data", "layers"],
)
def test_a_recipe_that_cannot_be_built_is_refused(models, document, error, words):
    with pytest.raises(error, match=words):
        build(models, document)
    assert not (models / "out").exists()


def test_a_merge_over_the_memory_budget_is_refused_before_a_tensor_is_merged(models, monkeypatch):
    monkeypatch.setattr("merge_backends.plan.Plan.tensors", None)
    with pytest.raises(MemoryBudgetError, match="budget of 100 B"):
        build(models, recipe(), budget=100)
