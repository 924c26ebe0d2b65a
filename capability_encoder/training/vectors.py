"""Embed every prompt of the data folder once, with the code that embeds at run time, into a cache of arrays.

Run as `python -m capability_encoder.training.vectors --data DIR --out DIR`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from capability_encoder.asks import find_ask
from capability_encoder.embed import FloatArray, PromptEmbedder

_README = """\
Vectors of all prompts of prompts.parquet, made by capability_encoder.training.vectors; row order = ids.json.
minilm.npy         float32 [N, 384]     the vector the run time uses: PromptEmbedder.load().embed(prompts), unit length
minilm_layers.npy  float16 [N, 7, 384]  mean-pooled states of layers 0 (word embeddings) to 6 (last), not normalised;
                                        PromptEmbedder.load(layers=(3, 6)).combine(these) gives other views at no cost
tokens.npy         int32 [N]            word pieces seen (at most 256)
unknown.npy        float32 [N]          share of word pieces that are [UNK]
meta.json          fingerprint of the embedder the vectors belong to
"""


def embed_layers(prompts: Sequence[str], embedder: PromptEmbedder, *, threads: int = 1) -> FloatArray:
    """Layer states `[N, 7, 384]`; equal asks are embedded once."""
    asks = [find_ask(prompt) for prompt in prompts]
    distinct = sorted({ask.text: ask for ask in asks}.values(), key=lambda ask: len(ask.text))
    with ThreadPoolExecutor(threads) as pool:
        states = dict(
            zip((ask.text for ask in distinct), pool.map(embedder.embed_layers, distinct, chunksize=64), strict=True)
        )
    return np.stack([states[ask.text] for ask in asks])


def write_vectors(data: Path, out: Path, *, threads: int = 1) -> None:
    """Fill `out` with the arrays that its README.txt describes."""
    table = parquet.read_table(data / "prompts.parquet", columns=["prompt_id", "prompt"])
    ids, prompts = table.column(0).to_pylist(), table.column(1).to_pylist()
    embedder = PromptEmbedder.load()
    layers = embed_layers(prompts, embedder, threads=threads)
    pieces = [embedder.pieces(find_ask(prompt).text) for prompt in prompts]
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "minilm.npy", embedder.combine(layers))
    np.save(out / "minilm_layers.npy", layers.astype(np.float16))
    np.save(out / "tokens.npy", np.array([len(piece.ids) for piece in pieces], dtype=np.int32))
    np.save(out / "unknown.npy", np.array([piece.unknown_share for piece in pieces], dtype=np.float32))
    (out / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
    (out / "meta.json").write_text(json.dumps({"embedder": embedder.fingerprint}), encoding="utf-8")
    (out / "README.txt").write_text(_README, encoding="utf-8")
    (out / "READY").touch()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    write_vectors(given.data, given.out, threads=given.threads)
