"""The study's page: one self-contained HTML file with the table, the recovered shares and the Pareto fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from merge_backends.study.report import percent

STYLE = """
:root{--paper:#fff;--ink:#1b1f24;--soft:#5b6570;--faint:#e4e7eb;--line:#b9c0c8;--card:#f7f8fa;--main:#0b63b5;
--second:#d1550a;--heat:11,99,181;--miss:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--soft:#a4adb7;--faint:#2a2f36;--line:#59626d;
--card:#1b1f25;--main:#6cb4ff;--second:#ff9a57;--heat:108,180,255;--miss:#ff8a80}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}main{max-width:1280px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 8px}h2{font-size:1.2rem;margin:36px 0 4px}p{color:var(--soft);
max-width:76ch;margin:0 0 12px}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.84rem;width:100%;
font-variant-numeric:tabular-nums}th,td{text-align:right;padding:5px 8px;border-bottom:1px solid var(--faint);
white-space:nowrap}th:first-child{text-align:left;font-weight:500}thead th{color:var(--soft);font-weight:600}
.reference th,.reference td{font-style:italic}figure{margin:0 0 16px;padding:12px 14px;background:var(--card);
border:1px solid var(--faint);border-radius:8px;max-width:760px}svg{display:block;width:100%;height:auto}
svg text{font-size:12px;fill:var(--ink)}.tick{fill:var(--soft)!important}.rule{stroke:var(--faint)}
.goal{stroke:var(--soft);stroke-dasharray:4 3}.bar{stroke:var(--main);stroke-width:2;opacity:.55}.dot{fill:var(--main)}
.other{fill:var(--second)}.front{fill:none;stroke:var(--main);stroke-width:1.5}.fell{color:var(--miss)}
figcaption{font-weight:600;margin-bottom:6px}
"""


def render(report: Mapping[str, Any]) -> str:
    """The whole page as text; it loads nothing from anywhere."""
    fronts = "".join(_front(front) for front in report.get("fronts", ()))
    parts = [
        f"<header><h1>Merging study, {escape(report['date'])}</h1><p>{_lead(report)}</p></header>",
        f"<section><h2>Methods x tasks</h2><p>Test accuracy in per cent, mean of the seeds; brackets are 95 % paired "
        f"bootstrap intervals. Settings were chosen on validation rows. A method with fewer "
        f"rows was tested on the first ones, and its share is of the gap on those.</p>{_table(report)}</section>",
        "<section><h2>Share of the gap recovered</h2><p>0 is the frozen encoder with its probe, 100 the individual "
        f"experts.</p>{_shares(report['table'])}</section>",
        f"<section><h2>Pareto fronts</h2><p>Test accuracy on the first two tasks of a set, one dot per preference, "
        f"mean of the seeds.</p>{fronts}</section>"
        if fronts
        else "",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Merging study</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _lead(report: Mapping[str, Any]) -> str:
    sizes = ", ".join(
        f"seed {record['seed']}: {record['sizes']['train']} train and {record['sizes']['test']} test rows per task"
        for record in report["records"]
    )
    return escape(
        f"{len(report['tasks'])} tasks, one fully fine-tuned encoder each, frozen heads. Rows at most: {sizes}."
    )


def _table(report: Mapping[str, Any]) -> str:
    tasks = report["tasks"]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("method", *tasks))
    sizes = ("rows", "average", "recovered", "params", "memory", "disk", "merge s", "adapt s")
    head += "".join(f"<th>{name}</th>" for name in sizes)
    low = {task: min(line["accuracy"][task] for line in report["table"]) for task in tasks}
    high = {task: max(line["accuracy"][task] for line in report["table"]) for task in tasks}
    body = []
    for line in report["table"]:
        cells = []
        for task in tasks:
            value = line["accuracy"][task]
            heat = 0.35 * (value - low[task]) / max(high[task] - low[task], 1e-9)
            cells.append(f'<td style="background:rgba(var(--heat),{heat:.2f})">{100 * value:.1f}</td>')
        disk = "-" if line["disk_x"] is None else f"{line['disk_x']:.2f}x"
        fell = ' <span class="fell">fell back</span>' if any(line["fell_back"] or ()) else ""
        kind = ' class="reference"' if line["name"] in ("probe", "individual") else ""
        body.append(
            f"<tr{kind}><th>{escape(line['label'])}{fell}</th>{''.join(cells)}<td>{sum(line['test_rows'])}</td>"
            f"<td>{percent(line['average'], 2)}</td>"
            f"<td>{percent(line['recovered'], 0)}</td><td>{line['parameters_x']:.2f}x</td>"
            f"<td>{line['memory_x']:.2f}x</td><td>{disk}</td><td>{line['seconds']:.2f}</td>"
            f"<td>{line['adapt_seconds']:.0f}</td></tr>"
        )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _shares(table: Sequence[Mapping[str, Any]]) -> str:
    """One line per method: a dot at the share, a bar for its interval, dashed lines at 80 and 90 %."""
    lines = [line for line in table if line["name"] not in ("probe", "individual") and line["recovered"]["value"]]
    if not lines:
        return ""
    bounds = [float(line["recovered"][end]) for line in lines for end in ("low", "high")]
    low, high = min(0.0, *bounds), max(1.0, *bounds)
    left, width, step = 170, 540, 24

    def x(share: float) -> float:
        return left + width * (share - low) / (high - low)

    height = step * len(lines) + 30
    drawn = []
    for mark in (0.0, 0.5, 0.8, 0.9, 1.0):
        kind = "goal" if mark in (0.8, 0.9) else "rule"
        drawn.append(f'<line class="{kind}" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="4" y2="{height - 22}"/>')
        drawn.append(
            f'<text class="tick" x="{x(mark):.1f}" y="{height - 6}" text-anchor="middle">{100 * mark:.0f}</text>'
        )
    for position, line in enumerate(lines):
        y = 18 + step * position
        share = {end: float(value) for end, value in line["recovered"].items()}
        drawn.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(line["label"])}</text>')
        drawn.append(f'<line class="bar" x1="{x(share["low"]):.1f}" x2="{x(share["high"]):.1f}" y1="{y}" y2="{y}"/>')
        drawn.append(f'<circle class="dot" cx="{x(share["value"]):.1f}" cy="{y}" r="4"/>')
    return (
        f'<figure><figcaption>Recovered, per cent of probe to individual</figcaption><svg viewBox="0 0 730 {height}" '
        f'role="img" aria-label="Share recovered by method">{"".join(drawn)}</svg></figure>'
    )


def _front(front: Mapping[str, Any]) -> str:
    """Accuracy on the first two tasks for each preference, and linear task arithmetic at the same preferences."""
    pareto, linear = front["pareto"], front["linear"]
    both = [point["accuracy"] for point in (*pareto, *linear)]
    spans = [(min(each[axis] for each in both), max(each[axis] for each in both)) for axis in (0, 1)]

    def place(accuracy: Sequence[float]) -> tuple[float, float]:
        parts = [(accuracy[axis] - low) / max(high - low, 1e-9) for axis, (low, high) in enumerate(spans)]
        return 60 + 380 * parts[0], 260 - 230 * parts[1]

    dots = [
        f'<circle class="{"dot" if name == "pareto" else "other"}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        for name in ("linear", "pareto")
        for x, y in (place(point["accuracy"]) for point in front[name])
    ]
    first, second = front["tasks"][:2]
    (x_low, x_high), (y_low, y_high) = spans
    return (
        f"<figure><figcaption>{escape(' / '.join(front['tasks']))}: hypervolume {front['hypervolume']['pareto']:.5f} "
        f"(Pareto MoE) against {front['hypervolume']['linear']:.5f} (task arithmetic, orange)</figcaption>"
        f'<svg viewBox="0 0 500 300" role="img" aria-label="Accuracy on two tasks">{"".join(dots)}'
        f'<text class="tick" x="250" y="292" text-anchor="middle">{escape(first)}, {x_low:.3f} to {x_high:.3f}</text>'
        f'<text class="tick" transform="translate(16 150) rotate(-90)" text-anchor="middle">'
        f"{escape(second)}, {y_low:.3f} to {y_high:.3f}</text></svg>{_gains(front)}</figure>"
    )


def _gains(front: Mapping[str, Any]) -> str:
    """Pareto MoE minus task arithmetic at equal weights: accuracy in points, and cross-entropy.

    Once at equal preferences, once at the preference chosen on validation rows.
    """
    lines = [
        f"<tr><th>{escape(task)}, {name}</th><td>{percent(gains['accuracy'][task], 2)}</td>"
        f"<td>{_plain(gains['loss'][task])}</td></tr>"
        for name, gains in (("equal preference", front["equal_weights"]), ("chosen", front["chosen"]))
        for task in front["tasks"]
    ]
    return (
        "<table><thead><tr><th>gain over task arithmetic at equal weights</th><th>accuracy, points</th>"
        f"<th>cross-entropy</th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _plain(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
