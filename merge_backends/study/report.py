"""From the records of one or several seeds to the table: methods x tasks, intervals, sizes, seconds."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from merge_backends.errors import MergeError
from merge_backends.study.evaluate import Correct, Interval, accuracies, bootstrap_difference, compare, from_lists

SCHEMA = 2
REFERENCES = ("probe", "individual")
LABELS = {
    "probe": "frozen encoder + probe",
    "individual": "individual experts",
    "linear": "simple average",
    "task_arithmetic": "task arithmetic",
    "ties": "TIES",
    "dare_linear": "DARE (sum, p .9)",
    "dare_ties": "DARE (TIES, p .5)",
    "fisher": "Fisher",
    "regmean": "RegMean",
    "adamerging_task": "AdaMerging, task-wise",
    "adamerging": "AdaMerging, layer-wise",
    "smile": "SMILE",
    "wemoe": "WEMoE, entropy",
    "wemoe_labels": "WEMoE, labels",
    "wemoe_unseen": "WEMoE, labels of unseen rows",
    "wemoe_task": "WEMoE, told the task",
    "e_wemoe": "E-WEMoE, entropy",
    "e_wemoe_labels": "E-WEMoE, labels",
    "e_wemoe_unseen": "E-WEMoE, labels of unseen rows",
    "e_wemoe_task": "E-WEMoE, told the task",
}


def make_report(records: Sequence[Mapping[str, Any]], *, date: str | None = None) -> dict[str, Any]:
    """The report of these records, ready for JSON; rows that some record lacks are averaged over those that have it.

    Raises:
        MergeError: no record, or records of other tasks.
    """
    if not records:
        raise MergeError("A report needs at least one record.")
    tasks = list(records[0]["tasks"])
    for record in records:
        if list(record["tasks"]) != tasks:
            raise MergeError(f"The records hold other tasks: {tasks} and {list(record['tasks'])}.")
    names = list(dict.fromkeys(row["name"] for record in records for row in record["rows"]))
    return {
        "schema": SCHEMA,
        "date": date or datetime.datetime.now(datetime.UTC).date().isoformat(),
        "tasks": tasks,
        "seeds": [record["seed"] for record in records],
        "table": [_line(name, records) for name in names],
        "records": list(records),
    }


def _line(name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row of the table over all records that have it."""
    runs = [{row["name"]: row for row in record["rows"]} for record in records]
    runs = [run for run in runs if name in run]
    own, probe, individual = ([_correct(run[each]) for run in runs] for each in (name, *REFERENCES))
    compared = compare(own, probe, individual)
    last = [run[name] for run in runs]
    against = None
    if name not in REFERENCES and all("task_arithmetic" in run for run in runs):
        against = bootstrap_difference(own, [_correct(run["task_arithmetic"]) for run in runs])
    return {
        "name": name,
        "label": LABELS.get(name, name),
        "seeds": len(runs),
        "test_rows": [sum(len(rows) for rows in each.values()) for each in own],
        "accuracy": {task: round(sum(accuracies(each)[task] for each in own) / len(own), 4) for task in own[0]},
        "average": _rounded(compared.average),
        "recovered": None if name == "probe" else _rounded(compared.recovered),
        "over_task_arithmetic": None if against is None else _rounded(against),
        "by_seed": [round(sum(accuracies(each).values()) / len(each), 4) for each in own],
        "parameters_x": round(last[0]["parameters"] / runs[0]["probe"]["parameters"], 3),
        "memory_x": round(last[0]["nbytes"] / runs[0]["probe"]["nbytes"], 3),
        "disk_x": round(last[0]["disk"] / runs[0]["probe"]["nbytes"], 3) if last[0].get("disk") else None,
        "seconds": round(sum(row["seconds"] for row in last) / len(last), 2),
        "adapt_seconds": round(sum(row["adapt_seconds"] for row in last) / len(last), 1),
        "settings": [row["settings"] for row in last],
        "fell_back": [bool(row["notes"].get("fell_back")) for row in last] if last[0]["notes"] else None,
    }


def _correct(row: Mapping[str, Any]) -> Correct:
    return from_lists(row["correct"])


def _rounded(interval: Interval) -> dict[str, float | None]:
    return {key: None if value != value else round(value, 4) for key, value in asdict(interval).items()}


def load_report(path: Path) -> dict[str, Any]:
    """A report written earlier; its records, and those of its fronts, can be joined.

    Raises:
        MergeError: the file is no report of this schema.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise MergeError(f"{path} cannot be read as a report: {error}.") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise MergeError(f"{path} is not a report of schema {SCHEMA}.", "Make it with `orbweaver merge bench`.")
    return found


def as_markdown(report: Mapping[str, Any]) -> str:
    """The table as FusionBench prints it, in Markdown; accuracies in per cent."""
    head = ["method", *report["tasks"], "rows", "average", "recovered", "params", "memory", "merge s", "adapt s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for line in report["table"]:
        cells = [line["label"], *(f"{100 * line['accuracy'][task]:.1f}" for task in report["tasks"])]
        cells.append(str(sum(line["test_rows"])))
        cells += [percent(line["average"], 2), percent(line["recovered"], 0), f"{line['parameters_x']:.2f}x"]
        cells += [f"{line['memory_x']:.2f}x", f"{line['seconds']:.2f}", f"{line['adapt_seconds']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def percent(interval: Mapping[str, float | None] | None, digits: int) -> str:
    """An interval in per cent: "84.4 [83.1, 85.6]"."""
    if interval is None or any(value is None for value in interval.values()):
        return "-"
    value, low, high = (100 * float(interval[key] or 0.0) for key in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
