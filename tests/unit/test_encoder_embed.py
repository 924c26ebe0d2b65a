"""The shipped embedder: same vector everywhere, robust to what stands around the ask, clear when damaged."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from capability_encoder.asks import Ask
from capability_encoder.embed import DEFAULT_EMBEDDER, EmbedderError, PromptEmbedder

ASK = "What is the boiling point of water on a high mountain?"
FILLER = "The valve was inspected by the night shift and nothing unusual was found on that day. "


@pytest.fixture(scope="module")
def embedder() -> PromptEmbedder:
    return PromptEmbedder.load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_EMBEDDER, tmp_path / "minilm"))


def test_vectors_have_unit_length_and_do_not_depend_on_their_batch(embedder: PromptEmbedder) -> None:
    together = embedder.embed([ASK, "Write a haiku.", ASK * 40])
    assert together.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(together[0], embedder.embed_one(ASK))


def test_like_asks_lie_closer_than_unlike_ones(embedder: PromptEmbedder) -> None:
    water, boil, poem = embedder.embed([ASK, "At which temperature does water boil in the Alps?", "Write a haiku."])
    assert water @ boil > 0.6 > 0.3 > water @ poem


@pytest.mark.parametrize(
    "wrap",
    [
        "Answer the following question:\n\n{}",
        "<system-reminder>Nothing to do.</system-reminder>\n{}",
        "\n\n".join([FILLER * 6] * 35) + "\n\n{}",
        "{}\n\n" + "\n\n".join([FILLER * 6] * 35),
    ],
    ids=["wrapper", "reminder", "context-before", "context-after"],
)
def test_the_vector_is_that_of_the_ask_alone(embedder: PromptEmbedder, wrap: str) -> None:
    np.testing.assert_array_equal(embedder.embed_one(wrap.format(ASK)), embedder.embed_one(ASK))


def test_a_typo_moves_the_vector_little(embedder: PromptEmbedder) -> None:
    typo = ASK.replace("boiling", "boilnig").replace("mountain", "mountian")
    assert embedder.embed_one(typo) @ embedder.embed_one(ASK) > 0.95


def test_an_empty_prompt_gives_the_zero_vector(embedder: PromptEmbedder) -> None:
    for prompt in ("", " \n"):
        assert not embedder.embed_one(prompt).any()
    assert embedder.embed([]).shape == (0, 384)


@pytest.mark.parametrize(
    "prompt",
    [
        "你好，请帮我写一首诗",
        "Напиши письмо в банк",
        "Kirjoita kirje pankilleni tilin sulkemisesta",
        "zxqv wkjh ppqq zzzz",
    ],
    ids=["chinese", "russian", "finnish", "noise"],
)
def test_a_language_it_does_not_know_gives_the_zero_vector(embedder: PromptEmbedder, prompt: str) -> None:
    assert not embedder.embed_one(prompt).any()


@pytest.mark.parametrize(
    "prompt",
    [
        "What is 你好 in English?",
        "Solve $x^2 = 2$.",
        "def f(qz):\n    return qz",
        "3 + 4 * 5",
        "Hi",
        "Escribe una carta",
    ],
    ids=["mixed", "formula", "code", "digits", "short", "spanish"],
)
def test_what_is_not_plain_english_is_still_read(embedder: PromptEmbedder, prompt: str) -> None:
    assert embedder.embed_one(prompt).any()


@pytest.mark.parametrize(
    "prompt",
    ["x" * 500_000, "word " * 100_000, "中文" * 50_000, "\ud800 broken", "🦜" * 1000, "\n" * 10_000 + "?", "0" * 300],
    ids=["one-word", "words", "chinese", "surrogate", "emoji", "lines", "digits"],
)
def test_no_prompt_breaks_it(embedder: PromptEmbedder, prompt: str) -> None:
    vector = embedder.embed_one(prompt)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4) or not vector.any()


def test_what_the_vocabulary_lacks_is_reported(embedder: PromptEmbedder) -> None:
    assert embedder.pieces(ASK).unknown_share == 0.0
    assert embedder.pieces("🦜🦜 🦜🦜 🦜").unknown_share == 1.0
    assert embedder.pieces("").unknown_share == 1.0


def test_a_long_ask_keeps_its_head_and_tail(embedder: PromptEmbedder) -> None:
    pieces = embedder.pieces("first " + "middle " * 600 + "last")
    assert pieces.is_cut
    assert len(pieces.ids) == 256
    first, last = embedder.pieces("first last").ids[1:3]
    assert (pieces.ids[1], pieces.ids[-2]) == (first, last)


def test_chosen_layers_stand_side_by_side_with_equal_weight(embedder: PromptEmbedder) -> None:
    wide = PromptEmbedder.load(layers=(3, 6))
    vector = wide.embed_one(ASK)
    assert vector.shape == (768,)
    np.testing.assert_allclose(np.linalg.norm(vector.reshape(2, 384), axis=1), np.sqrt(0.5), atol=1e-5)
    np.testing.assert_allclose(vector[384:] * np.sqrt(2), embedder.embed_one(ASK), atol=1e-5)
    np.testing.assert_array_equal(wide.combine(wide.embed_layers(Ask(ASK))), vector)
    assert wide.fingerprint != embedder.fingerprint


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "known_words.npy"])
def test_a_damaged_or_missing_file_is_named(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-5] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(EmbedderError, match=rf"{name}' differs from its recorded sha256"):
        PromptEmbedder.load(folder)
    (folder / name).unlink()
    with pytest.raises(EmbedderError, match=rf"{name}' is missing; export it again"):
        PromptEmbedder.load(folder)


def test_another_format_or_no_manifest_is_named(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 7}))
    with pytest.raises(EmbedderError, match="embedder format 7, this version reads 1"):
        PromptEmbedder.load(folder)
    path.write_text("{")
    with pytest.raises(EmbedderError, match="is not JSON"):
        PromptEmbedder.load(folder)
    path.unlink()
    with pytest.raises(EmbedderError, match=r"manifest.json is missing"):
        PromptEmbedder.load(folder)


def test_the_fingerprint_follows_the_files(folder: Path, embedder: PromptEmbedder) -> None:
    assert PromptEmbedder.load(folder).fingerprint == embedder.fingerprint
    words = np.load(folder / "known_words.npy")[1:]
    np.save(folder / "known_words.npy", words)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["known_words.npy"] = hashlib.sha256((folder / "known_words.npy").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert PromptEmbedder.load(folder).fingerprint != embedder.fingerprint


def test_the_licence_of_the_weights_is_stated_beside_them() -> None:
    assert "Apache-2.0" in (DEFAULT_EMBEDDER / "LICENSE-NOTE.txt").read_text()
