"""The page of `orbweaver eval` in a headless Chromium: as wide as a desk and as narrow as a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.evaluation.figures import Interval, Run, Single
from gateway.evaluation.grading import Grading
from gateway.evaluation.offline import Agreement
from gateway.evaluation.page import write_page
from gateway.evaluation.report import Books, EvalReport, Registered
from tests.support.chromium import CHROMIUM, chromium

pytestmark = [pytest.mark.chromium, pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium binary")]

# Three crowds of neighbours, one model at each edge, and two that cannot be told apart.
SINGLES = {
    "command-r-v01": (0.4034, 0.0255),
    "llama-3-8b-instruct": (0.4202, 0.0104),
    "mathstral-7b-v0.1": (0.4286, 0.0069),
    "deepseek-coder-v2-0614": (0.6134, 0.0091),
    "gemini-1.5-flash-002": (0.5966, 0.0049),
    "gemini-1.5-flash-001": (0.5966, 0.0049),
    "gemini-1.5-pro-002": (0.7143, 0.0646),
    "gpt-4o-2024-05-13": (0.7227, 0.7880),
    "qwen1.5-72b-chat": (0.5546, 0.0327),
    "random": (0.5387, 0.0330),
    "oracle": (0.9412, 0.0389),
}
RUNS = ((0.3, 0.588, 0.0055), (0.5, 0.588, 0.0055), (0.7, 0.706, 0.0942), (0.85, 0.731, 0.3043), (1.0, 0.6975, 0.4828))
OVERLAPS = """(() => {
  const texts = [...document.querySelectorAll('svg text')].map(
    text => [text.textContent, text.getBoundingClientRect()]);
  const found = [];
  texts.forEach(([name, a], i) => texts.slice(i + 1).forEach(([other, b]) => {
    if (a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom) found.push([name, other]);
  }));
  return found;
})()"""


def report() -> EvalReport:
    return EvalReport(
        date="2026-11-21",
        command="orbweaver eval --models " + ",".join(SINGLES),
        commit="0000000",
        split="test",
        prompts=100,
        datasets={"letters": 100},
        artifact="none",
        best_single="gpt-4o-2024-05-13",
        models=[Registered(name=name, suite=None, calls=0, known=True, seconds=0.1) for name in SINGLES],
        singles=[Single(name=name, accuracy=accuracy, cost_usd=cost) for name, (accuracy, cost) in SINGLES.items()],
        runs=[_run(*figures) for figures in RUNS],
        agreement=Agreement(prompts=100, same=100, largest_p_difference=0, accuracy_http=0.7, accuracy_offline=0.7),
        grading=Grading(graded=0, agree=0),
        books=Books(asked=500, decisions=500, repeated=0, ledger_usd=1, expected_usd=1),
    )


def _run(quality: float, accuracy: float, cost_usd: float) -> Run:
    return Run(
        quality=quality,
        stream=False,
        asked=100,
        answered=100,
        errors={},
        accuracy=Interval(mean=accuracy, low=accuracy - 0.08, high=accuracy + 0.08),
        gain=Interval(mean=-1.0, low=-9.0, high=7.0),
        cost_usd=cost_usd,
        saved=0.5,
        picks={"gemini-1.5-pro-002": 74, "gpt-4o-2024-05-13": 26},
        as_recorded=100,
        seconds=1.0,
        p50_ms=60,
        p99_ms=370,
    )


@pytest.mark.parametrize("width", [1280, 390])
async def test_no_name_lies_on_another_and_the_page_is_no_wider_than_the_window(tmp_path: Path, width: int) -> None:
    path = write_page(report(), tmp_path / "report.html")
    async with chromium() as page:
        await page.open(path.as_uri(), width=width)
        shown = await page.run("[...document.querySelectorAll('svg text')].map(text => text.textContent)")
        assert {*SINGLES, "0.3, 0.5", "1"} <= set(shown)
        assert await page.run(OVERLAPS) == []
        assert await page.run("document.documentElement.scrollWidth") <= width
        assert page.problems == []
