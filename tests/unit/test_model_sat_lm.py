"""Model-SAT in its language-model form: the text, the soft tokens, Eq. 4, homogeneous groups, the two stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast, LlamaConfig, LlamaForCausalLM

from capability_encoder.training import model_sat_train as training
from capability_encoder.training.data import Outcomes
from capability_encoder.training.model_sat_config import ModelSatSetting, Stage, load_setting
from capability_encoder.training.model_sat_lm import ModelSat, clause_windows, clauses, load_parts

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] the model achieves accuracy on task of no aptitude answer is known . , % 0 1 5 \" ' : law "
    "math predict whether can handle test sample by indicating yes or question easy hard ##s"
).split()
CONFIGS = Path(training.__file__).parent / "configs"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A two-layer psi and phi with random weights, saved as any checkpoint would be."""
    psi, phi = tmp_path_factory.mktemp("psi"), tmp_path_factory.mktemp("phi")
    (psi / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(str(psi / "vocab.txt"))
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(WORDS)}
    BertModel(BertConfig(intermediate_size=32, max_position_embeddings=64, **size)).save_pretrained(psi)
    LlamaForCausalLM(LlamaConfig(intermediate_size=32, **size)).save_pretrained(phi)
    for folder in (psi, phi):
        tokenizer.save_pretrained(folder)
    return psi, phi


def setting_of(folders: tuple[Path, Path], **changes: object) -> ModelSatSetting:
    stages = [
        {"name": "one", "datasets": ["set"], "steps": 3, "groups": 2, "connector_rate": 0.01, "encoder_rate": 0,
         "language_rate": 0},
        {"name": "two", "datasets": ["set"], "steps": 3, "groups": 2, "connector_rate": 0.01, "encoder_rate": 0.001,
         "language_rate": 0.001},
    ]  # fmt: skip
    values = {
        "name": "tiny",
        "encoder": {"path": folders[0], "max_tokens": 24},
        "language_model": {"path": folders[1], "max_prompt_tokens": 12},
        "question": "predict yes or no",
        "answer": "yes",
        "stages": stages,
    }
    return ModelSatSetting.model_validate(values | changes)


def method_of(folders: tuple[Path, Path], **changes: object) -> ModelSat:
    setting = setting_of(folders, **changes)
    method = ModelSat(setting, load_parts(setting))
    for part in (method.parts.encoder, method.parts.language_model):
        part.eval()
    return method


def outcomes() -> Outcomes:
    """Model a knows law, model b knows math; six aptitude items and forty prompts."""
    rng = np.random.default_rng(0)
    law = rng.random(46) < 0.5
    tasks = np.where(law, "mmlu-law", "mmlu-math").astype(np.str_)
    scores = np.stack([law, ~law], axis=1).astype(np.float32)
    label = np.full(46, "set", dtype="<U9")
    splits = np.array(["aptitude"] * 6 + ["train"] * 40, dtype=np.str_)
    return Outcomes(
        prompt_ids=tuple(f"p{i}" for i in range(46)), asks=tuple("law question" if x else "math question" for x in law),
        vectors=np.zeros((46, 2), dtype=np.float32), models=("a", "b"), scores=scores,
        costs=np.full_like(scores, np.nan), datasets=label, tasks=tasks, categories=tasks, splits=splits,
        groups=label,
    )  # fmt: skip


def test_both_shipped_settings_are_valid_and_name_their_parts() -> None:
    for file in sorted(CONFIGS.glob("model_sat_*.yaml")):
        setting = load_setting(file)
        assert [stage.encoder_rate > 0 for stage in setting.stages] == [False, True]  # connector alone, then all
        assert setting.stages[1].connector_rate > setting.stages[1].language_rate


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text((CONFIGS / "model_sat_small.yaml").read_text() + "\nlearning_rate: 1\n")
    with pytest.raises(ValueError, match="learning_rate"):
        load_setting(tmp_path / "s.yaml")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="psi is not at"):
        load_parts(setting_of((tmp_path / "none", tmp_path)))


def test_the_capability_text_holds_each_task_once_in_the_drawn_order() -> None:
    known = training.Capabilities.of(outcomes())
    texts = {known.text("a", np.random.default_rng(seed)) for seed in range(8)}
    assert len(texts) == 2  # two tasks, two orders
    assert all(text.count("law") == 1 and text.count("math") == 1 for text in texts)


def test_clauses_join_to_the_text_and_windows_keep_every_clause() -> None:
    text = 'The model achieves accuracy 5% on the task of "law", accuracy 1% on the task of "math".'
    assert len(clauses(text)) == 2
    assert clause_windows(text, [9, 9], 12) == clauses(text)
    assert "".join(clause_windows(text, [9, 9], 18)) == "".join(clauses(text))


def test_windows_give_one_soft_token_each_and_the_paper_form_gives_one(folders: tuple[Path, Path]) -> None:
    text = training.Capabilities.of(outcomes()).text("a", np.random.default_rng(0))
    windows = method_of(folders).sentence_vectors(text)
    encoder = {"path": folders[0], "max_tokens": 24, "tokens": "one"}
    single = method_of(folders, encoder=encoder).sentence_vectors(text)
    assert len(windows) > 1
    assert len(single) == 1


def test_the_score_is_the_product_of_answer_probabilities(folders: tuple[Path, Path]) -> None:
    """Eq. 4, against one position at a time without padding."""
    method = method_of(folders, answer="yes yes")
    vectors = method.sentence_vectors("the model achieves accuracy 5% on law")
    prompt = "easy law question"
    with torch.no_grad():
        together = method.yes_log_probability(vectors, [prompt, "hard math test sample question"])[0]
        embed = method.parts.language_model.get_input_embeddings()
        ids = method._ids(prompt) + method._ids(method.setting.question)
        total = 0.0
        for token in method._ids("yes yes"):
            inputs = torch.cat([method.parts.connector(vectors), embed(torch.tensor(ids))]).unsqueeze(0)
            logits = method.parts.language_model(inputs_embeds=inputs).logits[0, -1]
            total += float(torch.log_softmax(logits, dim=0)[token])
            ids.append(token)
    assert float(together) == pytest.approx(total, abs=1e-4)  # float32, masked attention sums in another order


def test_a_long_prompt_keeps_its_head_and_its_tail(folders: tuple[Path, Path]) -> None:
    assert method_of(folders)._cut(list(range(40))) == [0, 1, 2, 3, 4, 5, 34, 35, 36, 37, 38, 39]


def test_groups_hold_one_model_with_its_positive_first() -> None:
    data = outcomes()
    stage = setting_of((Path(), Path())).stages[0]
    sampler = training.GroupSampler(data, ["a", "b"], stage, negatives=3)
    for seed in range(10):
        group = sampler.draw(np.random.default_rng(seed))
        scores = data.scores[group.rows, data.models.index(group.model)]
        assert group.rows.shape == (2, 4)
        assert scores[:, 0].min() == 1.0
        assert scores[:, 1:].max() == 0.0
        assert set(data.splits[group.rows.ravel()]) == {"train"}


def test_a_stage_without_usable_data_says_so() -> None:
    stage = Stage(name="x", datasets=("none",), steps=1, groups=1, connector_rate=1, encoder_rate=0, language_rate=0)
    with pytest.raises(ValueError, match="stage 'x'"):
        training.GroupSampler(outcomes(), ["a"], stage, negatives=3)


def test_stage_one_changes_the_connector_only(folders: tuple[Path, Path]) -> None:
    method = method_of(folders, stages=[setting_of(folders).stages[0].model_dump()])
    parts = {"psi": method.parts.encoder, "phi": method.parts.language_model, "connector": method.parts.connector}
    before = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
    data = outcomes()
    training.train(method, data, data.models, training.Capabilities.of(data))
    changed = {
        name
        for name, part in parts.items()
        if any(not torch.equal(*pair) for pair in zip(before[name], part.parameters(), strict=True))
    }
    assert changed == {"connector"}


@pytest.mark.parametrize("loss", ["contrast", "pointwise"])
def test_training_lowers_the_loss(folders: tuple[Path, Path], loss: str) -> None:
    stage = setting_of(folders).stages[1].model_copy(update={"steps": 40, "groups": 4, "language_rate": 0.01})
    method = method_of(folders, loss=loss, stages=[stage.model_dump()])
    data = outcomes()
    history = training.train(method, data, ["a"], training.Capabilities.of(data))
    assert np.mean(history[-5:]) < np.mean(history[:5]) * 0.9


def test_two_seeded_runs_score_alike(folders: tuple[Path, Path]) -> None:
    data, scores = outcomes(), []
    for _ in range(2):
        method = method_of(folders)
        known = training.Capabilities.of(data)
        training.train(method, data, data.models, known)
        scores.append(training.predict(method, known, data.asks[:5], data.models))
    assert scores[0].tobytes() == scores[1].tobytes()
    assert np.all((scores[0] > 0) & (scores[0] < 1))


def test_a_model_without_answers_still_has_a_text() -> None:
    data = outcomes()
    silent = replace(data, scores=np.full_like(data.scores, np.nan))
    text = training.Capabilities.of(silent).text("a", np.random.default_rng(0))
    assert "No aptitude answer" in text
