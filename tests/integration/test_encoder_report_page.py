"""The evaluation page in a headless Chromium: readable on a desk and on a phone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from capability_encoder.training.report import render
from tests.support.chromium import CHROMIUM, Page, chromium
from tests.support.encoder_report import small_report

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium binary"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    async with chromium() as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 420])
async def test_nothing_sticks_out_of_the_page(page: Page, tmp_path: Path, width: int) -> None:
    (tmp_path / "report.html").write_text(render(small_report()))
    await page.open((tmp_path / "report.html").as_uri(), width=width)
    assert await page.run("document.documentElement.scrollWidth") <= width
    assert page.problems == []


@pytest.mark.parametrize("width", [1280, 420])
async def test_text_of_the_plots_is_large_enough_to_read(page: Page, tmp_path: Path, width: int) -> None:
    (tmp_path / "report.html").write_text(render(small_report()))
    await page.open((tmp_path / "report.html").as_uri(), width=width)
    smallest = await page.run(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => parseFloat(getComputedStyle(t).fontSize)"
        " * t.ownerSVGElement.getBoundingClientRect().width / t.ownerSVGElement.viewBox.baseVal.width))"
    )
    assert smallest >= 9.5


async def test_labels_of_a_plot_do_not_lie_on_each_other(page: Page, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render(small_report()))
    await page.open((tmp_path / "report.html").as_uri(), width=420)
    overlaps = await page.run(
        """[...document.querySelectorAll('svg')].flatMap(plot => {
          const boxes = [...plot.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
          return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
            .filter(([, q]) => Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
              && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4)
            .map(([b]) => a + ' / ' + b));
        })"""
    )
    assert overlaps == []
