"""The merging study from a folder of Parquet files to report and page, on a tiny random BERT that the test makes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from gateway.cli import merge
from gateway.errors import ConfigError
from merge_backends.errors import MergeError
from merge_backends.study.bench import Bench, run_bench
from merge_backends.study.data import Sizes, load_tasks, load_tokenizer
from merge_backends.study.experts import Training
from merge_backends.study.fronts import FrontSizes

COLOURS = ("red", "green", "blue", "grey", "pink", "white")
ANIMALS = ("cat", "dog", "horse", "bird", "fish", "snake")
PLACES = ("house", "street", "garden", "forest", "lake", "hill")
METHODS = ("linear", "task_arithmetic", "smile", "e_wemoe_labels")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with random weights and a tokenizer of whole words."""
    folder = tmp_path_factory.mktemp("base")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COLOURS, *ANIMALS, *PLACES]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do two words of a sentence come from the same half of their lists? No linear probe of a mean can tell."""
    folder = tmp_path_factory.mktemp("data")
    dice = np.random.default_rng(0)
    for name, pair in (("colour", (COLOURS, ANIMALS)), ("animal", (ANIMALS, PLACES))):
        texts, labels = [], []
        for _ in range(400):
            chosen = [str(dice.choice(words)) for words in pair]
            halves = [words.index(word) < len(words) // 2 for words, word in zip(pair, chosen, strict=True)]
            texts.append(" ".join(chosen))
            labels.append(int(halves[0] == halves[1]))
        splits = ["train"] * 300 + ["validation"] * 40 + ["test"] * 60
        parquet.write_table(pa.table({"text": texts, "label": labels, "split": splits}), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def bench_of(base: Path, data: Path, cache: Path, out: Path, **changes: Any) -> Bench:
    given = {"methods": METHODS, "training": Training(epochs=12, learning_rate=5e-3), "half": False, **changes}
    return Bench(data, ("colour", "animal"), out, base=base, cache=cache, sizes=Sizes(300, 40, 60), **given)


@pytest.fixture(scope="module")
def report(base: Path, data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("out") / "report.json"
    return {**run_bench(bench_of(base, data, cache, out)), "out": out}


def line(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in report["table"] if row["name"] == name)


def test_experts_learn_what_the_probe_of_a_random_encoder_cannot_tell(report: dict[str, Any]) -> None:
    assert line(report, "individual")["average"]["value"] > line(report, "probe")["average"]["value"] + 0.1


def test_the_table_has_a_line_for_each_method_and_a_cell_for_each_task(report: dict[str, Any]) -> None:
    assert [row["name"] for row in report["table"]] == ["probe", "individual", *METHODS]
    assert all(set(row["accuracy"]) == {"colour", "animal"} for row in report["table"])


def test_individual_recovers_the_whole_gap(report: dict[str, Any]) -> None:
    assert line(report, "individual")["recovered"]["value"] == 1.0


def test_sparse_experts_weigh_what_is_kept_of_them(report: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in report["records"][0]["rows"]}
    layers, experts, width, inner = 2, 2, 32, 64
    # Of each matrix a tenth stays, rounded up; biases are stored whole; one router of one hidden layer for all layers.
    kept = layers * experts * 2 * math.ceil(0.1 * width * inner)
    biases = layers * experts * (width + inner)
    router = width * width + width + width * experts + experts
    numbers = rows["probe"]["parameters"] + kept + biases + router
    assert rows["e_wemoe_labels"]["parameters"] == numbers
    # Four bytes a number, four for the column of each that is kept, and where each output's row begins.
    begins = layers * ((experts * inner + 1) + (experts * width + 1))
    buffers = rows["task_arithmetic"]["nbytes"] - rows["probe"]["nbytes"]
    assert rows["e_wemoe_labels"]["nbytes"] == 4 * (numbers + kept + begins) + buffers
    found = line(report, "e_wemoe_labels")
    assert (found["parameters_x"], found["memory_x"]) == (1.157, 1.265)


def test_router_training_reports_its_looks(report: dict[str, Any]) -> None:
    row = next(row for row in report["records"][0]["rows"] if row["name"] == "e_wemoe_labels")
    assert row["notes"]["looks"][0]["step"] == 0
    assert row["notes"]["best"] >= row["notes"]["task_arithmetic"] or row["notes"]["fell_back"]


def test_report_and_page_are_written(report: dict[str, Any]) -> None:
    kept = json.loads(report["out"].read_text())
    assert kept["schema"] == 2
    assert "E-WEMoE" in report["out"].with_suffix(".html").read_text()


def test_a_second_run_takes_experts_and_rows_from_the_cache(
    base: Path, data: Path, cache: Path, report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("merge_backends.study.experts.train_expert", _never)
    monkeypatch.setattr("merge_backends.study.run._tested", _never)
    again = run_bench(bench_of(base, data, cache, tmp_path / "again.json"))
    assert again["table"] == report["table"]


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("made again what the cache holds")


def test_another_seed_trains_other_experts_and_joins_the_table(
    base: Path, data: Path, cache: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    bench = bench_of(base, data, cache, tmp_path / "both.json", seed=1, methods=("linear",), join=(report["out"],))
    joined = run_bench(bench)
    assert joined["seeds"] == [1, 0]
    assert line(joined, "linear")["seeds"] == 2
    assert line(joined, "smile")["seeds"] == 1


def test_command_names_the_task_that_is_not_there(data: Path, base: Path, tmp_path: Path) -> None:
    arguments = ["bench", "--data", str(data), "--tasks", "colours", "--out", str(tmp_path / "r.json")]
    result = CliRunner().invoke(merge.app, [*arguments, "--base", str(base), "--cache", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "'colour'" in str(result.exception.hint)


def test_command_names_the_method_that_is_not_there(data: Path, base: Path, tmp_path: Path) -> None:
    arguments = ["bench", "--data", str(data), "--tasks", "colour", "--methods", "smiles"]
    result = CliRunner().invoke(merge.app, [*arguments, "--base", str(base), "--out", str(tmp_path / "r.json")])
    assert isinstance(result.exception, ConfigError)
    assert "'smile'" in str(result.exception.hint)


def test_fronts_are_measured_against_task_arithmetic_and_joined_over_seeds(
    base: Path, data: Path, cache: Path, tmp_path: Path
) -> None:
    spared, sizes = Sizes(250, 40, 60), FrontSizes(steps=20, points=3, train_rows=64, test_rows=60)
    changes = {"methods": ("linear",), "front": (("colour", "animal"),), "front_sizes": sizes}
    first = replace(bench_of(base, data, cache, tmp_path / "first.json", **changes), sizes=spared)
    run_bench(first)
    both = replace(first, out=tmp_path / "both.json", seed=1, join=(first.out,))
    report = run_bench(both)
    (front,), records = report["fronts"], report["front_records"]
    assert front["seeds"] == [1, 0]
    assert [point["preference"] for point in front["linear"]] == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    for record in records:  # gates start as task arithmetic, and are put back where training made them worse
        assert record["kept"] is (record["loss_after"] <= record["loss_before"])
        assert record["kept"] or record["pareto"] == record["linear"]
    by_hand = [record["pareto"][1]["accuracy"][0] - record["linear"][1]["accuracy"][0] for record in records]
    assert front["equal_weights"]["accuracy"]["colour"]["value"] == pytest.approx(sum(by_hand) / 2, abs=1e-4)
    page = (tmp_path / "both.html").read_text()
    assert all(f"{task}, {name}" in page for task in ("colour", "animal") for name in ("equal preference", "chosen"))


def test_gates_are_not_trained_on_rows_that_experts_saw(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    bench = bench_of(base, data, cache, tmp_path / "r.json", methods=("linear",), front=(("colour", "animal"),))
    with pytest.raises(MergeError, match="no train rows that no expert saw"):
        run_bench(bench)


def test_routers_learn_from_train_rows_behind_the_experts_own(
    base: Path, data: Path, cache: Path, tmp_path: Path
) -> None:
    tasks = [
        load_tasks(data, ("colour",), load_tokenizer(base), Sizes(count, 40, 60), seed=0)[0] for count in (250, 300)
    ]
    assert tasks[0].train.tokens + tasks[0].unseen.tokens == tasks[1].train.tokens
    bench = replace(
        bench_of(base, data, cache, tmp_path / "r.json"), sizes=Sizes(250, 40, 60), methods=("e_wemoe_unseen",)
    )
    row = run_bench(bench)["records"][0]["rows"][-1]
    assert row["notes"]["objective"] == "unseen"


def test_without_train_rows_to_spare_routers_are_told_so(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="no train rows that no expert saw"):
        run_bench(bench_of(base, data, cache, tmp_path / "r.json", methods=("e_wemoe_unseen",)))
