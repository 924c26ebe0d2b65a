"""The word or phrase a reply commits to."""

from __future__ import annotations

import re
from collections.abc import Sequence

from aptitude_tests.extraction.cleaning import answer_part, fold_scripts, fold_text, strip_markup, strip_quotes
from aptitude_tests.extraction.commitment import drop_refuted, last_commitment
from aptitude_tests.extraction.refusal import is_refusal

_FENCE = re.compile(r"(?:```|~~~)[ \t]*\w*[ \t]*\n(.*?)\n[ \t]*(?:```|~~~)", re.DOTALL)
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_QUOTED = re.compile(r"[\"“„«「]\s*([^\"“”„«»「」\n]{1,80}?)\s*[\"”“»」]")
_MAX_PHRASE = 80
#: A last line longer than this is talk, not an answer.
_MAX_WORDS = 8


def extract_text(reply: str, candidates: Sequence[str] = ()) -> str | None:
    """The phrase that the reply commits to last; None where it commits to none.

    Args:
        candidates: all phrases an answer can be (the gold one among them); one of them is returned where given.
    """
    raw = drop_refuted(answer_part(reply))
    text = strip_markup(raw)
    committed = last_commitment(text)
    if candidates:
        parts = re.split(r"(?<=[.!?。！？؟])\s+|\n+|(?<=。)", text)
        for part in ([committed.text] if committed else []) + parts[::-1]:
            found = _last_mention(part, candidates)
            if found is not None:
                return found
        return None
    if committed is not None:
        return _phrase(committed.text)
    for pattern in (_FENCE, _BOLD, _QUOTED):
        marked = pattern.findall(raw)
        if marked:
            return _phrase(marked[-1])
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or len(lines[-1].split()) > _MAX_WORDS or is_refusal(text):
        return None
    return _phrase(lines[-1])


def _phrase(text: str) -> str | None:
    quoted = _QUOTED.findall(text)
    text = strip_quotes(quoted[-1] if quoted else text)
    return text if 0 < len(text) <= _MAX_PHRASE else None


def _last_mention(text: str, candidates: Sequence[str]) -> str | None:
    """The candidate that is mentioned last; of two that end together, the longer."""
    held = f" {fold_text(text)} "
    best: tuple[int, int] | None = None
    answer = None
    for candidate in candidates:
        folded = fold_text(candidate)
        pattern = rf"(?<!\w){re.escape(folded)}(?!\w)" if folded.isascii() else re.escape(folded)
        for match in re.finditer(pattern, fold_scripts(held)):
            if best is None or (match.end(), len(folded)) > best:
                best, answer = (match.end(), len(folded)), candidate
    return answer
