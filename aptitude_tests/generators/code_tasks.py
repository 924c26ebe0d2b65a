"""Code: functions to write and to repair, which are executed, and programs whose output is to be found."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.algorithms import ALGORITHMS, TWISTS
from aptitude_tests.generators.pipelines import (
    Step,
    compose,
    draw_inputs,
    filter_step,
    map_step,
    reduce_step,
    source_of,
)
from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language

_TESTS = 10


def _steps(rng: random.Random, difficulty: Difficulty) -> list[Step]:
    middle = {"easy": 1, "medium": 2, "hard": 4}[difficulty]
    return [*(rng.choice((filter_step, map_step))(rng) for _ in range(middle)), reduce_step(rng)]


def _words(step: Step, language: Language) -> str:
    return step.zh if language == "zh" else step.en


def _tests(inputs: list[list[Any]], outputs: list[Any]) -> list[dict[str, Any]]:
    return [{"input": given, "output": result} for given, result in zip(inputs, outputs, strict=True)]


@generator("write_function", summary="a Python function from a description", scorer="code")
def write_function(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """A pipeline of two or three steps; hard ones are an algorithm with a twist."""
    wording = texts("code_tasks", language)
    if difficulty == "hard":
        return _write_algorithm(rng, language, wording)
    while True:
        steps = _steps(rng, difficulty)
        run = compose(steps)
        inputs = draw_inputs(rng, _TESTS)
        outputs = [run(xs) for xs in inputs]
        if len({str(output) for output in outputs}) >= 4:
            break
    told = wording["join"].join(_words(step, language) for step in steps)
    tests = _tests([[xs] for xs in inputs], outputs)
    gold = {"function": "solve", "tests": tests, "solution": source_of([step.source for step in steps])}
    return Draft(wording["write"].format(steps=told), gold)


def _write_algorithm(rng: random.Random, language: Language, wording: Mapping[str, str]) -> Draft:
    while True:
        algorithm = rng.choice(ALGORITHMS)
        inputs = [algorithm.inputs(rng) for _ in range(_TESTS)]
        values = [algorithm.run(*given) for given in inputs]
        if len({str(value) for value in values}) >= 4:
            break
    k = rng.randint(2, 9)
    en, zh, line, apply = rng.choice(TWISTS[type(values[0])])
    twist = (zh if language == "zh" else en).format(k=k)
    outputs = [apply(value, k) for value in values]
    signature = algorithm.signature
    solution = f"{algorithm.source}\n\n\ndef solve({signature}):\n    value = core({signature})\n    {line.format(k=k)}"
    what = algorithm.zh if language == "zh" else algorithm.en
    question = wording["write_hard"].format(signature=signature, what=what, twist=twist)
    return Draft(question, {"function": "solve", "tests": _tests(inputs, outputs), "solution": solution})


@generator("repair_function", summary="a Python function with a bug", scorer="code")
def repair_function(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One step of the pipeline is replaced by a near miss that at least one test shows."""
    wording = texts("code_tasks", language)
    while True:
        steps = _steps(rng, difficulty)
        at = rng.randrange(len(steps))
        wrong = steps[at]
        mistake = Step(wrong.near, wrong.near_apply, "", "", "", wrong.near_apply)
        inputs = draw_inputs(rng, _TESTS)
        outputs = [compose(steps)(xs) for xs in inputs]
        broken = [compose([*steps[:at], mistake, *steps[at + 1 :]])(xs) for xs in inputs]
        if len({str(output) for output in outputs}) >= 3 and outputs != broken:
            break
    lines = [step.source for step in steps]
    buggy = source_of([*lines[:at], wrong.near, *lines[at + 1 :]])
    told = wording["join"].join(_words(step, language) for step in steps)
    gold = {"function": "solve", "tests": _tests([[xs] for xs in inputs], outputs), "solution": source_of(lines)}
    return Draft(wording["repair"].format(source=buggy, steps=told), gold)


@generator("trace_program", summary="what a Python program prints", scorer="number")
def trace_program(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One loop, then a loop with a condition, then nested loops over a list that changes."""
    a, b, c, n = rng.randint(2, 9), rng.randint(2, 9), rng.randint(3, 7), rng.randint(5, 9)
    xs = [rng.randint(1, 20) for _ in range(6)]
    total = 0
    if difficulty == "easy":
        source = f"total = {a}\nfor i in range({n}):\n    total += {b} * i\nprint(total)"
        gold = a + sum(b * i for i in range(n))
    elif difficulty == "medium":
        source = (
            f"total = 0\nfor i, x in enumerate({xs}):\n    if x % {c} < 2 or i % 2 == 1:\n"
            f"        total += x * {a}\n    else:\n        total -= {b}\nprint(total)"
        )
        gold = sum(x * a if x % c < 2 or i % 2 == 1 else -b for i, x in enumerate(xs))
    else:
        source = (
            f"xs = {xs}\nfor step in range({c}):\n    k = xs[step % len(xs)] % len(xs)\n"
            f"    xs = xs[k:] + xs[:k]\n    xs[0] = xs[0] * {a} % 23 + step\n"
            "total = 0\nfor i in range(len(xs)):\n    for j in range(i):\n        if xs[j] > xs[i]:\n"
            "            total += xs[j] - i\nprint(total)"
        )
        ys = list(xs)
        for step in range(c):
            k = ys[step % len(ys)] % len(ys)
            ys = ys[k:] + ys[:k]
            ys[0] = ys[0] * a % 23 + step
        for i in range(len(ys)):
            total += sum(ys[j] - i for j in range(i) if ys[j] > ys[i])
        gold = total
    return Draft(texts("code_tasks", language)["trace"].format(source=source), gold)
