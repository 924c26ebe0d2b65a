"""Figures, the table that shows them beside their bars, and the dated JSON with machine and commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Options:
    """`full` measures longer: 200,000 requests for the growth of memory."""

    full: bool = False

    def scaled(self, quick: int, full: int) -> int:
        """A number of repetitions."""
        return full if self.full else quick


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    `bar` is the worst value that is good enough (the least one where `more_is_better`); `relay` is the bare relay's
    value in the same run, `direct` that of the upstream alone.
    """

    name: str
    value: float
    unit: str
    bar: float | None = None
    relay: float | None = None
    direct: float | None = None
    more_is_better: bool = False
    note: str = ""

    @property
    def is_good(self) -> bool | None:
        """Whether the bar is kept; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.more_is_better else self.value <= self.bar

    @property
    def ratio(self) -> float | None:
        """Our value over the bare relay's."""
        return self.value / self.relay if self.relay else None


def table(figures: Sequence[Figure]) -> str:
    """The figures as text, a row each."""
    head = ("what", "value", "unit", "bar", "", "bare relay", "ratio", "direct", "note")
    rows = [head]
    for each in figures:
        verdict = {True: "ok", False: "MISSED", None: ""}[each.is_good]
        bar = "" if each.bar is None else f"{'>=' if each.more_is_better else '<='} {each.bar:g}"
        shown = (_number(each.relay), _number(each.ratio), _number(each.direct))
        rows.append((each.name, _number(each.value), each.unit, bar, verdict, *shown, each.note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def commit() -> str:
    """The commit that was measured; `+` says that the tree differs from it."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "gateway", "tests/bench")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def write(folder: Path, options: Options, figures: Sequence[Figure], notes: Sequence[str], **more: Any) -> Path:
    """Write everything of a run as JSON; gives the file."""
    folder.mkdir(parents=True, exist_ok=True)
    at = time.gmtime()
    path = folder / f"{time.strftime('%Y%m%dT%H%M%SZ', at)}-{commit().rstrip('+')}.json"
    content = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", at),
        "commit": commit(),
        "mode": "full" if options.full else "quick",
        "figures": [{**asdict(each), "ratio": each.ratio, "is_good": each.is_good} for each in figures],
        "notes": list(notes),
        **more,
    }
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    return path
