"""The report of `orbweaver eval` as one self-contained page: accuracy over cost, and the tables behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from gateway.evaluation.figures import Run
from gateway.evaluation.plot import cost_plot
from gateway.evaluation.report import EvalReport

LONG = 32
STYLE = """
:root{--paper:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#d5dae0;--ours:#0b63b5;--good:#0a7a50;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--soft:#a4adb7;--line:#343b44;--ours:#6cb4ff;
--good:#4fd0a4;--bad:#ff8a80}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:24px 20px 64px}h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.2rem;
margin:32px 0 8px}p{color:var(--soft);max-width:75ch;margin:0 0 12px}
svg{width:100%;height:auto;min-width:640px;max-width:860px;display:block}
svg text{fill:var(--ink);font-size:12px;paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
svg .soft,svg .name{fill:var(--soft)}svg .dial{fill:var(--ours);font-weight:600}.lead{stroke:var(--soft);opacity:.5}
.axis{stroke:var(--line)}.single{fill:var(--soft)}.ours{fill:var(--ours)}.path{fill:none;stroke:var(--ours);
stroke-width:2}.whisker{stroke:var(--ours);opacity:.5;stroke-width:2}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}td{white-space:nowrap}td.long{white-space:normal;min-width:24ch}
code{overflow-wrap:anywhere}.good{color:var(--good)}.bad{color:var(--bad)}
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
        f'<div class="scroll">{cost_plot(report.singles, report.runs)}</div>',
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
            f"Our own grading agrees with the recorded score on {grading.agree} of {grading.graded} answers"
            if grading.graded
            else "None of these answers is a letter or a number, so the recorded scores stand ungraded by us",
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


def _runs(report: EvalReport) -> str:
    head = ("dial", "accuracy", "gain on best single", "cost USD", "saved", "answered", "p50 / p99 ms", "picks")
    rows = [_run(run) for run in report.runs]
    if report.faults is not None:
        rows.append(("with faults, " + (cells := _run(report.faults.run))[0], *cells[1:]))
    return _table(head, rows)


def _run(run: Run) -> tuple[str, ...]:
    top = ", ".join(f"{name} {count}" for name, count in list(run.picks.items())[:4])
    return (
        f"{run.quality:g}{' stream' if run.stream else ''}",
        f"{run.accuracy.mean:.4f} [{run.accuracy.low:.4f}, {run.accuracy.high:.4f}]",
        f"{run.gain.mean:+.2f} [{run.gain.low:+.2f}, {run.gain.high:+.2f}] pts",
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
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    """Figures stay on one line; a list of picks may wrap."""
    return f'<td class="long">{escape(text)}</td>' if len(text) > LONG else f"<td>{escape(text)}</td>"
