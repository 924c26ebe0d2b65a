"""Accuracy over cost as SVG: single models as points, the gateway's settings as a line with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from gateway.evaluation.figures import Run, Single
from gateway.evaluation.labels import Box, Label, Point, place_labels, segment_boxes

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 16, 44
# Settings this near to each other (pixels) share one label.
SAME_PX = 4.0
Scale = Callable[[float], float]


def cost_plot(singles: Sequence[Single], runs: Sequence[Run]) -> str:
    """The plot, or a sentence where no price is known. Streamed runs are left out: they choose as unary ones do."""
    passes = sorted((run for run in runs if not run.stream), key=lambda run: (run.cost_usd, run.quality))
    spent = [one.cost_usd for one in singles if one.cost_usd] + [run.cost_usd for run in passes if run.cost_usd > 0]
    if not spent:
        return "<p>No price is known, so there is nothing to plot cost by.</p>"
    heights = [one.accuracy for one in singles] + [
        edge for run in passes for edge in (run.accuracy.low, run.accuracy.high)
    ]
    span_x = (math.log10(min(spent)) - 0.08, math.log10(max(spent)) + 0.08)
    span_y = (max(0.0, min(heights) - 0.02), min(1.0, max(heights) + 0.02))

    def x(cost: float) -> float:
        place = math.log10(max(cost, min(spent)))
        return LEFT + (place - span_x[0]) / (span_x[1] - span_x[0]) * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return HEIGHT - BOTTOM - (accuracy - span_y[0]) / (span_y[1] - span_y[0]) * (HEIGHT - TOP - BOTTOM)

    ours = _settings([(x(run.cost_usd), y(run.accuracy.mean), f"{run.quality:g}") for run in passes])
    dots = [Point(x(one.cost_usd or 0.0), y(one.accuracy), one.name) for one in singles]
    whiskers = [(x(run.cost_usd), y(run.accuracy.low), y(run.accuracy.high)) for run in passes]
    lines = [box for at, low, high in whiskers for box in segment_boxes((at, low), (at, high))]
    for one, next_one in itertools.pairwise(ours):
        lines += segment_boxes((one.x, one.y), (next_one.x, next_one.y))
    labels = place_labels([*ours, *dots], Box(LEFT + 2, 2, WIDTH - 2, HEIGHT - BOTTOM - 2), lines)
    parts = [*_axes(x, y, span_x, span_y)]
    parts.append(f'<polyline class="path" points="{" ".join(f"{one.x:.1f},{one.y:.1f}" for one in ours)}"/>')
    parts += [
        f'<line class="whisker" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        for at, low, high in whiskers
    ]
    parts += [f'<circle class="single" cx="{dot.x:.1f}" cy="{dot.y:.1f}" r="4"/>' for dot in dots]
    parts += [f'<circle class="ours" cx="{one.x:.1f}" cy="{one.y:.1f}" r="5"/>' for one in ours]
    for label in labels:
        parts += _label(label, "name" if label.point in dots else "dial")
    title = "Accuracy over cost of single models and of the gateway"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _settings(found: Sequence[tuple[float, float, str]]) -> list[Point]:
    """The dial's settings as points; those that came out at one place are one point with all their names."""
    points: list[Point] = []
    for x, y, name in found:
        last = points[-1] if points else None
        if last is not None and abs(last.x - x) <= SAME_PX and abs(last.y - y) <= SAME_PX:
            names = sorted([*last.name.split(", "), name], key=float)
            points[-1] = Point(last.x, last.y, ", ".join(names), last.radius)
        else:
            points.append(Point(x, y, name, 6.0))
    return points


def _label(label: Label, kind: str) -> Iterator[str]:
    point = label.point
    if label.led:
        yield (
            f'<line class="lead" x1="{point.x:.1f}" y1="{point.y:.1f}" x2="{label.x:.1f}" '
            f'y2="{(label.box.top + label.box.bottom) / 2:.1f}"/>'
        )
    place = f'x="{label.x:.1f}" y="{label.y:.1f}" text-anchor="{label.anchor}"'
    yield f'<text class="{kind}" {place}>{escape(point.name)}</text>'


def _axes(x: Scale, y: Scale, span_x: tuple[float, float], span_y: tuple[float, float]) -> Iterator[str]:
    base = HEIGHT - BOTTOM
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'
    yield f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{base}"/>'
    # Every power of ten, and the threes between them while there is room.
    factors = (1, 3) if span_x[1] - span_x[0] <= 4 else (1,)
    for power in range(math.floor(span_x[0]), math.ceil(span_x[1]) + 1):
        for value in (factor * 10.0**power for factor in factors):
            if span_x[0] <= math.log10(value) <= span_x[1]:
                yield f'<text class="soft" x="{x(value):.1f}" y="{base + 16}" text-anchor="middle">${value:g}</text>'
    for value in _round_steps(*span_y):
        yield f'<text class="soft" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0%}</text>'
    yield f'<text class="soft" x="{LEFT}" y="{HEIGHT - 6}">USD for all prompts (logarithmic)</text>'


def _round_steps(low: float, high: float) -> list[float]:
    """Round values in a span of shares: about five, at least whole hundredths apart."""
    step = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 7), 0.25)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
