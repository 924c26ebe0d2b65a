"""The number a reply commits to, with the separators of six languages, fractions and LaTeX."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from aptitude_tests.extraction.cleaning import answer_part, fold_scripts, strip_markup
from aptitude_tests.extraction.commitment import drop_refuted, last_commitment
from aptitude_tests.item import Language

_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([^{}]+?)\s*\}\s*\{\s*([^{}]+?)\s*\}")
_PLAIN = r"\d{1,3}(?:[ ,.']\d{3})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)?|[.]\d+"
_NUMBER = re.compile(
    rf"""(?<![A-Za-z0-9_À-ɏ.,])(?P<sign>[-+]?)\s?[$€£¥]?(?P<value>{_PLAIN})
    (?:\s*(?:/|÷)\s*(?P<below>{_PLAIN}) | \s+(?P<over>\d+)/(?P<under>\d+))?
    (?:\s*(?:\*|x|×|·|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{{?(?P<power>-?\d+)\}}? | [eE](?P<exponent>[-+]?\d+))?
    \s*(?P<unit>万|亿|千万)?""",
    re.VERBOSE,
)
_UNITS = {"万": 10**4, "千万": 10**7, "亿": 10**8}
_LIST_MARK = re.compile(r"(?m)^[ \t]*(?:\d{1,2}[.)、]|step\s\d+:?|schritt\s\d+:?)\s+(?=\S)", re.IGNORECASE)
_POINT_GROUPS: tuple[Language, ...] = ("de", "es")
_COMMA_DECIMALS: tuple[Language, ...] = ("de", "es", "fr")
#: A longer number is no answer to any item, and arithmetic on it would cost.
_MAX_CHARS = 40


class NumberAnswer(NamedTuple):
    """A number as written.

    `alternative` is the other reading of a separator such as that of `2,500`, which languages read differently.
    """

    value: Fraction
    alternative: Fraction | None = None


def extract_number(reply: str, language: Language = "en") -> NumberAnswer | None:
    """The number that the reply commits to last; None where there is none."""
    text = fold_scripts(answer_part(reply)).replace("{,}", ",").replace("٬", "").replace("٫", ".")
    text = _FRACTION.sub(r" \1/\2", text)
    text = drop_refuted(strip_markup(text.replace("\\$", "").replace("\\%", "%")))
    text = re.sub(r"-\s+(?=/)|(?<=\d)\s*%", " ", re.sub(r"-\s+(?=\d)(?<=[=:(]\s-\s)", "-", text))
    committed = last_commitment(text)
    if committed is not None:
        found = _numbers(committed.text, language)
        if found:
            return found[-1] if "=" in committed.text else found[0]
    lines = [line for line in re.split(r"\n+|(?<=[.!?。！？؟])\s+|(?<=。)", _LIST_MARK.sub("", text)) if line.strip()]
    for line in reversed(lines):
        if "?" in line or "？" in line or "؟" in line:
            continue
        found = _numbers(line, language)
        if found:
            return found[-1]
    return None


def read_number(text: str, language: Language = "en") -> NumberAnswer | None:
    """The first number in `text`, read with the separators of `language`."""
    return next(iter(_numbers(text, language)), None)


def _numbers(text: str, language: Language) -> list[NumberAnswer]:
    found = []
    for match in _NUMBER.finditer(text):
        if len(match[0]) > _MAX_CHARS:
            continue
        value, alternative = _read_plain(match["value"], language)
        scale = Fraction(_UNITS.get(match["unit"], 1))
        power = int(match["power"] or match["exponent"] or 0)
        if abs(power) <= 30:
            scale *= Fraction(10) ** power
        if match["below"]:
            below, _ = _read_plain(match["below"], language)
            if below == 0:
                continue
            value, alternative = value / below, None
        elif match["over"] and int(match["under"]):
            value, alternative = value + Fraction(int(match["over"]), int(match["under"])), None
        if match["sign"] == "-":
            scale = -scale
        found.append(NumberAnswer(value * scale, None if alternative is None else alternative * scale))
    return found


def _read_plain(text: str, language: Language) -> tuple[Fraction, Fraction | None]:
    """Value of digits with separators, and the other reading where a single separator leaves two."""
    text = re.sub(r"[ ']", "", text)
    marks = [char for char in text if char in ".,"]
    if len(set(marks)) == 2:
        decimal = marks[-1]
        grouping = "," if decimal == "." else "."
        return Fraction(text.replace(grouping, "").replace(decimal, ".")), None
    if len(marks) > 1:
        return Fraction(re.sub(r"[.,]", "", text)), None
    if not marks:
        return Fraction(text), None
    whole, part = re.split(r"[.,]", text)
    as_decimal = Fraction(f"{whole or 0}.{part}")
    if len(part) != 3 or not 1 <= len(whole) <= 3 or whole.startswith("0"):
        return as_decimal, None
    as_group = Fraction(whole + part)
    is_group = language in _POINT_GROUPS if marks[0] == "." else language not in _COMMA_DECIMALS
    return (as_group, as_decimal) if is_group else (as_decimal, as_group)
