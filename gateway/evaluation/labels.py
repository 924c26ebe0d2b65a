"""Where the names of points go so that none lies on another, on a point or on a line; pure geometry in SVG pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

FONT_PX = 12
# Widest of the usual fonts of browsers, per character at this size: a name may come out shorter, never longer.
CHARACTER_PX = 7.4
DISTANCES = (8, 15, 24, 36, 50, 68, 90, 115)
LED_FROM = 20
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


@dataclass(frozen=True, slots=True)
class Point:
    """Something drawn at `(x, y)` with a name, and how far it reaches."""

    x: float
    y: float
    name: str
    radius: float = 5.0

    @property
    def box(self) -> Box:
        return Box(self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


@dataclass(frozen=True, slots=True)
class Label:
    """A name's place. `(x, y)` is the text's anchor on its baseline; `led`: far enough away to need a line."""

    point: Point
    x: float
    y: float
    anchor: Literal["start", "middle", "end"]
    box: Box
    led: bool


def place_labels(points: Sequence[Point], bounds: Box, lines: Sequence[Box] = ()) -> list[Label]:
    """A label for each point, in order; earlier ones choose first.

    Args:
        points: all that is drawn; a name on a point of another is avoided too.
        bounds: labels stay inside.
        lines: avoided where that leaves a place, else crossed.
    """
    placed: list[Label] = []
    for point in points:
        hard = [*(label.box for label in placed), *(other.box for other in points)]
        places = [label for label in _places(point) if bounds.holds(label.box)] or [next(_places(point))]
        free = [label for label in places if not any(label.box.meets(box) for box in hard)]
        clear = (label for label in free if not any(label.box.meets(box) for box in lines))
        placed.append(next(clear, (free or places)[0]))
    return placed


def segment_boxes(start: tuple[float, float], end: tuple[float, float], step: float = 8.0) -> list[Box]:
    """A line as small boxes along it, for `lines`."""
    (x1, y1), (x2, y2) = start, end
    count = max(1, round(max(abs(x2 - x1), abs(y2 - y1)) / step))
    middles = [(x1 + (x2 - x1) * i / count, y1 + (y2 - y1) * i / count) for i in range(count + 1)]
    return [Box(x - step / 2, y - step / 2, x + step / 2, y + step / 2) for x, y in middles]


def _places(point: Point) -> Iterator[Label]:
    """Places around a point, nearest and most usual first."""
    width = len(point.name) * CHARACTER_PX
    for distance in DISTANCES:
        for right, down in DIRECTIONS:
            x = point.x + right * distance
            middle = point.y + down * (distance + (FONT_PX / 2 if right == 0 else 0))
            anchor: Literal["start", "middle", "end"] = ("end", "middle", "start")[right + 1]
            left = x - width * (1 - right) / 2
            box = Box(left, middle - FONT_PX / 2 - 1, left + width, middle + FONT_PX / 2 + 1)
            yield Label(point, x, middle + FONT_PX / 3, anchor, box, distance >= LED_FROM)
