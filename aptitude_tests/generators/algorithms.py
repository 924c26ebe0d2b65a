"""Well-known small programs, as they stand: their source is the model answer of the hard code items."""

from __future__ import annotations

import inspect
import random
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def longest_run(xs: list[int], k: int) -> int:
    best = run = 0
    for x in xs:
        run = run + 1 if x % k == 0 else 0
        best = max(best, run)
    return best


def merged_length(pairs: list[list[int]]) -> int:
    total = 0
    end = float("-inf")
    for start, stop in sorted(pairs):
        if stop > end:
            total += stop - int(max(start, end))
            end = stop
    return total


def first_unbalanced(text: str) -> int:
    pairs = {")": "(", "]": "[", "}": "{"}
    stack = []
    for i, char in enumerate(text):
        if char in pairs.values():
            stack.append((char, i))
        elif char in pairs and (not stack or stack.pop()[0] != pairs[char]):
            return i
    return stack[0][1] if stack else -1


def edit_steps(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def run_lengths(text: str) -> str:
    parts: list[tuple[str, int]] = []
    for char in text:
        if parts and parts[-1][0] == char:
            parts[-1] = (char, parts[-1][1] + 1)
        else:
            parts.append((char, 1))
    return "".join(char if count == 1 else f"{char}{count}" for char, count in parts)


def spiral(rows: list[list[int]]) -> list[int]:
    found: list[int] = []
    rows = [list(row) for row in rows]
    while rows:
        found += rows.pop(0)
        rows = [list(row) for row in zip(*rows, strict=True)][::-1]
    return found


def ways_to_pay(amount: int, coins: list[int]) -> int:
    ways = [1] + [0] * amount
    for coin in coins:
        for total in range(coin, amount + 1):
            ways[total] += ways[total - coin]
    return ways[amount]


def longest_rising(xs: list[int]) -> int:
    best: list[int] = []
    for i, x in enumerate(xs):
        best.append(1 + max((best[j] for j in range(i) if xs[j] < x), default=0))
    return max(best, default=0)


def in_base(n: int, base: int) -> str:
    digits = ""
    while n:
        n, digit = divmod(n, base)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"


def window_maxima(xs: list[int], k: int) -> list[int]:
    return [max(xs[i : i + k]) for i in range(len(xs) - k + 1)]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One program with its wording, its inputs and where it needs none of the list steps."""

    run: Callable[..., Any]
    signature: str
    en: str
    zh: str
    inputs: Callable[[random.Random], list[Any]]

    @property
    def source(self) -> str:
        """The program renamed to `core`."""
        text = textwrap.dedent(inspect.getsource(self.run))
        return text.replace(f"def {self.run.__name__}(", "def core(", 1).rstrip()


def _numbers(rng: random.Random, low: int = -9, high: int = 20, most: int = 12) -> list[int]:
    return [rng.randint(low, high) for _ in range(rng.randint(0, most))]


def _letters(rng: random.Random, alphabet: str, most: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, most)))


ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm(
        longest_run, "xs, k",
        "the length of the longest stretch of neighbouring numbers in `xs` that are all divisible by `k` (0 if none)",
        "列表`xs`中全部能被`k`整除的最长连续一段的长度（没有则为0）",
        lambda rng: [_numbers(rng, 0, 12), rng.randint(2, 4)],
    ),
    Algorithm(
        merged_length, "pairs",
        "the total length covered by the intervals `pairs`, a list of [start, stop]; overlaps count once",
        "区间列表`pairs`（每个元素为[起点, 终点]）覆盖的总长度，重叠部分只算一次",
        lambda rng: [[sorted((rng.randint(0, 20), rng.randint(21, 40))) if rng.random() < 0.4
                      else [s := rng.randint(0, 40), s + rng.randint(0, 6)] for _ in range(rng.randint(0, 6))]],
    ),
    Algorithm(
        first_unbalanced, "text",
        "the index of the first closing bracket in `text` that does not match the last open one; if there is none, "
        "the index of the first opening bracket that is never closed; -1 if all of (), [] and {} are balanced",
        "`text`中第一个与最近的左括号不匹配的右括号的下标；若没有，则返回最靠前的始终未闭合的左括号的下标；"
        "若()、[]、{}全部配对则返回-1",
        lambda rng: [rng.choice((_letters(rng, "()[]{}ab", 8), "(a[b]{c})" * rng.randint(1, 3), "([a]" + "{}" * 2))],
    ),
    Algorithm(
        edit_steps, "a, b",
        "the least number of single-letter insertions, deletions and replacements that turn text `a` into text `b`",
        "把字符串`a`变成字符串`b`所需的最少的单字符插入、删除和替换次数",
        lambda rng: [_letters(rng, "abc", 8), _letters(rng, "abc", 8)],
    ),
    Algorithm(
        run_lengths, "text",
        "`text` with every stretch of equal letters written as the letter and its count, without the count where it "
        "is 1 (\"aaab\" gives \"a3b\")",
        "把`text`中每段连续相同的字母写成字母加次数，次数为1时不写（\"aaab\"得到\"a3b\"）",
        lambda rng: [_letters(rng, "aab", 14)],
    ),
    Algorithm(
        spiral, "rows",
        "a list of the entries of the rectangular table `rows` in clockwise spiral order from the top left",
        "矩形表`rows`从左上角开始按顺时针螺旋顺序排列的元素列表",
        lambda rng: [(lambda h, w: [[rng.randint(0, 9) for _ in range(w)] for _ in range(h)])(
            rng.randint(1, 5), rng.randint(1, 5))],
    ),
    Algorithm(
        ways_to_pay, "amount, coins",
        "in how many ways the whole `amount` can be paid with the different `coins`, any number of each; the order of "
        "coins does not matter",
        "用面值`coins`（每种数量不限）恰好支付`amount`的方法数，不计顺序",
        lambda rng: [rng.randint(0, 40), rng.sample([1, 2, 3, 5, 7, 10, 12], 3)],
    ),
    Algorithm(
        longest_rising, "xs",
        "the length of the longest strictly increasing subsequence of `xs` (its members need not be neighbours)",
        "列表`xs`的最长严格递增子序列的长度（元素不必相邻）",
        lambda rng: [_numbers(rng)],
    ),
    Algorithm(
        in_base, "n, base",
        "the whole number `n` (0 or more) written in base `base` (2 to 36) with the digits 0-9 and a-z",
        "非负整数`n`的`base`进制（2到36）表示，数字用0-9和a-z",
        lambda rng: [rng.randint(0, 99_999), rng.choice((2, 3, 7, 16, 30, 36))],
    ),
    Algorithm(
        window_maxima, "xs, k",
        "a list of the largest number of every window of `k` neighbours in `xs` (empty where `k` is larger than `xs`)",
        "列表`xs`中每个长度为`k`的窗口的最大值组成的列表（`k`大于列表长度时为空）",
        lambda rng: [_numbers(rng), rng.randint(1, 4)],
    ),
)  # fmt: skip

#: By kind of the result: wording in two languages, the last line of the source, and what it computes.
TWISTS: dict[type, tuple[tuple[str, str, str, Callable[[Any, int], Any]], ...]] = {
    int: (
        ("multiplied by {k}, plus 1", "乘以{k}再加1", "return value * {k} + 1", lambda value, k: value * k + 1),
        ("minus {k}", "减去{k}", "return value - {k}", lambda value, k: value - k),
        ("written as text", "转换成的字符串", "return str(value)", lambda value, k: str(value)),
    ),
    list: (
        ("in reverse order", "再倒序", "return value[::-1]", lambda value, k: value[::-1]),
        ("with {k} added to every entry", "再给每个元素加{k}", "return [x + {k} for x in value]",
         lambda value, k: [x + k for x in value]),
        ("without its repeated entries, first ones kept", "再去掉重复元素（保留先出现的）",
         "return list(dict.fromkeys(value))", lambda value, k: list(dict.fromkeys(value))),
    ),
    str: (
        ("in upper case", "再转换成大写", "return value.upper()", lambda value, k: value.upper()),
        ("reversed", "再倒序", "return value[::-1]", lambda value, k: value[::-1]),
        ("repeated {k} times", "再重复{k}遍", "return value * {k}", lambda value, k: value * k),
    ),
}  # fmt: skip
