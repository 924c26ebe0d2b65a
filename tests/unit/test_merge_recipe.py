"""Recipes: what is read from mergekit's YAML, and what is refused by name."""

from __future__ import annotations

import pytest

from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.recipe import ModelReference, parse_recipe, parse_recipes
from merge_backends.settings_by_tensor import ByName, first_of, read_settings, resolve

MODELS = [{"model": "a"}, {"model": "b"}]


def recipe(**changes):
    return {"merge_method": "linear", "models": MODELS, **changes}


@pytest.mark.parametrize(
    ("given", "path", "lora"),
    [
        ("folder/model", "folder/model", None),
        ("model+adapter", "model", "adapter"),
        ({"model": "model", "lora": "adapter"}, "model", "adapter"),
        ({"model": {"path": "model"}}, "model", None),
    ],
)
def test_a_model_may_be_named_in_every_way_of_mergekit(given, path, lora):
    read = parse_recipe(recipe(models=[{"model": given}]))
    assert read.slices[0].sources[0].model == ModelReference(path, lora)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merge_method": "nuslerp"}, "nuslerp.*not supported"),
        ({"merge_method": "della_linear"}, "della_linear.*not supported"),
        ({"tokenizer": {"source": "base", "tokens": {"x": {}}}}, "tokenizer.tokens.*not supported"),
        ({"tokenizer": {"pad_to_multiple_of": 64}}, "pad_to_multiple_of.*not supported"),
        ({"models": [{"model": {"model": "a", "override_architecture": "X"}}]}, "override_architecture"),
        ({"models": [{"model": {"model": {"path": "a", "revision": "main"}}}]}, "revision"),
        ({"chat_template": "chatml"}, "chat_template.*chatml"),
        ({"modules": {"a": {}, "b": {}}, "models": None}, "several `modules`"),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}]}]}, "exactly one of"),
        ({"models": None}, "exactly one of"),
        ({"merge_method": None}, "no merge_method"),
        ({"models": None, "slices": [{"sources": [{"model": "a", "layer_range": [2, 2]}]}]}, "layer_range"),
        (
            {"models": None, "slices": [{"sources": [{"model": "a", "layer_range": [0, 1]}], "residual_weight": 1}]},
            "residual_weight",
        ),
        ({"seed": "x"}, "seed"),
        ({"tokenizer_source": "base", "tokenizer": {"source": "base"}}, "not both"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change, words):
    with pytest.raises(RecipeError, match=words):
        parse_recipe(recipe(**change))


@pytest.mark.parametrize(
    ("change", "near"),
    [
        ({"merge_method": "task_arithmatic"}, "task_arithmetic"),
        ({"base_modle": "x"}, "base_model"),
        ({"dtype": "bfloat"}, "bfloat16"),
        ({"models": [{"model": "a", "paramters": {}}]}, "parameters"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_near_one(change, near):
    with pytest.raises(UnknownNameError) as refused:
        parse_recipe(recipe(**change))
    assert near in refused.value.fix


def test_the_mixtures_are_known_by_both_names():
    assert parse_recipe(recipe(merge_method="pareto_moe", base_model="a")).method == "pareto"


def test_one_module_counts_as_the_model():
    body = {"models": MODELS, "parameters": {"weight": 0.5}}
    read = parse_recipe({"merge_method": "linear", "modules": {"text_decoder": body}})
    assert read.module == {"weight": 0.5}
    assert len(read.slices[0].sources) == 2


def test_documents_are_built_after_those_they_use():
    text = """
merge_method: linear
models: [{model: first}, {model: c}]
---
name: first
merge_method: linear
models: [{model: a}, {model: b}]
"""
    assert [one.name for one in parse_recipes(text)] == ["first", None]


def document(name, model):
    return f"---\nname: {name}\nmerge_method: linear\nmodels: [{{model: {model}}}]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a: [", "not YAML"),
        ("- x", "mapping"),
        (document("x", "y") + document("y", "x"), "circle"),
        (document("x", "a") + document("x", "a"), "named 'x'"),
    ],
    ids=["empty", "broken", "list", "circle", "twice"],
)
def test_a_file_that_cannot_be_built_is_refused(text, words):
    with pytest.raises(RecipeError, match=words):
        parse_recipes(text)


def test_a_gradient_is_interpolated_over_depth():
    assert resolve((0.0, 1.0, 0.0), "x", 0.25) == pytest.approx(0.5)
    assert resolve((0.0, 1.0), "x", 1.0) == 1.0
    assert resolve(("mean", "sum"), "x", 0.9) == "mean"


def test_the_first_filter_that_fits_wins():
    setting = (ByName(value=1.0, filter="mlp"), ByName(value=(0.0, 1.0), filter="attn"), ByName(value=0.2))
    assert resolve(setting, "layer.0.mlp.up", 0.0) == 1.0
    assert resolve(setting, "layer.0.attn.q", 0.5) == 0.5
    assert resolve(setting, "embed", 0.0) == 0.2
    assert resolve(setting[:1], "embed", 0.0) is None


def test_a_source_without_a_value_for_the_tensor_leaves_it_to_the_next():
    sources = [{"weight": ByName(value=9.0, filter="mlp")}, None, {"weight": 0.5}]
    assert first_of("weight", sources, "layer.mlp", 0.0) == 9.0
    assert first_of("weight", sources, "embed", 0.0) == 0.5
    assert first_of("density", sources, "embed", 0.0) is None


def test_numbers_that_yaml_reads_as_words_are_numbers():
    assert resolve("1e-3", "x", 0.0) == 0.001


@pytest.mark.parametrize("raw", [{"weight": {"values": 1}}, {"weight": [[1]]}, {"weight": []}, {"weight": None}, [1]])
def test_settings_of_no_known_form_are_refused(raw):
    with pytest.raises(RecipeError, match="parameters"):
        read_settings(raw, "parameters")
