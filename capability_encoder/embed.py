"""Prompt -> vector: the ask alone, through MiniLM (int8, per channel) on onnxruntime, one thread.

Each prompt runs by itself: dynamic quantisation takes its scale from the whole batch, so a padded batch would make a
prompt's vector depend on its neighbours. Alone it is the same vector everywhere, in training and at run time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from capability_encoder.asks import Ask, find_ask
from capability_encoder.spelling import SpellingRepair

FloatArray = npt.NDArray[np.float32]

DEFAULT_EMBEDDER = Path(__file__).parent / "artifacts" / "minilm"
FORMAT = 1
"""Version of the embedder folder's layout and of the text rules; part of the fingerprint."""
FULL_STATES = 7
"""Hidden states of the whole model: the word embeddings and six layers."""
HEAD_TOKENS = 128
TAIL_TOKENS = 126
"""Asks of more than 254 word pieces keep their head and tail windows, in one sequence of 256 with its two marks."""
_EDGE_CHARS = 2_000
_FIX = "export it again with `python -m capability_encoder.training.export_embedder`"


class EmbedderError(ValueError):
    """The embedder's folder is missing, corrupt or of another version; the message says what would fix it."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Word pieces of an ask: ids with both marks `[T]`, the share that is unknown to the vocabulary, whether cut."""

    ids: tuple[int, ...]
    unknown_share: float
    is_cut: bool


class Marks(NamedTuple):
    """Ids of the marks that open and close a text, and of the one for what the vocabulary lacks."""

    start: int
    end: int
    unknown: int


class PromptEmbedder:
    """Embeds asks; thread-safe (the session and the tokenizer are), holds no cache: see `AsyncEmbedder`."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        tokenizer: Tokenizer,
        spelling: SpellingRepair,
        *,
        layers: tuple[int, ...],
        states: int,
        fingerprint: str,
    ) -> None:
        self._session = session
        self._layers = layers
        self._states = states
        self._spelling = spelling
        marks = Marks(*(_mark_id(tokenizer, mark) for mark in ("[CLS]", "[SEP]", "[UNK]")))
        # Over a function, not a method: that would make a cycle, and a retired embedder is to go at once.
        self._recent_pieces = lru_cache(maxsize=8)(partial(_cut_to_pieces, tokenizer, spelling, marks))
        self.fingerprint = fingerprint
        self.dimension = 384 * len(layers)

    @classmethod
    def load(cls, path: Path | str | None = None, *, layers: Sequence[int] = (6,)) -> PromptEmbedder:
        """Open an embedder folder (default: the shipped one).

        Args:
            layers: encoder layers (0 = word embeddings .. 6 = last) whose mean-pooled states make up the vector.
        Raises:
            EmbedderError: if a file is missing or differs from its recorded sha256, or the format is another one.
        """
        folder = Path(path) if path is not None else DEFAULT_EMBEDDER
        manifest = read_embedder_manifest(folder)
        states = int(manifest.get("states", FULL_STATES))
        if not layers or not all(0 <= layer < states for layer in layers):
            raise EmbedderError(f"layers {tuple(layers)!r} are not all among 0..{states - 1} of {str(folder)!r}")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        known = np.load(folder / "known_words.npy", allow_pickle=False).tolist()
        spelling = SpellingRepair((word for word, _ in vocabulary), known)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        key = json.dumps([FORMAT, HEAD_TOKENS, TAIL_TOKENS, list(layers), manifest["files"]], sort_keys=True)
        fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
        return cls(session, tokenizer, spelling, layers=tuple(layers), states=states, fingerprint=fingerprint)

    def embed(self, asks: Sequence[str]) -> FloatArray:
        """Unit vectors `[B, D]` of prompts as users wrote them; wrappers and context are stripped here."""
        if not asks:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([self.embed_one(ask) for ask in asks])

    def embed_one(self, ask: str) -> FloatArray:
        """Unit vector `[D]`; zero, far from everything known, for an empty prompt or an unknown language."""
        return self.combine(self.embed_layers(find_ask(ask)))

    def embed_layers(self, ask: Ask) -> FloatArray:
        """Mean-pooled states of all layers `[7, 384]` of an ask already found, not normalised.

        Fewer than 7 where the embedder was exported with fewer layers. All zero for an empty ask, and for one in a
        language that the embedder does not know: it would place such texts close together, near anything.
        """
        if not ask.text or not self._spelling.is_readable(ask.text):
            return np.zeros((self._states, 384), dtype=np.float32)
        ids = np.array([self.pieces(ask.text).ids], dtype=np.int64)
        pooled = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        return np.asarray(pooled[0], dtype=np.float32)

    def combine(self, pooled: FloatArray) -> FloatArray:
        """The chosen layers of `[..., 7, 384]`, each of unit length, side by side, scaled to unit length `[..., D]`."""
        chosen = pooled[..., list(self._layers), :]
        norms = np.linalg.norm(chosen, axis=-1, keepdims=True)
        chosen = chosen / np.where(norms > 0, norms, 1.0) / np.sqrt(len(self._layers))
        return np.ascontiguousarray(chosen.reshape(*pooled.shape[:-2], self.dimension), dtype=np.float32)

    def pieces(self, text: str) -> Pieces:
        """Word pieces of an ask, head and tail only where it is long; the last few are remembered."""
        return self._recent_pieces(text)


def _cut_to_pieces(tokenizer: Tokenizer, spelling: SpellingRepair, marks: Marks, text: str) -> Pieces:
    if len(text) > 2 * _EDGE_CHARS:
        text = text[:_EDGE_CHARS] + "\n" + text[-_EDGE_CHARS:]
    ids = tokenizer.encode(spelling.repair(text), add_special_tokens=False).ids
    is_cut = len(ids) > HEAD_TOKENS + TAIL_TOKENS
    if is_cut:
        ids = ids[:HEAD_TOKENS] + ids[-TAIL_TOKENS:]
    unknown = ids.count(marks.unknown) / len(ids) if ids else 1.0
    return Pieces((marks.start, *ids, marks.end), unknown, is_cut)


def _mark_id(tokenizer: Tokenizer, mark: str) -> int:
    found = tokenizer.token_to_id(mark)
    if found is None:
        raise EmbedderError(f"the tokenizer has no {mark!r} mark: it is not the embedder's; {_FIX}")
    return int(found)


def read_embedder_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an embedder folder, after checking format and file hashes.

    Raises:
        EmbedderError: with the file, what is wrong with it, and the fix.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise EmbedderError(f"no embedder at {str(folder)!r}: manifest.json is missing; {_FIX}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EmbedderError(f"{str(path)!r} is not JSON ({error}); {_FIX}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise EmbedderError(f"{str(folder)!r} has embedder format {found!r}, this version reads {FORMAT}; {_FIX}")
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise EmbedderError(f"{str(file)!r} is missing; {_FIX}")
        if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise EmbedderError(f"{str(file)!r} differs from its recorded sha256: the file is corrupt; {_FIX}")
    return manifest
