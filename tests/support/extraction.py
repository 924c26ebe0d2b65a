"""Grades the extractors on the labelled replies of tests/data/extraction_replies.jsonl."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from aptitude_tests.extraction.choice import extract_choice
from aptitude_tests.extraction.cleaning import fold_text
from aptitude_tests.extraction.code import extract_code
from aptitude_tests.extraction.json_value import extract_json
from aptitude_tests.extraction.number import extract_number
from aptitude_tests.extraction.text import extract_text

LABELS = Path(__file__).resolve().parents[1] / "data" / "extraction_replies.jsonl"


def labelled_replies() -> list[dict[str, Any]]:
    """All labelled replies: id, split, language, type, tag, reply, expected, options."""
    return [json.loads(line) for line in LABELS.read_text("utf-8").splitlines()]


def is_extracted_right(label: dict[str, Any]) -> bool:
    """True where the extractor finds the labelled answer, or finds none where there is none."""
    reply, expected, options = label["reply"], label["expected"], label.get("options", ())
    kind = label["type"]
    if kind == "number":
        found = extract_number(reply, label["language"])
        value = None if found is None else found.value
        return value == (None if expected is None else Fraction(expected))
    if kind == "json":
        return bool(extract_json(reply) == expected)
    if kind == "choice":
        return extract_choice(reply, options) == expected
    text = extract_text(reply, options) if kind == "text" else extract_code(reply)
    if text is None or expected is None:
        return text is expected
    return fold_text(text) == fold_text(expected) if kind == "text" else text.strip() == expected.strip()


def last_capital_letter(reply: str) -> str | None:
    """The baseline for choices: whatever capital A to J stands alone last."""
    found = re.findall(r"(?<![A-Za-z])[A-J](?![A-Za-z])", reply)
    return found[-1] if found else None
