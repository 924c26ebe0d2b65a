"""The model's card as a page, in a headless Chromium: on a desk, on a phone, light and dark."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aptitude_tests.card import Card, TaskResult
from aptitude_tests.report_page import render_page
from aptitude_tests.suite_data import list_tasks
from tests.support.chromium import CHROMIUM, Page, chromium

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium binary"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    async with chromium() as opened:
        yield opened


def card(name: str, right: int) -> Card:
    tasks = tuple(
        TaskResult(task.name, task.summary, task.domain, task.language, 20, min(20, right + number % 7), number % 3)
        for number, task in enumerate(list_tasks("core-50x20"))
    )
    shares = {"0": {name: 0.1, "another-model-of-the-pool": 0.9}, "1": {name: 1.0}}
    return Card(
        name, "core-50x20", 1, 0, 1.8e9, tasks, 1000, 3, {"right": 700}, 1, 0.31, wins=shares, notes=("A note.",)
    )


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (420, False), (420, True)])
async def test_the_card_fits_the_window_and_needs_nothing_else(
    page: Page, tmp_path: Path, width: int, dark: bool
) -> None:
    pool = [card(f"team/other-model-{number}", number) for number in range(12)]
    (tmp_path / "card.html").write_text(render_page(card("team/a-model-with-a-rather-long-name-7b-instruct", 9), pool))
    await page.open((tmp_path / "card.html").as_uri(), width=width, dark=dark)
    assert await page.run("document.documentElement.scrollWidth") <= width
    assert page.problems == []
    assert await page.run("document.querySelectorAll('.row').length") == 50
    cells = "[...document.querySelectorAll('.scroll text')].filter(t => /^\\d+%$/.test(t.textContent)).length"
    assert await page.run(cells) == 13 * len({task.domain for task in list_tasks("core-50x20")})
    clipped = """[...document.querySelectorAll('.scroll text')].filter(t => {
      const box = t.getBoundingClientRect(), plot = t.ownerSVGElement.getBoundingClientRect();
      return box.left < plot.left - 1 || box.top < plot.top - 1 || box.right > plot.right + 1;
    }).map(t => t.textContent)"""
    assert await page.run(clipped) == []
