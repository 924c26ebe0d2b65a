"""Recipes whose methods learn from example texts, and recipes over LoRA adapters, from files to a folder."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from merge_backends.adapters import LoraAdapter, LowRank  # noqa: E402
from merge_backends.build import build_all  # noqa: E402
from merge_backends.checkpoint import Checkpoint  # noqa: E402
from merge_backends.errors import MergeError, RecipeError  # noqa: E402
from merge_backends.recipe import parse_recipe  # noqa: E402
from tests.support.checkpoints import family  # noqa: E402

WORDS = ["<pad>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def models(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    family(tmp_path)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    for name in ("base", "one", "two"):
        (tmp_path / name / "vocab.txt").unlink()
        fast.save_pretrained(tmp_path / name)
    for name, letters in (("one", "abcdef"), ("two", "uvwxyz")):
        rows = [{"text": " ".join(letters[place:] + letters[:place])} for place in range(6)] * 2
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def build(folder, method, parameters=None, models=None, **rest):
    given = models or [
        {"model": name, "data": {"file": f"{name}.jsonl", "batch": 3, "length": 8}} for name in ("one", "two")
    ]
    document = {"merge_method": method, "base_model": "base", "models": given, "parameters": parameters or {}, **rest}
    return build_all([parse_recipe(document)], folder / "out", root=folder)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("fisher", {"examples": 4}), ("regmean", {}), ("adamerging", {"steps": 2})],
    ids=["fisher", "regmean", "adamerging"],
)
def test_a_method_that_learns_reads_its_texts_from_files(models, method, parameters):
    record = build(models, method, parameters)
    made, base = Checkpoint.open(models / "out"), Checkpoint.open(models / "base")
    name = "model.layers.0.mlp.up_proj.weight"
    assert set(made) == set(base)
    assert not torch.equal(made[name], base[name])
    assert bool(made[name].isfinite().all())
    assert record["method"] == method


def test_routers_of_a_mixture_learn_from_the_texts(models):
    record = build(models, "wemoe", adaptation={"steps": 2, "evaluate_every": 1})
    assert record["metrics"]["router_steps"] == 2
    assert {"validation_accuracy", "routers_turned_off"} <= set(record["metrics"])


def test_routers_of_a_mixture_may_learn_whose_task_a_text_is_from(models):
    taught = build(models, "wemoe", adaptation={"method": "recognise", "steps": 40, "learning_rate": 0.01})["metrics"]
    assert taught["router_steps"] == 40
    assert taught["router_error"] < 0.25  # that of half the weight for each expert
    assert {"validation_accuracy", "routers_turned_off"} <= set(taught)


def test_a_way_to_train_routers_that_is_not_there_is_named(models):
    with pytest.raises(MergeError, match="recognise"):
        build(models, "wemoe", adaptation={"method": "recognize"})


def test_gates_of_a_pareto_mixture_learn_from_the_texts(models):
    from merge_backends.moe.pareto import deploy
    from merge_backends.moe.store import load_mixture

    record = build(models, "pareto", {"identity": True}, adaptation={"steps": 12, "learning_rate": 0.05})
    found = record["metrics"]
    assert found["gate_steps"] == 12
    assert not found["gates_put_back"]
    assert found["validation_loss"] < found["validation_loss_before"]
    mixture, name = load_mixture(models / "out"), "model.layers.0.mlp.up_proj.weight"
    corner = deploy(mixture, [1.0, 0.0])[name]
    assert not torch.allclose(corner, Checkpoint.open(models / "one")[name], atol=1e-4)
    assert not torch.allclose(corner, deploy(mixture, [0.0, 1.0])[name], atol=1e-4)


def test_gates_without_texts_pass_the_preference_on(models):
    from merge_backends.moe.pareto import deploy
    from merge_backends.moe.store import load_mixture

    plain = [{"model": "one"}, {"model": "two"}]
    build(models, "pareto", models=plain)
    mixture, name = load_mixture(models / "out"), "model.layers.0.mlp.up_proj.weight"
    for at, expert in enumerate(("one", "two")):
        corner = deploy(mixture, [float(at == 0), float(at == 1)])[name]
        torch.testing.assert_close(corner, Checkpoint.open(models / expert)[name], rtol=0, atol=1e-6)


def test_an_adaptation_of_gates_takes_no_setting_of_routers(models):
    with pytest.raises(MergeError, match="patience"):
        build(models, "pareto", adaptation={"patience": 3})


def test_a_text_that_is_not_there_is_named(models):
    (models / "one.jsonl").write_text('{"words": "a"}')
    with pytest.raises(RecipeError, match=r"one\.jsonl.*'text'"):
        build(models, "regmean")
    assert not (models / "out").exists()


def adapter(folder, name, size):
    generator = torch.Generator().manual_seed(len(name))
    up, down = torch.randn(32, 2, generator=generator) * size, torch.randn(2, 16, generator=generator)
    LoraAdapter({"model.layers.0.mlp.up_proj.weight": LowRank(up, down)}, name).save(folder / name)
    return up @ down


def test_adapters_are_summed_exactly_onto_the_base(models):
    changes = [adapter(models, name, 0.01) for name in ("first", "second")]
    record = build(models, "lora", {"weight": 0.5}, models=[{"model": "first"}, {"model": "second"}])
    made, base = Checkpoint.open(models / "out"), Checkpoint.open(models / "base")
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(made[name], base[name] + 0.5 * (changes[0] + changes[1]), rtol=0, atol=1e-6)
    assert [parent["name"] for parent in record["parents"]] == ["base", "base+first", "base+second"]


def test_a_model_with_an_adapter_is_an_expert_like_any_other(models):
    change = adapter(models, "first", 0.01)
    build(models, "task_arithmetic", models=[{"model": "base+first", "parameters": {"weight": 0.5}}])
    made, base = Checkpoint.open(models / "out"), Checkpoint.open(models / "base")
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(made[name], base[name] + 0.5 * change, rtol=0, atol=1e-6)
    assert torch.equal(made["model.norm.weight"], base["model.norm.weight"])
