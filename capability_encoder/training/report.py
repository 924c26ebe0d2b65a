"""The evaluation page: one self-contained HTML file drawn from the JSON of `encoder evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from capability_encoder.training import report_plots as plots
from capability_encoder.training.report_schema import (
    CostCurve,
    EvaluationReport,
    Interval,
    MethodScore,
    OnboardingCurve,
    PoolResult,
    load_report,
)
from capability_encoder.training.report_style import STYLE


def write_page(report_file: Path, page: Path) -> None:
    """Render `report_file` (JSON) into `page` (HTML).

    Raises:
        ValueError: the file is not a report of this schema version.
    """
    page.write_text(render(load_report(report_file)), encoding="utf-8")


def render(report: EvaluationReport) -> str:
    """The whole page as text; it loads nothing from anywhere."""
    sections = [
        _head(report),
        _checks(report),
        _pools(report),
        _cost(report),
        _onboarding(report),
        _reliability(report),
        _methods(report),
        _provenance(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Capability encoder: evaluation of {escape(report.date)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _ours(report: EvaluationReport) -> frozenset[str]:
    return frozenset(m.name for m in report.methods if m.ours)


def _bounds(report: EvaluationReport) -> frozenset[str]:
    return frozenset(m.name for m in report.methods if m.bound)


def _series(report: EvaluationReport, names: Iterable[str]) -> dict[str, str]:
    """Colour class of each method: ours first, then in the order given; beyond the palette all are `rest`."""
    ours = _ours(report)
    unique = list(dict.fromkeys(names))
    colours = {name: "s0" for name in unique if name in ours}
    others = [name for name in unique if name not in ours]
    colours |= {name: f"s{i + 1}" if i + 1 < plots.SERIES else "rest" for i, name in enumerate(others)}
    return colours


def _head(report: EvaluationReport) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return (
        "<header><h1>Capability encoder: evaluation</h1>"
        f"<p class=lead>{escape(report.date)}. Every method sees the same prompt vectors and the same folds, is "
        "tuned on dev and measured once on test. Bars are 95 % paired bootstrap intervals.</p>"
        f"{f'<ul>{notes}</ul>' if notes else ''}</header>"
    )


def _section(title: str, intro: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(intro)}</p>{body}</section>"


def _figure(caption: str, drawing: str, detail: str = "", *, wide: bool = False) -> str:
    kind = " class=wide" if wide else ""
    return f"<figure{kind}><figcaption>{escape(caption)}</figcaption>{drawing}{detail}</figure>"


def _legend(series: dict[str, str]) -> str:
    shown = [(name, kind) for name, kind in series.items() if kind != "rest"]
    items = [f'<li><i class="key {kind}"></i>{escape(plots.label_of(name))}</li>' for name, kind in shown]
    if len(shown) < len(series):
        items.append('<li><i class="key rest"></i>all others</li>')
    return f"<ul class=legend>{''.join(items)}</ul>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, marked: Sequence[bool] = ()) -> str:
    """Rows of ready HTML cells; the first column is a row header."""
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in header)
    lines = []
    for place, row in enumerate(rows):
        cells = "".join(f"<td>{cell}</td>" for cell in row[1:])
        mark = ' class="mine"' if place < len(marked) and marked[place] else ""
        lines.append(f"<tr{mark}><th scope=row>{row[0]}</th>{cells}</tr>")
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _checks(report: EvaluationReport) -> str:
    if not report.checks:
        return ""
    rows = [
        [
            escape(check.name),
            escape(check.wanted),
            escape(check.measured),
            '<span class="met">met</span>' if check.met else '<span class="missed">missed</span>',
        ]
        for check in report.checks
    ]
    met = sum(check.met for check in report.checks)
    table = _table(["bar", "wanted", "measured", ""], rows)
    return _section("Bars", f"{met} of {len(report.checks)} are met.", table)


def _pools(report: EvaluationReport) -> str:
    if not report.pools:
        return ""
    ours, bounds = _ours(report), _bounds(report)
    figures = [
        _figure(
            f"{pool.pool}: {pool.title}",
            plots.forest_plot(pool, ours=ours, bounds=bounds),
            f"<p class=small>{len(pool.models)} models, {pool.prompts:,} prompts. Best single: "
            f"{escape(pool.best_single)}, {pool.best_single_accuracy:.1f} %; oracle {pool.oracle_accuracy:.1f} %.</p>"
            f"<details><summary>Table</summary>{_pool_table(pool, ours)}</details>",
        )
        for pool in report.pools
    ]
    intro = (
        "Routed accuracy minus the best single model (chosen on train), in points. Methods under the rule know what no "
        "router knows (true task or outcomes). An arrow marks a value beyond the axis."
    )
    return _section("Gain per pool", intro, f"<div class=grid>{''.join(figures)}</div>")


def _optional(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else format(value, form)


def _interval(value: Interval | None) -> str:
    if value is None:
        return "–"
    if value.low is None or value.high is None:
        return plots.signed(value.estimate)
    return f"{plots.signed(value.estimate)} <small>[{plots.signed(value.low)}, {plots.signed(value.high)}]</small>"


def _pool_table(pool: PoolResult, ours: frozenset[str]) -> str:
    ranked = sorted(pool.scores, key=lambda s: -s.gain.estimate)

    def row(score: MethodScore) -> list[str]:
        return [
            escape(plots.label_of(score.method)),
            f"{score.routed.estimate:.2f}",
            _interval(score.gain),
            _optional(score.brier),
            _optional(score.auc_within_prompt, ".3f"),
            _optional(score.calibration_error, ".3f"),
        ]

    header = ["method", "accuracy", "gain", "Brier", "AUC in prompt", "cal. error"]
    return _table(header, [row(s) for s in ranked], marked=[s.method in ours for s in ranked])


def _cost(report: EvaluationReport) -> str:
    if not report.cost_curves:
        return ""
    ranked = sorted(report.cost_curves, key=lambda c: -(c.aiq.estimate if c.aiq else 0.0))
    bounds = _bounds(report)
    named = [c.method for c in ranked if c.method not in bounds] + [c.method for c in ranked if c.method in bounds]
    series = _series(report, named)
    figures = []
    for pool in dict.fromkeys(curve.pool for curve in report.cost_curves):
        curves = [curve for curve in ranked if curve.pool == pool]
        drawn = [curve for curve in curves if curve.method not in bounds]  # the oracle would flatten all others
        drawing = plots.cost_plot(drawn or curves, [s for s in report.singles if s.pool == pool], series)
        figures.append(_figure(pool, drawing))
        table = _cost_table(curves, _ours(report))
        figures.append(
            _figure(f"{pool}: area under the curve and savings at the penalty chosen on dev", table, wide=True)
        )
    intro = (
        "The cost dial swept from quality at any price to the cheapest model. Grey dots are single models. The plot "
        "shows the top 12 points of quality. Up and to the left is better."
    )
    shown = {name: kind for name, kind in series.items() if name not in bounds}
    body = f"{_legend(shown)}<div class=grid>{''.join(figures)}</div>"
    return _section("Cost against quality", intro, body)


def _cost_table(curves: Sequence[CostCurve], ours: frozenset[str]) -> str:
    def interval(value: Interval | None, digits: int) -> str:
        if value is None:
            return "–"
        extent = "" if value.low is None or value.high is None else f"[{value.low:.{digits}f}, {value.high:.{digits}f}]"
        return f"{value.estimate:.{digits}f} <small>{extent}</small>"

    rows = [
        [
            escape(plots.label_of(curve.method)),
            interval(curve.aiq, 2),
            interval(curve.saved_percent, 1),
            interval(curve.quality_lost, 2),
        ]
        for curve in curves
    ]
    return _table(["method", "AIQ", "cost saved, %", "points lost"], rows, marked=[c.method in ours for c in curves])


def _onboarding(report: EvaluationReport) -> str:
    if not report.onboarding:
        return ""
    series = _series(report, [curve.method for curve in sorted(report.onboarding, key=_last_brier)])
    figures = []
    for population in dict.fromkeys(curve.population for curve in report.onboarding):
        curves = [curve for curve in report.onboarding if curve.population == population]
        drawing = plots.onboarding_plot(curves, series)
        table = f"<details><summary>Table</summary>{_onboarding_table(curves, _ours(report))}</details>"
        figures.append(_figure(population, drawing, table))
    intro = (
        "Models that training never saw, known by a few aptitude answers only: Brier score on new prompts. Methods "
        "that need more answers than shown leave the plot at the top."
    )
    return _section("A new model joins", intro, f"{_legend(series)}<div class=grid>{''.join(figures)}</div>")


def _last_brier(curve: OnboardingCurve) -> float:
    return max(curve.points, key=lambda p: p.answers).brier.estimate if curve.points else 1.0


def _onboarding_table(curves: Sequence[OnboardingCurve], ours: frozenset[str]) -> str:
    counts = sorted({p.answers for c in curves for p in c.points})
    rows = []
    for curve in sorted(curves, key=_last_brier):
        by_count = {p.answers: p.brier.estimate for p in curve.points}
        rows.append([escape(plots.label_of(curve.method)), *(_optional(by_count.get(count)) for count in counts)])
    marked = [c.method in ours for c in sorted(curves, key=_last_brier)]
    return _table(["method", *(f"{count:,}" for count in counts)], rows, marked=marked)


def _reliability(report: EvaluationReport) -> str:
    if not report.reliability:
        return ""
    ours = _ours(report)
    figures = [
        _figure(
            f"{plots.label_of(diagram.method)}: {diagram.population}",
            plots.reliability_plot(diagram, "s0" if diagram.method in ours else "s1"),
        )
        for diagram in sorted(report.reliability, key=lambda d: d.method not in ours)
    ]
    intro = "Predicted probability against the share that was right, in equal-mass bins; on the diagonal is honest."
    return _section("Calibration", intro, f"<div class=grid>{''.join(figures)}</div>")


def _methods(report: EvaluationReport) -> str:
    rows = [
        [
            escape(plots.label_of(m.name)),
            escape(m.summary),
            escape(m.paper or "–"),
            escape(", ".join(f"{key} {value}" for key, value in m.params.items()) or "–"),
            "–" if m.fit_seconds is None else f"{m.fit_seconds:.1f} s",
        ]
        for m in report.methods
    ]
    table = _table(["method", "what it is", "source", "setting chosen on dev", "fit"], rows)
    table = table.replace("<table>", '<table class="wide">')
    return _section("Methods", "One registry, one contract.", table)


def _provenance(report: EvaluationReport) -> str:
    facts = {
        "command": f"<code>{escape(report.command)}</code>",
        "commit": escape(report.commit),
        "machine": escape(report.machine),
        "seed": str(report.seed),
        "artefact": escape(report.artifact or "–"),
        **{f"data: {escape(name)}": f"<code>{escape(value[:16])}</code>" for name, value in report.data.items()},
    }
    lines = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f"<section><h2>How to run it again</h2><dl>{lines}</dl></section>"
