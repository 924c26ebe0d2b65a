"""Prompt -> views: what the scorer reads of a prompt beside its embedding. Pure numpy, a fraction of a millisecond.

Three views stand side by side in one vector: the sentence embedding (what it is about), the form of the text (length,
digits, formulae, options: how hard and how strict it is), and a projection of its word pieces and their pairs (the
wording, which a sentence embedding blurs).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from capability_encoder.asks import Ask, find_ask
from capability_encoder.embed import PromptEmbedder

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_OPTIONS_START = re.compile(r"\n+\(?A[.):]\s")
_OPTION = re.compile(r"\n\(?([A-J])[.):]\s+([^\n]*)")
_NEGATION = re.compile(r"\b(?:not|except|false|incorrect|least|never)\b", re.IGNORECASE)
_COMPUTE = re.compile(
    r"\b(?:calculate|find|determine|compute|how many|how much|evaluate|solve|estimate)\b", re.IGNORECASE
)
_PARTS = re.compile(r"\([a-z0-9]{1,3}\)")
_CODE = re.compile(r"\b(?:def|return|import|assert|print|for \w+ in|function|const|var)\b|[{};]|==")
_PUZZLE = re.compile(r"\b(?:clues?|houses?|each person)\b", re.IGNORECASE)
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_WORD = re.compile(r"\S+")

STRUCTURE_NAMES = (
    "chars", "stem_chars", "option_chars", "options", "stem_digits", "option_digits", "option_digit_share",
    "stem_digit_share", "dollars", "backslashes", "operators", "blank", "question_mark", "stem_lines", "capitals",
    "word_length", "words", "commas", "non_ascii", "negations", "computes", "parts", "option_spread", "option_length",
    "options_alike", "code", "puzzle", "sentences",
)  # fmt: skip
_BIGRAM = (7919, 104729)


def structure(text: str) -> FloatArray:
    """Form of an ask `[len(STRUCTURE_NAMES)]`: counts on a log scale, shares in 0..1; zeros for an empty text."""
    start = _OPTIONS_START.search(text)
    stem, tail = (text[: start.start()], text[start.start() :]) if start else (text, "")
    option_lengths = [len(body) for _, body in _OPTION.findall(tail)]
    words = _WORD.findall(stem)
    stem_digits = sum(map(stem.count, "0123456789"))
    option_digits = sum(map(tail.count, "0123456789"))
    counts = np.log1p(
        [
            len(text),
            len(stem),
            len(tail),
            stem_digits,
            option_digits,
            text.count("$"),
            text.count("\\"),
            sum(map(text.count, "=+-*/^<>")),
            stem.count("\n"),
            sum(map(str.isupper, stem)),
            len(words),
            stem.count(","),
            len(_NON_ASCII.findall(text)),
            len(_NEGATION.findall(stem)),
            len(_COMPUTE.findall(stem)),
            len(_PARTS.findall(tail)),
            float(np.std(option_lengths)) if option_lengths else 0.0,
            float(np.mean(option_lengths)) if option_lengths else 0.0,
            len(_CODE.findall(stem)),
            len(_PUZZLE.findall(stem)),
            stem.count(". "),
        ]
    )
    return np.array(
        [
            *counts[:3],
            len(option_lengths),
            *counts[3:5],
            option_digits / (len(tail) + 1),
            stem_digits / (len(stem) + 1),
            *counts[5:8],
            float("_" in stem),
            float("?" in stem),
            *counts[8:10],
            sum(map(len, words)) / len(words) if words else 0.0,
            *counts[10:18],
            float(len(set(option_lengths)) < len(option_lengths) / 2),
            *counts[18:],
        ],
        dtype=np.float32,
    )


def gram_ids(pieces: Sequence[int] | IntArray, buckets: int) -> tuple[IntArray, FloatArray]:
    """Distinct hashed word pieces and neighbouring pairs of an ask, and their damped counts.

    Returns:
        Bucket numbers in `[0, buckets)`, ascending, and `1 + log(count)` of each.
    """
    ids = np.asarray(pieces, dtype=np.int64)
    # Fixed multipliers rather than Python's hash(): the buckets must be the same in every process.
    pairs = (ids[:-1] * _BIGRAM[0] + ids[1:] * _BIGRAM[1]) % buckets
    found, counts = np.unique(np.concatenate([ids % buckets, pairs]), return_counts=True)
    return found, (1.0 + np.log(counts)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class GramProjection:
    """A projection of hashed grams: `weights[bucket] * idf`, unit length, times the table.

    Attributes:
        idf: `[buckets]` float32, 0 for grams too rare to know.
        table: `[buckets, R]` int8, each column times `scale[R]`.
    """

    idf: FloatArray
    table: npt.NDArray[np.int8]
    scale: FloatArray

    def project(self, pieces: Sequence[int] | IntArray) -> FloatArray:
        """`[R]`; zeros where no gram is known."""
        found, weights = gram_ids(pieces, len(self.idf))
        weights = weights * self.idf[found]
        norm = float(np.linalg.norm(weights))
        if norm == 0.0:
            return np.zeros(len(self.scale), dtype=np.float32)
        known = weights > 0
        rows = self.table[found[known]].astype(np.float32)
        return np.asarray((weights[known] / norm) @ rows * self.scale, dtype=np.float32)


class PromptViews:
    """Embeds prompts as all views side by side; stands where a `PromptEmbedder` stands.

    The vector is `[embedding (E, unit length) | structure (S) | grams (R)]`.
    """

    def __init__(self, embedder: PromptEmbedder, grams: GramProjection) -> None:
        self.base = embedder
        self._embedder = embedder
        self._grams = grams
        self.embedding_dimension = embedder.dimension
        self.dimension = embedder.dimension + len(STRUCTURE_NAMES) + len(grams.scale)
        digest = hashlib.sha256(embedder.fingerprint.encode())
        for array in (grams.idf, grams.table, grams.scale):
            digest.update(np.ascontiguousarray(array).tobytes())
        self.fingerprint = digest.hexdigest()[:16]
        self.base_fingerprint = embedder.fingerprint

    def embed(self, asks: Sequence[str]) -> FloatArray:
        """`[B, D]` float32 of prompts as users wrote them."""
        if not asks:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([self.embed_one(ask) for ask in asks])

    def embed_one(self, ask: str) -> FloatArray:
        """`[D]` float32; the embedding part is zero for an empty prompt."""
        return self.of_ask(find_ask(ask))

    def of_ask(self, ask: Ask) -> FloatArray:
        """`[D]` float32 of an ask already found."""
        embedding = self._embedder.combine(self._embedder.embed_layers(ask))
        pieces = self._embedder.pieces(ask.text).ids[1:-1] if ask.text else ()
        return np.concatenate([embedding, structure(ask.text), self._grams.project(pieces)])
