"""Plots of the evaluation page as inline SVG: text in, text out, no plotting library, colours by CSS class.

Every plot is about 380 units wide, so that it is drawn near its natural size on a phone and in a grid on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from capability_encoder.training.report_schema import (
    CostCurve,
    Interval,
    MethodScore,
    OnboardingCurve,
    PoolResult,
    Reliability,
    SingleModel,
)

WIDTH = 380
#: Points of quality below the best that the cost plot shows; what lies deeper would flatten the rest.
_SHOWN_POINTS = 12.0
#: Series classes `s0` (ours) to `s6`, then `rest`; the page's style sheet gives each its colour.
SERIES = 7


@dataclass(frozen=True, slots=True)
class Scale:
    """Linear or logarithmic map of values `low..high` to pixels `start..end`; values outside are clamped."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._axis(self.low), self._axis(self.high)
        share = (self._axis(min(max(value, self.low), self.high)) - low) / ((high - low) or 1.0)
        return self.start + share * (self.end - self.start)

    def _axis(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.logarithmic else value

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the range."""
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            values = [m * 10.0**e for e in range(first, last + 1) for m in ((1, 2, 5) if last - first <= 3 else (1,))]
            return [value for value in values if self.low <= value <= self.high]
        raw = (self.high - self.low) / max(about, 1)
        if raw <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Short decimal form: `0.25`, `12`, `1,000`."""
    if value != 0 and abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def signed(value: float) -> str:
    """Points with a sign and a real minus."""
    return f"{value:+.2f}".replace("-", "\u2212")


_SPELLINGS = {
    "kmeans": "k-means",
    "knn": "kNN",
    "mlp": "MLP",
    "eb": "EB",
    "routerdc": "RouterDC",
    "model sat": "Model-SAT",
    "model spider": "Model Spider",
}


def label_of(name: str) -> str:
    """A method's name for people: `kmeans_table_eb` is `k-means table EB`."""
    words = f" {name.replace('_', ' ')} "
    for plain, proper in _SPELLINGS.items():
        words = words.replace(f" {plain} ", f" {proper} ")
    return words.strip()


def _text(x: float, y: float, text: str, classes: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{classes}"/>'


def _svg(height: float, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def _interval_title(name: str, interval: Interval, unit: str = "") -> str:
    extent = (
        "" if interval.low is None or interval.high is None else f" [{signed(interval.low)}, {signed(interval.high)}]"
    )
    return f"<title>{escape(label_of(name))}: {signed(interval.estimate)}{extent}{unit}</title>"


def forest_plot(pool: PoolResult, *, ours: frozenset[str], bounds: frozenset[str]) -> str:
    """Gain over the best single model with its interval, one row per method, best first, bounds at the foot."""
    ranked = sorted((s for s in pool.scores if s.method not in bounds), key=lambda s: -s.gain.estimate)
    rows = ranked + sorted((s for s in pool.scores if s.method in bounds), key=lambda s: -s.gain.estimate)
    extent = _forest_extent(ranked)
    scale = Scale(-extent, extent, 158, 330)
    top, step = 24.0, 19.0
    foot = top + step * len(rows)
    body = [_line(scale(t), top - 6, scale(t), foot, "zero" if t == 0 else "grid") for t in scale.ticks(4)]
    body += [_text(scale(t), foot + 14, _tick(t), "tick", "middle") for t in scale.ticks(4)]
    body.append(_text(scale(0), top - 12, "best single", "tick", "middle"))
    if 0 < len(ranked) < len(rows):
        edge = top + step * len(ranked) - 3
        body.append(_line(4, edge, WIDTH - 4, edge, "rule"))
    for place, score in enumerate(rows):
        y = top + step * place + 8
        kind = "s0" if score.method in ours else ("bound" if score.method in bounds else "rest")
        body.append(_forest_row(score, scale, y, kind))
    return _svg(foot + 22, f"gain over the best single model on {pool.title}", body)


def _tick(points: float) -> str:
    return f"{points:+g}".replace("-", "\u2212") if points else "0"


def _forest_extent(scores: Sequence[MethodScore]) -> float:
    """Half-width of the axis: wide enough for all but hopeless methods, which get an arrow instead."""
    reach = sorted(max(abs(s.gain.low or s.gain.estimate), abs(s.gain.high or s.gain.estimate)) for s in scores)
    usual = reach[int(0.75 * (len(reach) - 1))] if reach else 1.0
    return max(1.0, math.ceil(usual * 1.1 * 2) / 2)


def _forest_row(score: MethodScore, scale: Scale, y: float, kind: str) -> str:
    gain = score.gain
    parts = [_text(150, y + 4, label_of(score.method), f"name {kind}", "end")]
    if scale.low <= gain.estimate <= scale.high:
        if gain.low is not None and gain.high is not None:
            parts.append(_line(scale(gain.low), y, scale(gain.high), y, f"whisker {kind}"))
        parts.append(f'<circle cx="{scale(gain.estimate):.1f}" cy="{y:.1f}" r="4" class="dot {kind}"/>')
    else:
        right = gain.estimate > 0
        x, back = (scale.end, -7.0) if right else (scale.start, 7.0)
        parts.append(f'<path d="M{x:.1f} {y:.1f}l{back} -4v8z" class="dot {kind}"/>')
    parts.append(_text(WIDTH - 4, y + 4, signed(gain.estimate), f"value {kind}", "end"))
    return f"<g>{_interval_title(score.method, gain, ' points')}{''.join(parts)}</g>"


@dataclass(frozen=True, slots=True)
class _Frame:
    """A plot area with two axes."""

    x: Scale
    y: Scale

    def draw(self, x_title: str, y_title: str, show: Callable[[float], str] = number) -> list[str]:
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        body = [_line(left, self.y(t), right, self.y(t), "grid") for t in self.y.ticks()]
        body += [_text(left - 6, self.y(t) + 4, show(t), "tick", "end") for t in self.y.ticks()]
        last = -1e9
        for tick in self.x.ticks():
            place = self.x(tick)
            if place - last < 34:  # labels would touch
                continue
            last = place
            body.append(_line(place, bottom, place, bottom + 4, "rule"))
            body.append(_text(place, bottom + 17, show(tick), "tick", "middle"))
        body.append(_line(left, bottom, right, bottom, "rule"))
        body.append(_text((left + right) / 2, bottom + 34, x_title, "axis", "middle"))
        body.append(_text(left - 34, top - 10, y_title, "axis"))
        return body


def _padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low or abs(high) or 1.0) * share
    return low - pad, high + pad


def _path(points: Sequence[tuple[float, float]], classes: str, title: str) -> str:
    steps = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    return f'<path d="{steps}" class="line {classes}"><title>{escape(title)}</title></path>'


def cost_plot(curves: Sequence[CostCurve], singles: Sequence[SingleModel], series: dict[str, str]) -> str:
    """Quality (percent) against cost (USD per thousand prompts, logarithmic); dots are single models."""
    paths = {curve.method: _upper(curve) for curve in curves}
    best = max([q for path in paths.values() for _, q in path] + [s.quality for s in singles])
    floor = best - _SHOWN_POINTS
    shown = [point for path in paths.values() for point in path if point[1] >= floor]
    shown += [(s.cost, s.quality) for s in singles if s.quality >= floor]
    costs = [max(cost, 1e-6) for cost, _ in shown]
    y_low, y_high = _padded([max(floor, min(q for _, q in shown)), best])
    frame = _Frame(Scale(min(costs) / 1.2, max(costs) * 1.15, 46, 370, logarithmic=True), Scale(y_low, y_high, 250, 26))
    body = frame.draw("cost, USD per 1,000 prompts", "answered well, %")
    for single in singles:
        if single.quality < y_low:
            continue
        x, y = frame.x(single.cost), frame.y(single.quality)
        tip = f"<title>{escape(single.model)}: {single.quality:.1f} % at {number(single.cost)} USD</title>"
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="single">{tip}</circle>')
    for curve in sorted(curves, key=lambda c: series.get(c.method, "rest") == "s0"):
        path = [(frame.x(cost), frame.y(quality)) for cost, quality in paths[curve.method] if quality >= y_low]
        if not path:
            continue
        body.append(_path(path, series.get(curve.method, "rest"), label_of(curve.method)))
    return _svg(294, "cost against quality", body)


def _upper(curve: CostCurve) -> list[tuple[float, float]]:
    """Points of the sweep by rising cost, without those that cost more for less."""
    kept: list[tuple[float, float]] = []
    for point in sorted(curve.points, key=lambda p: (p.cost, -p.quality)):
        if not kept or point.quality > kept[-1][1]:
            kept.append((max(point.cost, 1e-6), point.quality))
    return kept


def reliability_plot(diagram: Reliability, kind: str) -> str:
    """Share of right answers against predicted probability; a dot's area grows with its bin's mass."""
    frame = _Frame(Scale(0, 1, 46, 340), Scale(0, 1, 250, 26))
    body = frame.draw("predicted probability", "share that was right")
    body.append(_line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "diagonal"))
    total = sum(b.count for b in diagram.bins) or 1
    points = [(frame.x(b.predicted), frame.y(b.observed)) for b in diagram.bins]
    if points:
        body.append(_path(points, kind, label_of(diagram.method)))
    for place, cell in zip(points, diagram.bins, strict=True):
        radius = 3 + 4 * math.sqrt(cell.count / total)
        tip = f"<title>predicted {cell.predicted:.3f}, right {cell.observed:.3f}, {cell.count:,} pairs</title>"
        body.append(
            f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius:.1f}" class="dot {kind}">{tip}</circle>'
        )
    body.append(_text(334, 232, f"calibration error {diagram.error:.3f}", "note", "end"))
    if diagram.coverage_90 is not None:
        body.append(_text(334, 216, f"90 % intervals hold {100 * diagram.coverage_90:.0f} %", "note", "end"))
    return _svg(294, f"reliability of {label_of(diagram.method)}, {diagram.population}", body)


def onboarding_plot(curves: Sequence[OnboardingCurve], series: dict[str, str]) -> str:
    """Brier score (lower is better) against the number of aptitude answers, with intervals for ours."""
    counts = sorted({p.answers for c in curves for p in c.points})
    usual = [p.brier.estimate for c in curves for p in c.points]
    best = min(usual)
    ceiling = min(max(usual), best + 4 * (sorted(usual)[len(usual) // 2] - best) + 0.004)
    y_low, y_high = _padded([best, ceiling])
    places = {count: 60 + (350 - 60) * i / max(len(counts) - 1, 1) for i, count in enumerate(counts)}
    frame = _Frame(Scale(0, 1, 52, 366), Scale(y_low, y_high, 250, 26))
    body = [_line(52, frame.y(t), 366, frame.y(t), "grid") for t in frame.y.ticks()]
    body += [_text(46, frame.y(t) + 4, f"{t:.3f}", "tick", "end") for t in frame.y.ticks()]
    body += [_text(places[c], 267, f"{c:,}", "tick", "middle") for c in counts]
    body += [_line(52, 250, 366, 250, "rule"), _text(209, 284, "aptitude answers known of the model", "axis", "middle")]
    body.append(_text(12, 16, "Brier score (lower is better)", "axis"))
    for curve in sorted(curves, key=lambda c: series.get(c.method, "rest") == "s0"):
        kind = series.get(curve.method, "rest")
        points = sorted(curve.points, key=lambda p: p.answers)
        for p in points:
            # bars of one method only: all intervals share the same prompts, and side by side they only hide the lines
            if kind == "s0" and p.brier.low is not None and p.brier.high is not None and p.brier.low <= y_high:
                x = places[p.answers]
                body.append(_line(x, frame.y(p.brier.low), x, frame.y(p.brier.high), f"whisker {kind}"))
        body.append(
            _path([(places[p.answers], frame.y(p.brier.estimate)) for p in points], kind, label_of(curve.method))
        )
        for p in points:
            shape = (
                f'<circle cx="{places[p.answers]:.1f}" cy="{frame.y(p.brier.estimate):.1f}" r="3.5" class="dot {kind}">'
            )
            tip = f"<title>{escape(label_of(curve.method))}, {p.answers} answers: {p.brier.estimate:.4f}</title>"
            body.append(f"{shape}{tip}</circle>")
    return _svg(294, "Brier score against the number of aptitude answers", body)
