"""Images drawn here: text to read, shapes to count, charts to understand."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import product
from typing import Any

from aptitude_tests.generators import canvas
from aptitude_tests.generators.canvas import Canvas
from aptitude_tests.generators.registry import generator
from aptitude_tests.item import Difficulty, Draft, Language

_COLOURS = {
    "red": canvas.RED,
    "green": canvas.GREEN,
    "blue": canvas.BLUE,
    "orange": canvas.ORANGE,
    "purple": canvas.PURPLE,
}
# No pairs that a small font makes hard to tell apart, as O and 0.
_LETTERS = "ACEFHJKLMNPRTUVWXY"
_DIGITS = "2346789"
_SHAPES = ("circle", "square", "triangle")


@generator("picture_text", summary="text in an image", scorer="text")
def picture_text(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One code in large letters; then the second line of three; then one labelled line of six, small, with stripes."""
    rows, scale = {"easy": (1, 6), "medium": (3, 4), "hard": (6, 2)}[difficulty]
    drawn = Canvas(360, 60 + rows * 12 * scale)
    labels = rng.sample("BCDGQSZ", rows)
    codes = [_code(rng, {"easy": 5, "medium": 6, "hard": 9}[difficulty]) for _ in range(rows)]
    if difficulty == "hard":
        for x in range(0, 360, 18):
            drawn.rectangle(x, 0, 3, drawn.height, canvas.GREY)
    asked = rng.randrange(rows)
    for i, code in enumerate(codes):
        line = code if rows == 1 else f"{labels[i]}: {code}"
        drawn.write(16 + rng.randint(0, 30), 30 + i * 12 * scale, line, rng.choice((canvas.BLACK, canvas.BLUE)), scale)
    ask = (
        "Which code is written in the image?"
        if rows == 1
        else f"Which code is written in the image behind the label {labels[asked]}?"
    )
    return Draft(ask, codes[asked], images=(drawn.picture(),))


def _code(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(_LETTERS if rng.random() < 0.6 else _DIGITS) for _ in range(length))


@generator("picture_count", summary="shapes in an image", scorer="number")
def picture_count(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """All shapes; then those of one colour; then those of one colour and kind among many."""
    low, high = {"easy": (3, 8), "medium": (9, 16), "hard": (17, 30)}[difficulty]
    count = rng.randint(low, high)
    drawn = Canvas(360, 300)
    spots = rng.sample(list(product(range(6), range(5))), count)
    things = [(rng.choice(_SHAPES), rng.choice(sorted(_COLOURS)[:3])) for _ in spots]
    for (column, row), (shape, colour) in zip(spots, things, strict=True):
        x, y = 30 + column * 60 + rng.randint(-8, 8), 30 + row * 60 + rng.randint(-8, 8)
        radius, ink = rng.randint(10, 18), _COLOURS[colour]
        if shape == "circle":
            drawn.disc(x, y, radius, ink)
        elif shape == "square":
            drawn.rectangle(x - radius, y - radius, 2 * radius, 2 * radius, ink)
        else:
            drawn.triangle(x, y, radius, ink)
    shape, colour = rng.choice(things)
    if difficulty == "easy":
        ask, gold = "How many shapes are there in the image?", count
    elif difficulty == "medium":
        ask, gold = f"How many {colour} shapes are there in the image?", sum(c == colour for _, c in things)
    else:
        ask, gold = f"How many {colour} {shape}s are there in the image?", things.count((shape, colour))
    return Draft(ask, gold, images=(drawn.picture(),))


@generator("picture_chart", summary="a bar chart", scorer="number")
def picture_chart(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One bar with its value on it; then a difference read off the grid; then a total over a condition."""
    size = {"easy": 4, "medium": 5, "hard": 7}[difficulty]
    values = [rng.randint(1, 10) * 10 for _ in range(size)]
    labels = rng.sample("ABCDEFGHKLMNPRT", size)
    drawn = Canvas(400, 280)
    base, unit = 240, 2
    for level in range(0, 101, 10):
        y = base - level * unit
        drawn.rectangle(44, y, 346, 1, canvas.GREY)
        if level % 20 == 0:
            drawn.write(4, y - 6, f"{level:>3}", scale=2)
    width = 340 // size
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        left = 50 + i * width
        drawn.rectangle(left, base - value * unit, width - 14, value * unit, list(_COLOURS.values())[i % 5])
        drawn.write(left + (width - 14) // 2 - 6, base + 10, label, scale=3)
        if difficulty == "easy":
            drawn.write(left, base - value * unit - 16, str(value))
    i, j = rng.sample(range(size), 2)
    if difficulty == "easy":
        ask, gold = f"What is the value of bar {labels[i]} in the chart?", values[i]
    elif difficulty == "medium":
        ask = f"By how much does bar {labels[i]} in the chart exceed bar {labels[j]}? "
        ask += "Give a negative number if it is lower."
        gold = values[i] - values[j]
    else:
        limit = sorted(values)[size // 2]
        ask = f"What is the sum of the values of all bars in the chart whose value is at least {limit}?"
        gold = sum(value for value in values if value >= limit)
    return Draft(ask, gold, images=(drawn.picture(),))
