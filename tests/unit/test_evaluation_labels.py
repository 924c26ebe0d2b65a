"""Names of points in the plot of `orbweaver eval`: inside, apart from each other, and near their points."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from gateway.evaluation.figures import Interval, Run, Single
from gateway.evaluation.labels import Box, Label, Point, place_labels, segment_boxes
from gateway.evaluation.plot import cost_plot

BOUNDS = Box(0, 0, 760, 400)


def crowd(seed: int, count: int) -> list[Point]:
    draw = Random(seed)
    return [Point(draw.uniform(40, 720), draw.uniform(20, 380), "m" * draw.randint(4, 26)) for _ in range(count)]


def run(quality: float, accuracy: float, cost_usd: float) -> Run:
    interval = Interval(mean=accuracy, low=accuracy - 0.05, high=accuracy + 0.05)
    return Run(
        quality=quality,
        stream=False,
        asked=1,
        answered=1,
        errors={},
        accuracy=interval,
        gain=interval,
        cost_usd=cost_usd,
        saved=None,
        picks={},
        as_recorded=1,
        seconds=1,
        p50_ms=1,
        p99_ms=1,
    )


def test_a_lone_point_has_its_name_to_the_right() -> None:
    (label,) = place_labels([Point(100, 100, "small")], BOUNDS)
    assert (label.anchor, label.led) == ("start", False)
    assert label.x > 100


def test_at_the_right_edge_the_name_goes_to_the_left() -> None:
    (label,) = place_labels([Point(755, 200, "gpt-4o-2024-05-13")], BOUNDS)
    assert label.anchor == "end"
    assert BOUNDS.holds(label.box)


@pytest.mark.parametrize("seed", range(20))
def test_fifteen_long_names_lie_inside_and_on_nothing(seed: int) -> None:
    points = crowd(seed, 15)
    labels = place_labels(points, BOUNDS)
    assert [label.point for label in labels] == points
    assert all(BOUNDS.holds(label.box) for label in labels)
    assert not [pair for pair in itertools.combinations(labels, 2) if pair[0].box.meets(pair[1].box)]
    assert not [(label, point) for label in labels for point in points if label.box.meets(point.box)]


def test_a_line_is_avoided_where_there_is_another_place() -> None:
    line = segment_boxes((100, 100), (300, 100))
    (label,) = place_labels([Point(100, 100, "small")], BOUNDS, line)
    assert not any(label.box.meets(box) for box in line)


def test_points_at_one_place_are_all_named() -> None:
    labels: list[Label] = place_labels([Point(300, 200, name) for name in ("one", "two", "three", "four")], BOUNDS)
    assert not [pair for pair in itertools.combinations(labels, 2) if pair[0].box.meets(pair[1].box)]


def test_settings_that_came_out_alike_share_one_label() -> None:
    singles = [Single(name="a", accuracy=0.5, cost_usd=0.01), Single(name="b", accuracy=0.8, cost_usd=1.0)]
    svg = cost_plot(singles, [run(0.3, 0.6, 0.1), run(0.5, 0.6, 0.1), run(1.0, 0.75, 0.9)])
    assert ">0.3, 0.5</text>" in svg
    assert svg.count('class="ours"') == 2


def test_without_prices_there_is_a_sentence_instead_of_a_plot() -> None:
    assert "No price is known" in cost_plot([Single(name="a", accuracy=0.5, cost_usd=None)], [])
