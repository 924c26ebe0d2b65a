"""The MAL study from Parquet files to its table, on a tiny six-layer BERT that the test makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel

from merge_backends.mal import study, zoo

WORDS = [f"word{number}" for number in range(20)]
CASES = "shallower donor,wider donor,zoo of three"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    numbered = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(numbered, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(numbered), hidden_size=24, num_hidden_layers=6, num_attention_heads=6,
                        intermediate_size=36, max_position_embeddings=16)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    for module in (study, zoo):
        monkeypatch.setattr(module, "bundled_base", lambda: folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Which half of the list the first word is from, and which the last."""
    dice = np.random.default_rng(0)
    for name, place in (("first", 0), ("last", -1)):
        chosen = dice.integers(0, len(WORDS), (120, 4))
        texts = [" ".join(WORDS[number] for number in row) for row in chosen]
        splits = ["train"] * 60 + ["validation"] * 30 + ["test"] * 30
        labels = [int(row[place] < len(WORDS) // 2) for row in chosen]
        parquet.write_table(pa.table({"text": texts, "label": labels, "split": splits}), tmp_path / f"{name}.parquet")
    return tmp_path


def run(data: Path, out: Path) -> dict[str, Any]:
    arguments = ["--data", str(data), "--tasks", "first,last", "--seeds", "0", "--cases", CASES]
    study.main([*arguments, "--cache", str(data / "cache"), "--out", str(out)])
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_the_study_prints_its_table_and_keeps_every_step(
    base: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(data, data / "report.json")
    assert [row["case"] for row in report["rows"]] == ["shallower donor", "wider donor", "zoo of three", "zoo of three"]
    assert "zoo of three" in capsys.readouterr().out
    for outcome in report["outcomes"]:
        for step in outcome["steps"]:
            if step["accepted"]:
                loss, score = step["readings"][step["alphas"].index(step["accepted"])]
                assert loss < step["before"][0]
                assert score >= step["before"][1]
    assert {step["donor"] for step in report["outcomes"][2]["steps"]} == {"shallow first", "narrow last", "stranger"}


def test_every_unit_of_the_shallow_donor_is_found_where_it_came_from(base: Path, data: Path) -> None:
    laws = run(data, data / "report.json")["laws"]
    found = next(law["recovered"] for law in laws if law.get("donor") == "shallow" and law["similarity"] == "distance")
    assert found == {"stream": 1.0, "heads": 1.0, "inner": 1.0}


def test_the_interval_of_a_gain_is_paired_over_the_test_rows() -> None:
    right = {"t": (torch.tensor([0.0, 1.0] * 50), torch.tensor([1.0, 1.0] * 50))}
    made = study.Outcome("case", 0, {}, {}, {}, (study.Reading(0, 0), study.Reading(0, 0)), (), 0.0, right)
    gain, low, high = study.gain_interval([made, made], "t")
    assert gain == 0.5
    assert 0.38 < low < 0.5 < high < 0.62
