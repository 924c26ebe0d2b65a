"""From a recipe and folders of models to a folder of a model: what is built, and how it is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from merge_backends import build as building  # noqa: E402
from merge_backends.build import build_all  # noqa: E402
from merge_backends.checkpoint import Checkpoint  # noqa: E402
from merge_backends.errors import (  # noqa: E402
    BuildError,
    LicenceError,
    RecipeError,
)
from merge_backends.lineage import read_lineage, verify  # noqa: E402
from merge_backends.recipe import parse_recipe  # noqa: E402
from tests.support.checkpoints import family, llama_weights, save, tuned  # noqa: E402
from tests.support.merge_build import TWO, build, plan, recipe, weights  # noqa: E402


@pytest.fixture
def models(tmp_path):
    family(tmp_path)
    return tmp_path


def test_the_built_folder_is_what_transformers_loads(models):
    transformers = pytest.importorskip("transformers")
    _, made = build(models, recipe(parameters={"weight": 0.5}))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(models / "out")
    expected = 0.5 * (weights(models, "one")["model.norm.weight"] + weights(models, "two")["model.norm.weight"])
    torch.testing.assert_close(loaded.model.norm.weight.data, expected, rtol=0, atol=1e-7)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert len(made) == 20


def test_weights_by_filter_and_depth_reach_their_tensors(models):
    by_depth = [{"filter": "mlp", "value": [0.0, 1.0]}, {"value": 0.5}]
    _, made = build(models, recipe(models=[{"model": "one", "parameters": {"weight": by_depth}}]))
    base, one = weights(models, "base"), weights(models, "one")
    assert torch.equal(made["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(made["model.layers.1.mlp.up_proj.weight"], one["model.layers.1.mlp.up_proj.weight"])
    middle = (base["model.norm.weight"] + one["model.norm.weight"]) / 2
    torch.testing.assert_close(made["model.norm.weight"], middle, rtol=0, atol=1e-7)


def test_parameters_of_a_model_stand_above_those_of_the_recipe(models):
    own = [{"model": "one", "parameters": {"weight": 1.0}}, {"model": "two"}]
    _, made = build(models, recipe(models=own, parameters={"weight": 0.0}))
    assert torch.equal(made["model.norm.weight"], weights(models, "one")["model.norm.weight"])


def test_layers_are_stacked_in_the_order_of_the_slices(models):
    slices = [
        {"sources": [{"model": "one", "layer_range": [0, 2]}]},
        {"sources": [{"model": "two", "layer_range": [1, 2]}]},
    ]
    record, made = build(models, {"merge_method": "passthrough", "slices": slices})
    one, two = weights(models, "one"), weights(models, "two")
    assert made.config["num_hidden_layers"] == 3
    assert torch.equal(made["model.layers.2.mlp.up_proj.weight"], two["model.layers.1.mlp.up_proj.weight"])
    assert torch.equal(made["model.layers.1.mlp.up_proj.weight"], one["model.layers.1.mlp.up_proj.weight"])
    assert torch.equal(made["model.embed_tokens.weight"], one["model.embed_tokens.weight"])
    assert torch.equal(made["model.norm.weight"], two["model.norm.weight"])
    assert [parent["name"] for parent in record["parents"]] == ["one", "two"]


def test_slices_of_several_models_are_merged_layer_by_layer(models):
    sources = [{"model": name, "layer_range": [0, 2]} for name in ("base", "one")]
    document = {"merge_method": "slerp", "base_model": "base", "slices": [{"sources": sources}],
                "parameters": {"t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0}]}}  # fmt: skip
    _, made = build(models, document)
    base, one = weights(models, "base"), weights(models, "one")
    assert torch.equal(made["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(made["model.layers.1.mlp.up_proj.weight"], one["model.layers.1.mlp.up_proj.weight"])


def test_a_document_may_use_the_result_of_another(models):
    first = {"name": "both", "merge_method": "linear", "models": TWO}
    last = {"merge_method": "linear", "models": [{"model": "both"}, {"model": "base"}]}
    record, made = build(models, [first, last])
    parts = [weights(models, name)["model.norm.weight"] for name in ("one", "two", "base")]
    expected = ((parts[0] + parts[1]) / 2 + parts[2]) / 2
    torch.testing.assert_close(made["model.norm.weight"], expected, rtol=0, atol=1e-7)
    assert record["stages"]["both"]["method"] == "linear"
    assert sorted(path.name for path in models.iterdir()) == ["base", "one", "out", "two"]


def test_a_base_that_linear_does_not_list_counts_where_all_weights_are_given(models):
    _, made = build(models, recipe("linear", parameters={"weight": 1.0}))
    parts = [weights(models, name)["model.norm.weight"] for name in ("one", "two", "base")]
    torch.testing.assert_close(made["model.norm.weight"], sum(parts) / 3, rtol=0, atol=1e-7)


def test_dtypes_of_the_computation_and_the_result_are_chosen(models):
    _, made = build(models, recipe(dtype="float32", out_dtype="bfloat16"))
    assert {made.dtype(name) for name in made} == {torch.bfloat16}
    assert made.config["dtype"] == "bfloat16"


def test_many_shards_hold_the_same_as_one(models):
    whole, _ = build(models, recipe())
    split, made = build(models, recipe(), out="split", shard_bytes=4000)
    assert (models / "split" / "model.safetensors.index.json").is_file()
    assert whole["digest"] == split["digest"] == made.digest


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(models, device):
    with pytest.raises(RecipeError, match=device):
        build(models, recipe(), device=device)
    assert not (models / "out").exists()


def test_a_mixture_is_built_and_loads(models):
    pytest.importorskip("transformers")
    from merge_backends.moe.store import load_mixture

    document = recipe("smile", parameters={"gate_k": 2, "k": 4})
    record = build_all([parse_recipe(document)], models / "out", root=models)
    loaded = load_mixture(models / "out")
    assert loaded(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, 2, 32)
    assert read_lineage(models / "out")["recipe_hash"] == record["recipe_hash"]


def test_a_mixtures_digest_and_size_see_what_the_model_itself_does_not_show(models):
    """Two Pareto mixtures with equal preferences that sum to the same weights: their task vectors tell them apart."""
    pytest.importorskip("transformers")
    from merge_backends.moe.mixture import size_of
    from merge_backends.moe.store import load_mixture

    one, other = recipe("pareto"), recipe("pareto", models=TWO[::-1])
    first = build_all([parse_recipe(one)], models / "first", root=models)
    second = build_all([parse_recipe(other)], models / "second", root=models)
    assert first["digest"] != second["digest"]
    assert first["metrics"]["parameters"] == size_of(load_mixture(models / "first")).parameters
    base = sum(tensor.numel() for tensor in Checkpoint.open(models / "base").values())
    assert first["metrics"]["parameters"] > 1.5 * base


def test_the_indices_of_pruned_task_vectors_are_no_parameters(models):
    pytest.importorskip("transformers")
    from merge_backends.moe.mixture import size_of
    from merge_backends.moe.store import load_mixture

    record = build_all([parse_recipe(recipe("e_wemoe"))], models / "out", root=models)
    loaded = load_mixture(models / "out")
    assert record["metrics"]["parameters"] == size_of(loaded).parameters
    assert record["metrics"]["parameters"] < sum(tensor.numel() for tensor in loaded.state_dict().values())


# Lineage


def test_lineage_names_parents_contents_licences_and_metrics(models):
    shutil.rmtree(models / "two")
    save(models / "two", tuned(llama_weights(0), 2), licence="cc-by-nc-4.0")
    record, made = build(models, recipe(parameters={"weight": 0.5}))
    assert record == read_lineage(models / "out")
    assert [(p["name"], p["role"]) for p in record["parents"]] == [
        ("base", "base"),
        ("one", "expert"),
        ("two", "expert"),
    ]
    assert record["parents"][1]["digest"] == Checkpoint.open(models / "one").digest
    assert record["licence"]["licence"] == "cc-by-nc-4.0"
    assert record["parents"][1]["relative_change"] == pytest.approx(0.1, abs=0.02)
    assert record["metrics"]["relative_change"] > 0
    assert record["digest"] == made.digest
    assert "license: cc-by-nc-4.0" in (models / "out" / "README.md").read_text()


def test_lineage_tells_when_the_weights_were_changed(models):
    build(models, recipe())
    assert verify(models / "out")
    changed = {**weights(models, "out"), "model.norm.weight": torch.zeros(16)}
    save_file(changed, str(models / "out" / "model.safetensors"))
    assert not verify(models / "out")


def test_the_recipe_hash_follows_contents_and_parameters_not_paths(models):
    first = plan(models, recipe()).hash
    shutil.copytree(models / "one", models / "elsewhere")
    assert plan(models, recipe(models=[{"model": "elsewhere"}, {"model": "two"}])).hash == first
    assert plan(models, recipe(parameters={"weight": 0.9})).hash != first
    assert plan(models, recipe(seed=1)).hash != first
    assert plan(models, recipe(out_dtype="bfloat16")).hash != first


def test_an_unknown_licence_blocks_the_export_but_not_the_own_use(models):
    (models / "two" / "README.md").unlink()
    with pytest.raises(LicenceError, match="not known"):
        build(models, recipe(), export=True)
    assert not (models / "out").exists()
    record, _ = build(models, recipe(), export=True, allow_unknown_licence=True)
    assert record["export"]["allowed"] is False


# Writing


def test_a_folder_that_exists_is_never_written_over(models):
    with pytest.raises(BuildError, match="exists"):
        build(models, recipe(), out="base")


def test_of_two_builds_at_once_one_wins_and_the_other_says_so(models, monkeypatch):
    real = building.text_files

    def meanwhile(made, record):
        if not (models / "out").exists():
            monkeypatch.setattr(building, "text_files", real)
            build(models, recipe())
        return real(made, record)

    monkeypatch.setattr(building, "text_files", meanwhile)
    with pytest.raises(BuildError, match="another build"):
        build(models, recipe())
    assert verify(models / "out")
    assert not list(models.glob(".*part"))


def test_too_little_room_is_told_before_anything_is_written(models, monkeypatch):
    usage = shutil.disk_usage(models)._replace(free=10)
    monkeypatch.setattr(building.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BuildError, match="needs"):
        build(models, recipe())


def test_a_disk_that_fills_up_leaves_nothing(models, monkeypatch):
    import errno

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("merge_backends.writer.os.fsync", full)
    with pytest.raises(BuildError, match="No space left"):
        build(models, recipe())
    assert sorted(path.name for path in models.iterdir()) == ["base", "one", "two"]


KILLED = """
import os, signal, sys
from pathlib import Path
from merge_backends import writer
from merge_backends.build import build_all
from merge_backends.recipe import load_recipes
folder, moment = Path(sys.argv[1]), sys.argv[2]
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
if moment == "tensors":
    writer._close = die
else:
    writer._sync_folder = die
build_all(load_recipes(folder / "r.yaml"), folder / "out", root=folder)
"""


@pytest.mark.parametrize("moment", ["tensors", "rename"])
def test_a_build_that_is_killed_leaves_nothing_that_loads(models, moment):
    (models / "r.yaml").write_text(yaml.safe_dump(recipe()))
    ended = subprocess.run([sys.executable, "-c", KILLED, str(models), moment], cwd=Path.cwd(), check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (models / "out").exists()
    build(models, recipe())
    assert verify(models / "out")


def test_leftovers_of_dead_builds_are_swept(models):
    left = models / ".out.x.part"
    left.mkdir()
    os.utime(left, (0, 0))
    build(models, recipe())
    assert not left.exists()


# The command line


def orbweaver(*arguments):
    command = [sys.executable, "-m", "gateway.cli.main", "merge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_plans_builds_and_shows_lineage(models):
    (models / "r.yaml").write_text(yaml.safe_dump(recipe("ties", parameters={"density": 0.5})))
    planned = json.loads(orbweaver("plan", models / "r.yaml", "--json").stdout)
    built = json.loads(orbweaver("build", models / "r.yaml", "--out", models / "out", "--json").stdout)
    shown = json.loads(orbweaver("lineage", models / "out", "--verify", "--json").stdout)
    assert planned["plans"][0]["recipe_hash"] == built["recipe_hash"] == shown["recipe_hash"]
    assert planned["plans"][0]["tensors"] == 20


def test_the_command_line_says_what_is_wrong_without_a_traceback(models):
    (models / "r.yaml").write_text(yaml.safe_dump(recipe("tise")))
    ended = orbweaver("build", models / "r.yaml", "--out", models / "out")
    assert ended.returncode == 2
    assert "Did you mean 'ties'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_methods_are_listed_without_torch():
    script = (
        "import sys; from gateway.cli.main import build_cli; "
        "build_cli(['merge', 'methods'])(['merge', 'methods'], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "task_arithmetic" in ended.stdout
