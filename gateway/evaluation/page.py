"""The report of `orbweaver eval` as one self-contained page: accuracy over cost, and the tables behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from gateway.evaluation.figures import Run
from gateway.evaluation.report import EvalReport

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 16, 44
STYLE = """
:root{--paper:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#d5dae0;--ours:#0b63b5;--good:#0a7a50;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--soft:#a4adb7;--line:#343b44;--ours:#6cb4ff;
--good:#4fd0a4;--bad:#ff8a80}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:960px;margin:0 auto;padding:24px 20px 64px}h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.2rem;
margin:32px 0 8px}p{color:var(--soft);max-width:75ch;margin:0 0 12px}
svg{width:100%;height:auto;max-width:820px}svg text{fill:var(--ink);font-size:12px}svg .soft{fill:var(--soft)}
.axis{stroke:var(--line)}.single{fill:var(--soft)}.ours{fill:var(--ours)}.path{fill:none;stroke:var(--ours);
stroke-width:2}.whisker{stroke:var(--ours);opacity:.5;stroke-width:2}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}.good{color:var(--good)}.bad{color:var(--bad)}
"""


def write_page(report: EvalReport, path: Path) -> Path:
    """Write the page; it loads nothing from anywhere."""
    path.write_text(render(report), encoding="utf-8")
    return path


def render(report: EvalReport) -> str:
    """The page as text."""
    datasets = ", ".join(f"{count} of {name}" for name, count in report.datasets.items())
    parts = [
        f"<h1>Routing over HTTP: {len(report.models)} models, {report.prompts} prompts</h1>",
        f"<p>{escape(datasets)} ({escape(report.split)}); encoder {escape(report.artifact)}; "
        f"{escape(report.date)}, commit {escape(report.commit)}.</p>",
        "".join(f"<p><b>Note:</b> {escape(note)}</p>" for note in report.notes),
        _verdicts(report),
        "<h2>Accuracy and cost</h2>",
        "<p>Each grey dot is one model answering everything; the line is the gateway at its dial's settings, with "
        "95 % bootstrap intervals; the oracle knows every score beforehand.</p>",
        _plot(report),
        "<h2>Passes</h2>",
        _runs(report),
        "<h2>Models alone</h2>",
        _table(
            ("", "accuracy", "cost USD"),
            [(one.name, f"{one.accuracy:.4f}", _usd(one.cost_usd)) for one in report.singles],
        ),
        "<h2>Registration</h2>",
        _table(
            ("model", "suite", "calls", "seconds"),
            [(one.name, one.suite or "none recorded", str(one.calls), f"{one.seconds:.1f}") for one in report.models],
        ),
        f"<h2>Command</h2><p><code>{escape(report.command)}</code></p>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><title>Orbweaver: routing over HTTP</title><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _verdicts(report: EvalReport) -> str:
    agreement, books, grading = report.agreement, report.books, report.grading
    lines = [
        (
            agreement.agrees,
            f"HTTP equals offline: {agreement.same} of {agreement.prompts} choices the same, largest difference of p "
            f"{agreement.largest_p_difference:.1e}, accuracy {agreement.accuracy_http:.4f} and "
            f"{agreement.accuracy_offline:.4f}",
        ),
        (
            books.balanced,
            f"Books balance: {books.asked} requests, {books.decisions} decisions, {books.repeated} doubled; "
            f"ledger {books.ledger_usd:.6f} USD, expected {books.expected_usd:.6f} USD",
        ),
        (
            grading.agree >= 0.95 * grading.graded,
            f"Our own grading agrees with the recorded score on {grading.agree} of {grading.graded} answers",
        ),
    ]
    if report.faults is not None:
        run = report.faults.run
        errors = ", ".join(f"{count} {name}" for name, count in run.errors.items()) or "no error"
        lines.append(
            (
                report.faults.accounted,
                f"With a failing and hanging upstream: {run.answered} of {run.asked} answered, {errors}; "
                f"{report.faults.decisions} decisions, {report.faults.repeated} doubled",
            )
        )
    rows = (f'<li class="{"good" if good else "bad"}">{escape(text)}</li>' for good, text in lines)
    return f"<ul>{''.join(rows)}</ul>"


def _plot(report: EvalReport) -> str:
    dots = [(one.cost_usd or 0.0, one.accuracy, one.name) for one in report.singles]
    passes = sorted((run for run in report.runs if not run.stream), key=lambda run: run.cost_usd)
    spent = [cost for cost, _, _ in dots if cost > 0] + [run.cost_usd for run in passes if run.cost_usd > 0]
    if not spent:
        return "<p>No price is known, so there is nothing to plot cost by.</p>"
    heights = [accuracy for _, accuracy, _ in dots] + [run.accuracy.high for run in passes]
    low_x, high_x = math.log10(min(spent)) - 0.1, math.log10(max(spent)) + 0.1
    low_y, high_y = max(0.0, min(heights) - 0.02), min(1.0, max(heights) + 0.02)

    def x(cost: float) -> float:
        place = math.log10(max(cost, min(spent)))
        return LEFT + (place - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return HEIGHT - BOTTOM - (accuracy - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    parts = [*_axes(x, y, (low_x, high_x), (low_y, high_y))]
    for cost, accuracy, name in dots:
        parts.append(f'<circle class="single" cx="{x(cost):.1f}" cy="{y(accuracy):.1f}" r="4"/>')
        parts.append(f'<text class="soft" x="{x(cost) + 7:.1f}" y="{y(accuracy) + 4:.1f}">{escape(name)}</text>')
    points = " ".join(f"{x(run.cost_usd):.1f},{y(run.accuracy.mean):.1f}" for run in passes)
    parts.append(f'<polyline class="path" points="{points}"/>')
    for run in passes:
        at = x(run.cost_usd)
        ends = f'y1="{y(run.accuracy.low):.1f}" y2="{y(run.accuracy.high):.1f}"'
        parts.append(f'<line class="whisker" x1="{at:.1f}" x2="{at:.1f}" {ends}/>')
        parts.append(f'<circle class="ours" cx="{at:.1f}" cy="{y(run.accuracy.mean):.1f}" r="5"/>')
        parts.append(f'<text x="{at - 12:.1f}" y="{y(run.accuracy.mean) - 10:.1f}">{run.quality:g}</text>')
    label = "Accuracy over cost of single models and of the gateway"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axes(x: object, y: object, span_x: tuple[float, float], span_y: tuple[float, float]) -> Iterable[str]:
    assert callable(x)
    assert callable(y)
    base = HEIGHT - BOTTOM
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'
    yield f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{base}"/>'
    for power in range(math.floor(span_x[0]), math.ceil(span_x[1]) + 1):
        for factor in (1, 3):
            value = factor * 10.0**power
            if span_x[0] <= math.log10(value) <= span_x[1]:
                yield f'<text class="soft" x="{x(value) - 14:.1f}" y="{base + 16}">${value:g}</text>'
    for step in range(5):
        value = span_y[0] + (span_y[1] - span_y[0]) * step / 4
        yield f'<text class="soft" x="8" y="{y(value) + 4:.1f}">{value:.3f}</text>'
    yield f'<text class="soft" x="{LEFT}" y="{HEIGHT - 6}">USD for all prompts (logarithmic)</text>'


def _runs(report: EvalReport) -> str:
    head = ("dial", "accuracy", "gain on best single, points", "cost USD", "saved", "answered", "p50 / p99 ms", "picks")
    rows = [_run(run) for run in report.runs]
    if report.faults is not None:
        rows.append(("with faults, " + (cells := _run(report.faults.run))[0], *cells[1:]))
    return _table(head, rows)


def _run(run: Run) -> tuple[str, ...]:
    top = ", ".join(f"{name} {count}" for name, count in list(run.picks.items())[:4])
    return (
        f"{run.quality:g}{' stream' if run.stream else ''}",
        f"{run.accuracy.mean:.4f} [{run.accuracy.low:.4f}, {run.accuracy.high:.4f}]",
        f"{run.gain.mean:+.2f} [{run.gain.low:+.2f}, {run.gain.high:+.2f}]",
        _usd(run.cost_usd),
        "" if run.saved is None else f"{run.saved:.1%}",
        f"{run.answered}/{run.asked}",
        f"{run.p50_ms:.0f} / {run.p99_ms:.0f}",
        top,
    )


def _usd(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
