"""Python that is executed: right where all hidden tests pass, in the sandbox."""

from __future__ import annotations

import json
import math
from typing import Any

from aptitude_tests.extraction.code import extract_code
from aptitude_tests.item import Item, Reply, Verdict
from aptitude_tests.sandbox import Call, call_function
from aptitude_tests.scorers.registry import SCORERS, Scorer, judged, missing


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where the function returns the expected value for every test. Starts a process: 0.1 s and more."""
    gold = item.gold
    source = extract_code(reply.text, gold["function"])
    if source is None:
        return missing(reply)
    calls = call_function(source, gold["function"], [test["input"] for test in gold["tests"]])
    for test, call in zip(gold["tests"], calls, strict=True):
        if call.error is not None or not is_equal(call.result, test["output"]):
            return judged(False, source, _failure(gold["function"], test, call))
    return judged(True, source)


def _failure(function: str, test: dict[str, Any], call: Call) -> str:
    got = call.error if call.error is not None else json.dumps(call.result)[:80]
    shown = ", ".join(json.dumps(value)[:60] for value in test["input"])
    return f"{function}({shown}) gave {got}, expected {json.dumps(test['output'])[:80]}"


def is_equal(found: Any, expected: Any) -> bool:
    """JSON values alike: booleans are no numbers, and floats may differ in the last digits."""
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, int | float) and isinstance(expected, int | float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_equal, found, expected))
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(is_equal(found[key], expected[key]) for key in expected)
    return type(found) is type(expected) and bool(found == expected)


def _problem(item: Item) -> str | None:
    gold = item.gold
    if not isinstance(gold, dict) or not {"function", "tests"} <= gold.keys():
        return "gold needs `function` and `tests`"
    if not isinstance(gold["function"], str) or not gold["function"].isidentifier():
        return f"{gold['function']!r} is no name of a function"
    tests = gold["tests"]
    if not isinstance(tests, list) or not tests:
        return "gold has no tests"
    for test in tests:
        if not isinstance(test, dict) or "output" not in test or not isinstance(test.get("input"), list):
            return f"test {test!r} is not an `input` list with an `output`"
    return None


def _right(item: Item) -> Reply:
    return Reply(f"```python\n{item.gold['solution']}\n```" if "solution" in item.gold else "")


def _wrong(item: Item) -> Reply:
    return Reply(f"```python\ndef {item.gold['function']}(*values):\n    return 'no such value'\n```")


SCORERS.add(
    Scorer(
        "code",
        "a Python function, executed in a sandbox",
        '{"function": name, "tests": [{"input": [...], "output": ...}], "solution": optional source}',
        grade,
        _right,
        _wrong,
        _problem,
        blocks=True,
    )
)
