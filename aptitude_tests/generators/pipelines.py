"""Small list programs composed from named steps, each with its source and its wording in two languages."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Numbers = list[int]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it does to `xs`, as Python and as words; `near` is a mistake one easily makes."""

    source: str
    apply: Callable[[Numbers], Any]
    en: str
    zh: str
    near: str
    near_apply: Callable[[Numbers], Any]


def filter_step(rng: random.Random) -> Step:
    """Keep some of the numbers."""
    k, m = rng.randint(2, 9), rng.randint(2, 5)
    r = rng.randrange(m)
    return rng.choice(
        (
            Step(
                f"xs = [x for x in xs if x > {k}]",
                lambda xs: [x for x in xs if x > k],
                f"keep only the numbers greater than {k}",
                f"只保留大于{k}的数",
                f"xs = [x for x in xs if x >= {k}]",
                lambda xs: [x for x in xs if x >= k],
            ),
            Step(
                f"xs = [x for x in xs if x % {m} == {r}]",
                lambda xs: [x for x in xs if x % m == r],
                f"keep only the numbers whose remainder on division by {m} is {r} (as Python's % gives it)",
                f"只保留除以{m}余{r}的数（按Python的%计算）",
                f"xs = [x for x in xs if x % {m} != {r}]",
                lambda xs: [x for x in xs if x % m != r],
            ),
            Step(
                f"xs = xs[::{m}]",
                lambda xs: xs[::m],
                f"keep the first number and then every number {m} places after the last one kept",
                f"保留第一个数，之后每隔{m}个位置取一个数",
                f"xs = xs[{m - 1}::{m}]",
                lambda xs: xs[m - 1 :: m],
            ),
            Step(
                f"xs = xs[{m - 1}:]",
                lambda xs: xs[m - 1 :],
                f"drop the first {m - 1} number(s)",
                f"去掉前{m - 1}个数",
                f"xs = xs[{m}:]",
                lambda xs: xs[m:],
            ),
        )
    )


def map_step(rng: random.Random) -> Step:
    """Change every number, or the list as a whole."""
    k, m = rng.randint(2, 9), rng.randint(2, 6)
    return rng.choice(
        (
            Step(
                f"xs = [{m} * x + {k} for x in xs]",
                lambda xs: [m * x + k for x in xs],
                f"replace every number by {m} times the number plus {k}",
                f"把每个数换成它的{m}倍加{k}",
                f"xs = [{m} * (x + {k}) for x in xs]",
                lambda xs: [m * (x + k) for x in xs],
            ),
            Step(
                f"xs = [abs(x - {k}) for x in xs]",
                lambda xs: [abs(x - k) for x in xs],
                f"replace every number by its distance from {k}",
                f"把每个数换成它与{k}之差的绝对值",
                f"xs = [x - {k} for x in xs]",
                lambda xs: [x - k for x in xs],
            ),
            Step(
                "xs = [b - a for a, b in zip(xs, xs[1:])]",
                lambda xs: [b - a for a, b in pairwise(xs)],
                "replace the list by the differences of neighbours, later minus earlier",
                "把列表换成相邻两数之差（后减前）",
                "xs = [a - b for a, b in zip(xs, xs[1:])]",
                lambda xs: [a - b for a, b in pairwise(xs)],
            ),
            Step(
                f"xs = [x * x % {m + 7} for x in xs]",
                lambda xs: [x * x % (m + 7) for x in xs],
                f"replace every number by the remainder of its square on division by {m + 7}",
                f"把每个数换成它的平方除以{m + 7}的余数",
                f"xs = [x % {m + 7} for x in xs]",
                lambda xs: [x % (m + 7) for x in xs],
            ),
            Step(
                "xs = sorted(set(xs))",
                lambda xs: sorted(set(xs)),
                "remove duplicates and sort in ascending order",
                "去掉重复的数并按升序排列",
                "xs = sorted(xs)",
                lambda xs: sorted(xs),
            ),
        )
    )


def reduce_step(rng: random.Random) -> Step:
    """One value, or a list, out of what is left."""
    k, m = rng.randint(2, 4), rng.randint(11, 97)
    return rng.choice(
        (
            Step(
                "return sum(xs)", sum, "return the sum (0 for an empty list)", "返回总和（空列表返回0）",
                "return len(xs)", len,
            ),
            Step(
                f"return sum(i * x for i, x in enumerate(xs, 1)) % {m}",
                lambda xs: sum(i * x for i, x in enumerate(xs, 1)) % m,
                f"return the remainder on division by {m} of the sum of every number times its position (from 1)",
                f"返回每个数与其位置（从1开始）乘积之和除以{m}的余数",
                f"return sum(i * x for i, x in enumerate(xs)) % {m}",
                lambda xs: sum(i * x for i, x in enumerate(xs)) % m,
            ),
            Step(
                "return max(xs) - min(xs) if xs else 0",
                lambda xs: max(xs) - min(xs) if xs else 0,
                "return the largest minus the smallest number (0 for an empty list)",
                "返回最大数减最小数（空列表返回0）",
                "return max(xs) if xs else 0",
                lambda xs: max(xs) if xs else 0,
            ),
            Step(
                f"return sorted(xs, reverse=True)[:{k}]",
                lambda xs: sorted(xs, reverse=True)[:k],
                f"return a list of the {k} largest numbers in descending order (fewer if there are fewer)",
                f"返回最大的{k}个数组成的列表，按降序排列（不足则全部返回）",
                f"return sorted(xs)[:{k}]",
                lambda xs: sorted(xs)[:k],
            ),
            Step(
                "return sum(1 for i, x in enumerate(xs) if x not in xs[:i])",
                lambda xs: len(set(xs)),
                "return how many different numbers are left",
                "返回剩下多少个不同的数",
                "return len(xs)",
                len,
            ),
        )
    )  # fmt: skip


def compose(steps: list[Step]) -> Callable[[Numbers], Any]:
    """All steps one after the other."""

    def run(xs: Numbers) -> Any:
        value: Any = list(xs)
        for step in steps:
            value = step.apply(value)
        return value

    return run


def source_of(lines: list[str]) -> str:
    """The function `solve` with these lines as its body."""
    return "def solve(xs):\n" + "\n".join(f"    {line}" for line in lines)


def draw_inputs(rng: random.Random, count: int) -> list[Numbers]:
    """Lists of whole numbers of all lengths, the empty one among them."""
    lists: list[Numbers] = [[], [rng.randint(-9, 9)]]
    lists += [[rng.randint(-12, 25) for _ in range(rng.randint(3, 14))] for _ in range(count - 2)]
    return lists
