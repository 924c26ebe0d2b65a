"""A word or phrase: equal after folding case, accents, articles and punctuation."""

from __future__ import annotations

from aptitude_tests.extraction.cleaning import fold_text
from aptitude_tests.extraction.text import extract_text
from aptitude_tests.item import Item, Reply, Verdict
from aptitude_tests.scorers.registry import SCORERS, Scorer, judged, missing


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where the phrase is one of the accepted answers."""
    accepted, candidates = _gold(item)
    found = extract_text(reply.text, candidates)
    if found is None:
        return missing(reply)
    return judged(fold_text(found) in {fold_text(answer) for answer in accepted}, found)


def _gold(item: Item) -> tuple[list[str], list[str]]:
    """Accepted answers, and all phrases an answer can be (empty where any phrase can)."""
    gold = item.gold
    if isinstance(gold, dict):
        answers = gold["answers"]
        return answers, [*answers, *gold.get("candidates", [])]
    return ([gold] if isinstance(gold, str) else gold), []


def _problem(item: Item) -> str | None:
    try:
        accepted, candidates = _gold(item)
    except (KeyError, TypeError):
        return f"gold {item.gold!r} has no answers"
    if not accepted or not all(isinstance(answer, str) and fold_text(answer) for answer in [*accepted, *candidates]):
        return f"gold {item.gold!r} holds an empty answer, or one that is no text"
    return None


def _wrong(item: Item) -> Reply:
    accepted, candidates = _gold(item)
    folded = {fold_text(answer) for answer in accepted}
    return Reply(next((other for other in candidates if fold_text(other) not in folded), "zzz"))


SCORERS.add(
    Scorer(
        "text",
        "a word or phrase",
        'a text, a list of accepted texts, or {"answers": [...], "candidates": [...]}',
        grade,
        lambda item: Reply(_gold(item)[0][0]),
        _wrong,
        _problem,
    )
)
