"""The JSON object or array a reply commits to."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from aptitude_tests.extraction.cleaning import strip_thoughts

_FENCE = re.compile(r"```[ \t]*(?P<language>\w*)[ \t]*\n(?P<body>.*?)(?:```|\Z)", re.DOTALL)
#: Braces that open no JSON; a reply with more of them is no JSON but takes long to look through.
_MAX_FAILURES = 200
_NEXT_VALUE = re.compile(r"\n\s*[\[{]")


class NotFinite(ValueError):
    """`NaN` or `Infinity`, which JSON does not know."""


def _refuse_constant(name: str) -> NoReturn:
    raise NotFinite(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def extract_json(reply: str) -> Any:
    """The last JSON object or array of the reply; None where it holds none that is valid.

    Nothing is repaired: what a strict parser refuses is of no use to a program that called the model.
    """
    text = strip_thoughts(reply)
    fenced = [match["body"] for match in _FENCE.finditer(text) if match["language"].lower() in ("", "json", "jsonc")]
    found = [value for block in fenced for value in _values(block)] or _values(text)
    objects = [value for value in found if isinstance(value, dict)]
    if found and isinstance(found[-1], list) and objects and not any(isinstance(part, dict) for part in found[-1]):
        return objects[-1]  # a list beside an object is mostly a citation such as [1]
    return found[-1] if found else None


def _values(text: str) -> list[Any]:
    found = []
    at = failures = 0
    while failures < _MAX_FAILURES and (at := _next_opening(text, at)) >= 0:
        try:
            value, at = _DECODER.raw_decode(text, at)
            found.append(value)
        except (ValueError, RecursionError):
            at = _skip_broken(text, at)
            failures += 1
    return found


def _next_opening(text: str, start: int) -> int:
    match = re.compile(r"[\[{]").search(text, start)
    return match.start() if match else -1


def _skip_broken(text: str, at: int) -> int:
    """Past a value that does not parse; parts of a broken object are not answers of their own."""
    if re.match(r"[\[{]\s*[\"{\[]", text[at : at + 20]):
        following = _NEXT_VALUE.search(text, at + 1)
        return following.start() if following and "\n\n" in text[at : following.end()] else len(text)
    return at + 1
