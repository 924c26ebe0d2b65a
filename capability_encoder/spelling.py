"""Undo single-letter typos before embedding, so that a slip of the finger does not change which model answers.

A word that is neither in the embedder's vocabulary nor known from elsewhere becomes the most frequent word one edit
away, if there is one. Words known from elsewhere are kept as hashes only: they are counts of text, not text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache, partial

SHORTEST = 4
"""Shorter words have too many neighbours to tell which one was meant."""
LONGEST = 20
MOST_REPAIRS = 24
"""Words looked at per text: bounds the time spent on a text in a language the vocabulary does not know."""
_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
WORD = re.compile(rf"(?<![\w\-'’/\\$^{{}}.#@])[A-Za-z]{{{SHORTEST},{LONGEST}}}(?![\w\-'’(\[{{}}\\^_=/@])")
_ANY_WORD = re.compile(r"[^\W\d_]{3,}")
_FORMULA = re.compile(r"[\\$=<>{}]|\d.*\d.*\d", re.DOTALL)
FEWEST_WORDS = 3
LEAST_LATIN = 0.5
LEAST_KNOWN = 0.2
"""A text with a smaller share of Latin letters, or of known words among at least three, is in no language we know."""
_ENDINGS = ("s", "es", "ed", "d", "ing", "ly", "er", "ers", "al", "y")
_CODE = re.compile(
    r"^[ \t]*(?:def|class|import|from|return|function|const|let|var|#include|public)\b|[;{][ \t]*$|```", re.M
)


class SpellingRepair:
    """Repairs English words against a vocabulary in order of falling frequency.

    Args:
        words_by_frequency: the embedder's own words, the commonest first.
        known_hashes: `word_hash` of further words that are right as they are, and may be meant.
    """

    def __init__(self, words_by_frequency: Iterable[str], known_hashes: Iterable[int] = ()) -> None:
        usable = (
            word for word in words_by_frequency if word.isascii() and word.isalpha() and len(word) >= SHORTEST - 1
        )
        self._rank = {word: rank for rank, word in enumerate(usable)}
        self._known = frozenset(known_hashes)
        # Over a function: over a method it would make a cycle.
        self._nearest = lru_cache(maxsize=20_000)(partial(_find_nearest, self._rank, self._known))

    def repair(self, text: str) -> str:
        """The text with misspelt words replaced; code comes back as it is (identifiers are not English)."""
        if _CODE.search(text):
            return text
        parts: list[str] = []
        end = looked_at = 0
        for match in WORD.finditer(text):
            word = match.group().lower()
            if match.group()[1:] != word[1:] or self.is_known(word):
                continue
            looked_at += 1
            if looked_at > MOST_REPAIRS:
                break
            nearest = self._nearest(word)
            if nearest is not None:
                parts += (text[end : match.start()], nearest)
                end = match.end()
        return "".join((*parts, text[end:])) if parts else text

    def is_readable(self, text: str) -> bool:
        """Whether the vocabulary knows the text's language at least in part; formulae and code count as known."""
        letters = [character for character in text[:2_000] if character.isalpha()]
        if letters and sum(character < "\u0250" for character in letters) < LEAST_LATIN * len(letters):
            return False
        words = _ANY_WORD.findall(text, 0, 2_000)
        if len(words) < FEWEST_WORDS or _FORMULA.search(text[:2_000]) or _CODE.search(text[:2_000]):
            return True
        return sum(self.is_known(word.lower()) for word in words) >= LEAST_KNOWN * len(words)

    def is_known(self, word: str) -> bool:
        """Whether a lower-case word is right as it is, or a plain inflection of a word that is."""
        if word in self._rank or word_hash(word) in self._known:
            return True
        return any(word.endswith(ending) and word[: -len(ending)] in self._rank for ending in _ENDINGS)


def _find_nearest(rank: Mapping[str, int], known: Collection[int], word: str) -> str | None:
    edits = set(_edits(word))
    common = edits & rank.keys()
    if common:
        return min(common, key=rank.__getitem__)
    return min((edit for edit in edits if word_hash(edit) in known), default=None)


def word_hash(word: str) -> int:
    """64 bits of a lower-case word."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _edits(word: str) -> Iterator[str]:
    """Every string one deletion, transposition, replacement or insertion away."""
    for cut in range(len(word) + 1):
        head, tail = word[:cut], word[cut:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        for letter in _LETTERS:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]
