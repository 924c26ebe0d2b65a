"""JSON: the value equals the gold one, and follows the schema where there is one."""

from __future__ import annotations

import json
from typing import Any

from aptitude_tests.extraction.cleaning import fold_scripts
from aptitude_tests.extraction.json_value import extract_json
from aptitude_tests.item import Item, Reply, Verdict
from aptitude_tests.scorers.registry import SCORERS, Scorer, judged, missing


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where the last JSON value of the reply follows the schema and equals the gold value."""
    found = extract_json(reply.text)
    if found is None:
        return missing(reply, "" if not reply.text.strip() else "no valid JSON in the reply")
    shown = json.dumps(found, ensure_ascii=False)
    problem = schema_problem(found, item.gold.get("schema"))
    if problem:
        return Verdict(0.0, shown, "wrong_format", problem)
    if "value" not in item.gold:
        return judged(True, shown)
    where = difference(found, item.gold["value"])
    return judged(where is None, shown, where or "")


def schema_problem(value: Any, schema: dict[str, Any] | None) -> str | None:
    """The first violation of a JSON Schema (draft 2020-12) in one line; None where there is none."""
    if schema is None:
        return None
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(value):
        return f"{error.json_path}: {error.message}"[:200]
    return None


def difference(found: Any, expected: Any, path: str = "$") -> str | None:
    """Where two JSON values differ first; texts are compared without surrounding blanks and width of characters."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if found.keys() != expected.keys():
            return f"{path}: keys {sorted(found)} instead of {sorted(expected)}"
        parts = [difference(found[key], expected[key], f"{path}.{key}") for key in expected]
        return next((part for part in parts if part), None)
    if isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            return f"{path}: {len(found)} entries instead of {len(expected)}"
        parts = [difference(found[i], expected[i], f"{path}[{i}]") for i in range(len(expected))]
        return next((part for part in parts if part), None)
    if isinstance(expected, str) and isinstance(found, str):
        same = " ".join(fold_scripts(found).split()) == " ".join(fold_scripts(expected).split())
    elif isinstance(expected, bool) or isinstance(found, bool):
        same = found is expected
    elif isinstance(expected, int | float) and isinstance(found, int | float):
        same = abs(found - expected) < 1e-9
    else:
        same = type(found) is type(expected) and found == expected
    return None if same else f"{path}: {found!r} instead of {expected!r}"[:200]


def _problem(item: Item) -> str | None:
    if not isinstance(item.gold, dict) or not {"value", "schema"} & item.gold.keys():
        return "gold needs a `value` or a `schema`"
    schema = item.gold.get("schema")
    if schema is None:
        return None
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"the schema is not valid: {error.message}"
    if "value" in item.gold:
        problem = schema_problem(item.gold["value"], schema)
        return f"the gold value breaks its own schema: {problem}" if problem else None
    return None


SCORERS.add(
    Scorer(
        "json",
        "a JSON object or array, checked against a value and a schema",
        '{"value": JSON value, "schema": JSON Schema}, at least one of them',
        grade,
        lambda item: Reply(json.dumps(item.gold["value"], ensure_ascii=False) if "value" in item.gold else ""),
        lambda item: Reply('{"zzz": "no such key"}'),
        _problem,
    )
)
