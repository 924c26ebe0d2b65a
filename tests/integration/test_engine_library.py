"""Loading models: what is refused and why, what is shared, what is unloaded; merges against the plain formula."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from merge_backends.build import build_all
from merge_backends.engine.causal import CausalModel
from merge_backends.engine.encoders import load_encoder
from merge_backends.engine.errors import EngineError
from merge_backends.engine.families import expert_names
from merge_backends.engine.library import Library, as_causal
from merge_backends.engine.loading import load_causal
from merge_backends.engine.settings import EngineSettings, check_settings, read_settings
from merge_backends.errors import CheckpointError, IncompatibleError, MergeError, RecipeError, UnknownNameError
from merge_backends.recipe import parse_recipe
from tests.support.engine_models import save_model, save_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base, tmp_path / "copy")
    return tmp_path / "copy"


def change(folder: Path, factor: float, name: str = "model.layers.0.mlp.up_proj.weight") -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors[name] * factor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def load(library: Library, name: str, preference: dict[str, float] | None = None) -> CausalModel:
    with library.hold(name, preference) as held:
        return as_causal(name, held.take())


# --- what is refused


def test_pickled_weights_are_refused(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        load_causal("m", copy)


def test_weights_with_nan_are_refused_by_tensor(copy: Path) -> None:
    change(copy, float("nan"))
    with pytest.raises(CheckpointError, match=r"up_proj.*NaN"):
        load_causal("m", copy)


def test_a_file_that_is_cut_short_is_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        load_causal("m", copy)


def test_a_folder_without_tokenizer_is_refused(copy: Path) -> None:
    for file in copy.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_causal("m", copy)


def test_a_tokenizer_that_is_larger_than_the_model_is_refused(copy: Path) -> None:
    stored = json.loads((copy / "tokenizer.json").read_text())
    stored["model"]["vocab"] |= {f"extra{at}": 259 + at for at in range(5)}
    (copy / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="264 tokens"):
        load_causal("m", copy)


def test_a_path_outside_the_allowed_folders_is_refused_also_through_a_link(base: Path, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(base)
    with pytest.raises(CheckpointError, match="outside"):
        load_causal("m", tmp_path / "inside" / "link", allowed=[tmp_path / "inside"])


def test_a_folder_that_does_not_exist_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model at"):
        Library(check_settings({"models": {"m": str(tmp_path / "none")}}))


def test_a_context_beyond_the_models_own_is_refused(base: Path) -> None:
    with pytest.raises(CheckpointError, match="256"):
        load_causal("m", base, context_window=512)


def test_an_encoder_with_another_pooling_is_refused(tmp_path: Path) -> None:
    size = save_tokenizer(tmp_path, template=None)
    config = transformers.BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    stated = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(stated))
    with pytest.raises(CheckpointError, match="pools"):
        load_encoder("e", tmp_path)


def test_a_model_that_cannot_be_read_is_an_error_of_the_server_and_not_of_the_client(copy: Path) -> None:
    from merge_backends.engine.errors import from_merging

    error = from_merging(CheckpointError("broken"))
    assert (error.status, error.code) == (500, "model_unusable")


# --- what is kept


def test_models_share_the_tensors_that_are_equal(base: Path, copy: Path) -> None:
    change(copy, 1.5)
    library = Library(check_settings({"models": {"one": str(base), "two": str(copy)}}))
    one, two = (dict(load(library, name).module.named_parameters()) for name in ("one", "two"))
    different = {name for name in one if one[name].data_ptr() != two[name].data_ptr()}
    assert different == {"model.layers.0.mlp.up_proj.weight"}


def test_idle_models_are_unloaded_for_others_and_used_ones_are_not(base: Path, copy: Path) -> None:
    change(copy, 1.5)
    budget = 200_000 / 2**30
    models = {"one": str(base), "two": str(copy)}
    library = Library(check_settings({"models": models, "memory_gb": budget}))
    load(library, "one")
    load(library, "two")
    assert (library.loaded("one"), library.loaded("two") is not None) == (None, True)
    with library.hold("two"), pytest.raises(MergeError, match="needs"):
        load(library, "one")


def test_many_who_ask_at_once_load_a_model_once(base: Path) -> None:
    library = Library(check_settings({"models": {"m": str(base)}}))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(load(library, "m"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1


# --- merges


def family(base: Path, **experts: Path) -> Library:
    merges = {"kin": {"base": str(base), "experts": {name: str(path) for name, path in experts.items()}}}
    return Library(check_settings({"merges": merges}))


def test_a_merge_is_the_base_plus_weighted_task_vectors_and_shares_the_rest(
    base: Path, copy: Path, tmp_path: Path
) -> None:
    change(copy, 1.5)
    shutil.copytree(base, tmp_path / "other")
    change(tmp_path / "other", 0.5, "model.layers.1.mlp.up_proj.weight")
    library = family(base, a=copy, b=tmp_path / "other")
    merged = dict(load(library, "kin/merge:a=0.6,b=0.2").module.named_parameters())
    plain = load_file(base / "model.safetensors")
    expected = {
        "model.layers.0.mlp.up_proj.weight": plain["model.layers.0.mlp.up_proj.weight"] * (1 + 0.6 * 0.5),
        "model.layers.1.mlp.up_proj.weight": plain["model.layers.1.mlp.up_proj.weight"] * (1 - 0.2 * 0.5),
    }
    for name, tensor in plain.items():
        torch.testing.assert_close(merged[name], expected.get(name, tensor), rtol=1e-5, atol=1e-6)
    again = dict(load(library, "kin/merge:b=0.4").module.named_parameters())
    assert again["model.embed_tokens.weight"].data_ptr() == merged["model.embed_tokens.weight"].data_ptr()


def test_names_of_one_merge_are_built_once(base: Path, copy: Path) -> None:
    change(copy, 1.5)
    library = family(base, a=copy)
    first = load(library, "kin/merge:a=0.70001")
    assert load(library, "kin/merge:a=0.7") is first
    assert load(library, "kin/merge", {"a": 3.0}) is load(library, "kin/merge:a=1")
    assert library.merges.cache.figures.builds == 2


def test_an_unrelated_expert_is_refused_with_the_figure(base: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=9)
    with pytest.raises(IncompatibleError, match="was not tuned from"):
        load(family(base, a=other), "kin/merge:a=1")


def test_a_preference_for_one_model_is_refused(base: Path) -> None:
    library = Library(check_settings({"models": {"m": str(base)}}))
    with pytest.raises(EngineError, match="reads no preference"):
        load(library, "m", {"a": 1.0})


def test_a_recipe_is_built_once_and_served(base: Path, copy: Path, tmp_path: Path) -> None:
    change(copy, 1.5)
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        json.dumps(
            {
                "merge_method": "linear",
                "models": [{"model": str(path), "parameters": {"weight": 0.5}} for path in (base, copy)],
            }
        )
    )
    library = Library(check_settings({"recipes": {"mean": str(recipe)}, "built": str(tmp_path / "built")}))
    merged = dict(load(library, "mean").module.named_parameters())["model.layers.0.mlp.up_proj.weight"]
    plain = load_file(base / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    torch.testing.assert_close(merged.data, 1.25 * plain, rtol=1e-5, atol=1e-6)
    assert len(list((tmp_path / "built").iterdir())) == 1


def test_a_recipe_of_several_documents_is_built_once_for_the_models_it_names(
    base: Path, copy: Path, tmp_path: Path
) -> None:
    change(copy, 3.0)
    halves = {"merge_method": "linear", "models": [{"model": str(each)} for each in (base, copy)], "name": "half"}
    again = {"merge_method": "linear", "models": [{"model": str(base)}, {"model": "half"}]}
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(f"{json.dumps(halves)}\n---\n{json.dumps(again)}\n")
    settings = {"recipes": {"quarter": str(recipe)}, "built": str(tmp_path / "built")}
    name = "model.layers.0.mlp.up_proj.weight"
    for factor, seen in ((1.5, 1), (1.5, 1), (2.0, 2)):
        if seen == 2:
            change(copy, 5.0 / 3.0)
        merged = dict(load(Library(check_settings(settings)), "quarter").module.named_parameters())[name]
        torch.testing.assert_close(
            merged.data, factor * load_file(base / "model.safetensors")[name], rtol=1e-5, atol=1e-6
        )
        assert len(list((tmp_path / "built").iterdir())) == seen


# --- Pareto mixtures


@pytest.fixture
def front(base: Path, copy: Path, tmp_path: Path) -> Library:
    """A Pareto mixture of `copy` (up_proj of layer 0 doubled) and `other` (that of layer 1 halved), untrained."""
    change(copy, 2.0)
    shutil.copytree(base, tmp_path / "other")
    change(tmp_path / "other", 0.5, "model.layers.1.mlp.up_proj.weight")
    document = {
        "merge_method": "pareto",
        "base_model": str(base),
        "models": [{"model": str(copy)}, {"model": str(tmp_path / "other")}],
    }
    build_all([parse_recipe(document)], tmp_path / "front", root=tmp_path)
    return Library(check_settings({"models": {"front": str(tmp_path / "front")}}))


def factors(model: CausalModel, base: Path) -> tuple[float, float]:
    """By how much the two changed tensors differ from the base's."""
    plain, found = load_file(base / "model.safetensors"), dict(model.module.named_parameters())
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 1)]
    return tuple(round(float((found[name] / plain[name]).median()), 3) for name in names)  # type: ignore[return-value]


def test_each_preference_of_a_pareto_mixture_is_a_dense_model_of_its_own(front: Library, base: Path) -> None:
    assert list(front.merges.offers) == ["front/merge"]
    assert front.merges.offers["front/merge"].experts == ("copy", "other")
    assert factors(load(front, "front"), base) == (1.5, 0.75)
    assert factors(load(front, "front", {"copy": 3.0, "other": 1.0}), base) == (1.8, 0.9)
    assert factors(load(front, "front/merge:copy=0.7,other=0.3"), base) == (1.7, 0.85)
    assert factors(load(front, "front/merge", {"other": 1.0}), base) == (1.0, 0.5)
    assert factors(load(front, "front"), base) == (1.5, 0.75)


def test_preferences_of_a_pareto_mixture_snap_to_its_grid_and_are_built_once(front: Library) -> None:
    first = load(front, "front/merge:copy=0.7,other=0.3")
    assert load(front, "front", {"copy": 7.04, "other": 2.96}) is first
    assert load(front, "front/merge:copy=0.35,other=0.15") is first
    assert front.merges.cache.figures.builds == 1
    assert not first.gated
    shared = dict(load(front, "front").module.named_parameters())["model.embed_tokens.weight"]
    assert dict(first.module.named_parameters())["model.embed_tokens.weight"].data_ptr() == shared.data_ptr()


def test_a_preference_of_a_pareto_mixture_names_its_experts(front: Library) -> None:
    with pytest.raises(UnknownNameError, match="copy"):
        load(front, "front", {"cpoy": 1.0})
    with pytest.raises(RecipeError, match="no preference"):
        load(front, "front", {"copy": 0.0})
    with pytest.raises(EngineError, match="needs weights"):
        load(front, "front/merge")


def test_a_pareto_mixture_and_a_family_of_one_name_are_refused(front: Library, base: Path, tmp_path: Path) -> None:
    families = {"front": {"base": str(base), "experts": {"copy": str(tmp_path / "copy")}}}
    with pytest.raises(RecipeError, match="Rename one"):
        Library(check_settings({"models": {"front": str(tmp_path / "front")}, "merges": families}))


def test_experts_whose_names_tell_nothing_get_numbers() -> None:
    def named(*names: str) -> dict[str, Any]:
        return {"parents": [{"role": "base", "name": "b"}, *({"role": "expert", "name": name} for name in names)]}

    assert expert_names(named("x", "y"), 2) == ("x", "y")
    numbers = ("expert-1", "expert-2")
    assert [expert_names(each, 2) for each in (named("x", "x"), named("a=b", "c"), named("x"), {})] == [numbers] * 4


# --- settings


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("modles: {}", "modles"),
        ("port: 70000", "port"),
        ("models: {a/merge:b: /x}", "models"),
        ("models: {m: {paht: /x}}", "models.m"),
        ("- 1", "mapping"),
        ("a: [", "cannot be read"),
        ("device: tpu", "device"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "engine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=named):
        read_settings(path)


def test_paths_in_a_file_start_where_it_lies_and_the_command_line_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "engine.yaml").write_text("models: {a: models/a, b: {path: b}}\nport: 1\n")
    read: EngineSettings = read_settings(tmp_path / "engine.yaml", {"port": 2, "models": {"c": "/c"}})
    assert read.models["a"].path == tmp_path / "models" / "a"
    assert {name: str(each.path) for name, each in read.models.items() if name != "a"} == {
        "b": str(tmp_path / "b"),
        "c": "/c",
    }
    assert read.port == 2
