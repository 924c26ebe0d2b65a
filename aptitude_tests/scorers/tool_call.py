"""Tool calls: the right functions with the right arguments, or none where none is needed."""

from __future__ import annotations

import json
from typing import Any

from aptitude_tests.extraction.json_value import extract_json
from aptitude_tests.item import Item, Reply, ToolCall, Verdict
from aptitude_tests.scorers.registry import SCORERS, Scorer, judged, missing


def grade(item: Item, reply: Reply) -> Verdict:
    """Right where the calls are the gold ones, in any order.

    A call written into the text is no call: a program that asked for tools would not see it.
    """
    wanted = item.gold["calls"]
    if not reply.tool_calls:
        if wanted or not reply.text.strip():
            written = extract_json(reply.text) is not None
            return missing(reply, "the call stands in the text" if written else "no tool was called" * bool(wanted))
        return judged(True, "no call")
    shown = "; ".join(f"{call.name}({call.arguments})" for call in reply.tool_calls)
    made = []
    for call in reply.tool_calls:
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError:
            return Verdict(0.0, shown, "wrong_format", f"the arguments of {call.name} are not JSON")
        made.append({"name": call.name, "arguments": arguments})
    return judged(_canonical(made) == _canonical(wanted), shown, f"expected {json.dumps(wanted, ensure_ascii=False)}")


def _canonical(calls: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps([call["name"], _fold(call["arguments"])], sort_keys=True) for call in calls)


def _fold(value: Any) -> Any:
    """Texts without case and blanks, whole floats as integers, missing optionals as absent."""
    if isinstance(value, dict):
        return {key: _fold(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_fold(part) for part in value]
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _problem(item: Item) -> str | None:
    calls = item.gold.get("calls") if isinstance(item.gold, dict) else None
    if not isinstance(calls, list):
        return "gold needs a list `calls`, empty where no tool is to be called"
    names = {tool["function"]["name"] for tool in item.tools}
    if not names:
        return "the item offers no tools"
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("arguments"), dict):
            return f"call {call!r} has no `arguments` object"
        if call.get("name") not in names:
            return f"call {call.get('name')!r} is to none of the tools {sorted(names)}"
    return None


def _right(item: Item) -> Reply:
    calls = [ToolCall(call["name"], json.dumps(call["arguments"], ensure_ascii=False)) for call in item.gold["calls"]]
    return Reply("" if calls else "Hello!", calls)


def _wrong(item: Item) -> Reply:
    name = item.tools[0]["function"]["name"]
    return Reply("", [ToolCall(name, '{"zzz": "no such argument"}')])


SCORERS.add(
    Scorer(
        "tool_call",
        "calls of the offered tools",
        '{"calls": [{"name": ..., "arguments": {...}}]}, empty where no tool is to be called',
        grade,
        _right,
        _wrong,
        _problem,
    )
)
