"""The stored zoo is whole: hashes, expansion to the same bits, size, and models that do what their cards say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from merge_backends.errors import CheckpointError
from merge_backends.zoo import expand as expanding
from merge_backends.zoo.evaluate import fresh_questions, grade, shares_right
from merge_backends.zoo.expand import STORED, base_weights, check_files, digest, expert_weights, load_model
from merge_backends.zoo.pack import PROFILE_QUESTIONS, PROFILE_SEED
from merge_backends.zoo.skills import SKILLS
from merge_backends.zoo.tokenizer import build_tokenizer

MOST_BYTES = 8_000_000


def test_every_stored_file_is_what_the_manifest_says_and_all_are_small() -> None:
    manifest = expanding.read_manifest()
    check_files(manifest)
    assert {path.name for path in STORED.iterdir()} == set(manifest["files"])
    assert sum(facts["bytes"] for facts in manifest["files"].values()) <= MOST_BYTES


def test_base_and_experts_expand_to_the_bits_of_the_manifest() -> None:
    models = expanding.read_manifest()["models"]
    base = base_weights()
    assert digest(base) == models["base"]["digest"]
    for skill in SKILLS:
        assert digest(expert_weights(skill, base)) == models[skill]["digest"]


def test_a_damaged_file_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(STORED, tmp_path / "weights")
    broken = tmp_path / "weights" / "text.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(expanding, "STORED", tmp_path / "weights")
    with pytest.raises(CheckpointError, match=r"text\.safetensors is damaged"):
        check_files(expanding.read_manifest())


def test_the_stored_tokenizer_is_the_one_that_is_built() -> None:
    assert json.loads((STORED / "tokenizer.json").read_text()) == json.loads(build_tokenizer().to_str())


def test_the_questions_of_the_profiles_are_drawn_again_from_their_seed() -> None:
    stored = json.loads((expanding.HERE / "profiles.json").read_text())
    assert stored["items"] == [question.prompt for _, question in fresh_questions(PROFILE_SEED, PROFILE_QUESTIONS)]


@pytest.mark.parametrize("skill", sorted(SKILLS))
def test_an_expert_does_on_fresh_questions_what_its_card_says(skill: str) -> None:
    said = expanding.read_manifest()["models"][skill]["exact_match"][skill]
    questions = [each for each in fresh_questions(41, 40) if each[0] == skill]
    model = load_model(expert_weights(skill, base_weights()))
    # Forty questions: three standard errors of a share near .9 are 14 points.
    assert shares_right(questions, grade(model, build_tokenizer(), questions))[skill] >= said - 0.15
