"""Grades answers with the aptitude tests' own scorers, to check the recorded scores they are counted by."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from aptitude_tests.item import LETTERS, Item, Reply
from aptitude_tests.scorers import score
from gateway.evaluation.asking import Asked
from gateway.evaluation.recorded import Prompt, RecordedPool


class Grading(BaseModel):
    """How many answers could be graded here (a letter or a number with a gold answer), and how many agree."""

    graded: int
    agree: int


def check(pool: RecordedPool, asked: Sequence[Asked]) -> Grading:
    """Compare our verdict with the recorded score of the answer that came back."""
    column_of = {name: column for column, name in enumerate(pool.names)}
    graded = agree = 0
    for row, (prompt, one) in enumerate(zip(pool.prompts, asked, strict=True)):
        item = _item(prompt)
        if item is None or one.text is None or one.model not in column_of:
            continue
        graded += 1
        right = (score(item, Reply(one.text)).score or 0.0) >= 0.5
        agree += right == (pool.scores[row, column_of[one.model]] >= 0.5)
    return Grading(graded=graded, agree=agree)


def _item(prompt: Prompt) -> Item | None:
    gold = (prompt.reference or "").strip()
    if prompt.answer_type == "choice" and gold in tuple(LETTERS) and 2 <= prompt.options <= len(LETTERS):
        options = tuple(f"option {letter}" for letter in LETTERS[: prompt.options])
        return Item(prompt.id, prompt.dataset, 0, prompt.text, gold, "choice", options=options)
    if prompt.answer_type == "number" and _is_number(gold):
        return Item(prompt.id, prompt.dataset, 0, prompt.text, gold.replace(",", ""), "number")
    return None


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True
