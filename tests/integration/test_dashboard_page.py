"""The built-in dashboard in a headless Chromium, on a real gateway with a scripted provider."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from pydantic import SecretStr

from tests.support.chromium import CHROMIUM, Page, chromium
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.routing import FixedScorer
from tests.support.scripted_upstream import ScriptedUpstream, error_answer

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium binary"),
]
SCORES = FixedScorer({"small": 0.62, "large": 0.88, "seer": 0.7})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    async with chromium() as opened:
        yield opened


@dataclass
class Scene:
    """A gateway with its provider."""

    gateway: LiveGateway
    upstream: ScriptedUpstream

    async def ask(self, model: str = "auto", text: str = "Hello", **body: Any) -> str | None:
        """One chat request; gives its decision id."""
        body |= {"model": model, "messages": [{"role": "user", "content": text}]}
        url = f"{self.gateway.base_url}/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            await answer.read()
            return answer.headers.get("x-orbweaver-decision-id")


def candidates(base_url: str) -> list[dict[str, Any]]:
    tools = ["tools", "json_schema"]
    return [
        {"name": "small", "base_url": base_url, "price_in": 0.1, "price_out": 0.4, "can": tools},
        {"name": "large", "base_url": base_url, "price_in": 5.0, "price_out": 20.0, "can": tools},
    ]


@contextlib.asynccontextmanager
async def scene(folder: Path, **sections: Any) -> AsyncIterator[Scene]:
    async with ScriptedUpstream() as upstream:
        declared = sections.pop("declared", None)
        settings = gateway_settings(folder, candidates(upstream.base_url) if declared is None else declared, **sections)
        async with live_gateway(settings, scorer=SCORES) as gateway:
            yield Scene(gateway, upstream)


async def show(page: Page, scene: Scene, **window: Any) -> None:
    """Open the dashboard afresh and wait for its first figures."""
    page.problems.clear()
    await page.open(scene.gateway.url + "/", **window)
    await page.until("document.querySelector('#status').textContent !== 'Connecting'")


async def test_a_decision_appears_while_the_page_is_open(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await show(page, here)
        decision = await here.ask("auto")
        await page.until(f"document.querySelector('[data-id=\"{decision}\"]')")
        row = await page.text(f'[data-id="{decision}"] summary')
        assert "best utility" in row
        assert page.problems == []


async def test_an_opened_decision_shows_the_whole_ranking_and_the_facts(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        decision = await here.ask("auto")
        await show(page, here)
        await page.until(f"document.querySelector('[data-id=\"{decision}\"]')")
        await page.click(f'[data-id="{decision}"] summary')
        await page.until("document.querySelectorAll('.decision[open] .rank').length === 2")
        assert decision is not None
        assert decision in await page.text(".decision[open] .facts")


async def test_the_try_it_box_ranks_the_models_with_their_intervals(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await show(page, here)
        await page.fill("#prompt", "Prove that there are infinitely many primes.")
        await page.fill("#quality", "1")
        await page.click("#rank")
        await page.until("document.querySelectorAll('#ranking .rank').length === 2")
        names = await page.run("[...document.querySelectorAll('#ranking .name')].map(one => one.textContent)")
        assert names == ["large", "small"]
        assert "0.88 (0.78–0.98)" in await page.text("#ranking .chosen")
        low = await page.run("document.querySelector('#ranking .chosen .band').style.getPropertyValue('--low')")
        assert float(low) == pytest.approx(0.78)


async def test_the_try_it_box_says_why_a_model_is_left_out(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        seer = {"name": "seer", "base_url": here.upstream.base_url, "can": ["vision"]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{here.gateway.url}/admin/models", json=seer) as made,
        ):
            assert made.status == 201, await made.text()
        await show(page, here)
        await page.fill("#prompt", "What is in this picture?")
        await page.click("input[value=vision]")
        await page.click("#rank")
        await page.until("document.querySelectorAll('#ranking .excluded').length === 2")
        assert "vision" in await page.text("#ranking .excluded .detail")
        assert await page.text("#ranking .chosen .name") == "seer"


async def test_an_error_of_the_try_it_box_is_shown_in_its_own_words(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await show(page, here)
        await page.fill("#prompt", "What is in this picture?")
        await page.click("input[value=vision]")
        await page.click("#rank")
        await page.until("document.querySelector('#ranking .failure')")
        assert "vision" in await page.text("#ranking .failure")


async def test_a_failing_provider_shows_in_the_list_and_in_the_figures(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.upstream.always(error_answer(500, "It fell over.", "server_error"))
        decision = await here.ask("small")
        await show(page, here)
        await page.until(f"document.querySelector('[data-id=\"{decision}\"]')")
        assert "provider error" in await page.text(f'[data-id="{decision}"] summary')
        assert "1 errors" in await page.text("#requests-note")


async def test_asking_the_winner_shows_the_answer_and_takes_feedback(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await show(page, here)
        await page.fill("#prompt", "Hello")
        await page.click("#ask")
        await page.until("document.querySelector('#answer .text')")
        assert await page.text("#answer .text") == "Hello there."
        await page.click("#answer .judge button")
        await page.until("document.querySelector('#answer .judge').textContent.includes('Thank you')")
        winner = (await page.text("#answer .note")).removeprefix("answered by ")
        labels = {"model": winner, "predicted": "true"}
        assert here.gateway.services.metrics.registry.get_sample_value("orbweaver_feedback_total", labels) == 1


async def test_spend_savings_and_health_are_shown(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path, routing={"quality": 0.0}) as here:
        for _ in range(3):
            await here.ask("auto")
        await show(page, here)
        await page.until("document.querySelector('#saved').textContent !== '–'")
        assert "instead of" in await page.text("#saved-note")
        assert "on large" in await page.text("#saved-note")
        assert (await page.text("#spent")).startswith("$0.0000")
        lights = await page.run("[...document.querySelectorAll('.candidate .light')].map(one => one.ariaLabel)")
        assert lights == ["healthy", "healthy"]


async def test_a_gateway_without_models_says_how_to_add_the_first(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path, declared=[]) as here:
        await show(page, here)
        await page.until("!document.querySelector('#first-model').hidden")
        assert "orbweaver models add" in await page.text("#recipes")
        assert await page.run("document.querySelector('#columns').hidden")


async def test_the_admin_key_is_asked_for_and_kept_for_this_tab_only(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path, admin_key=SecretStr("let-me-in")) as here:
        await here.ask("auto")
        await show(page, here)
        await page.until("document.querySelector('#keys').open")
        assert await page.run("document.querySelectorAll('.decision').length") == 0
        await page.fill("#admin-key", "let-me-in")
        await page.click("#keys-form .primary")
        await page.until("document.querySelectorAll('.decision').length === 1")
        assert await page.run("sessionStorage.getItem('orbweaver.admin_key')") == "let-me-in"
        assert "let-me-in" not in json.dumps(await page.run("({...localStorage})"))


async def test_names_and_reasons_are_text_and_never_markup(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await show(page, here)
        evil = "<img src=x onerror=window.broken=1><script>window.broken=1</script>"
        row = {"id": evil, "at": 1, "model": evil, "rule": evil, "outcome": evil, "requested": evil, "reason": evil}
        row |= {"status": 200, "fallbacks": 0, "cost_usd": None, "duration_s": 1, "overhead_s": 0, "deployment": evil}
        row |= {"attempts": [[evil, evil, evil]], "usage": None, "stream": False, "decision": None}
        built = f"import('/static/view.js').then(view => document.body.append(view.decisionRow({json.dumps(row)})))"
        await page.run(built)
        await page.run("document.querySelector('body > li details').open = true")
        await page.until("document.querySelector('body > li .more')")
        assert await page.run("document.querySelectorAll('body > li img, body > li script').length") == 0
        assert await page.run("window.broken") is None


async def test_nothing_is_loaded_from_elsewhere_and_the_policy_is_strict(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await show(page, here)
        loaded = await page.run("performance.getEntriesByType('resource').map(one => one.name)")
        assert loaded
        assert all(address.startswith(here.gateway.url) for address in loaded)
        async with aiohttp.ClientSession() as session, session.get(here.gateway.url + "/") as answer:
            policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.problems == []


@pytest.mark.parametrize("width", [360, 420, 768, 1280])
async def test_the_page_fits_its_window(page: Page, tmp_path: Path, width: int) -> None:
    async with scene(tmp_path) as here:
        await here.ask("auto", "A rather long question " * 20)
        await show(page, here, width=width)
        await page.until("document.querySelectorAll('.decision').length === 1")
        await page.click(".decision summary")
        await page.until("document.querySelector('.more')")
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")


async def test_everything_can_be_reached_and_done_with_the_keyboard(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.ask("auto")
        await show(page, here)
        await page.until("document.querySelectorAll('.decision').length === 1")
        reached = []
        for _ in range(16):
            await page.press("Tab")
            reached.append(await page.run("document.activeElement.id || document.activeElement.tagName"))
        assert {"copy-address", "open-keys", "theme", "pause", "SUMMARY", "prompt", "quality", "rank", "ask"} <= set(
            reached
        )
        await page.run("document.querySelector('.decision summary').focus()")
        await page.press("Enter", text="\r")
        await page.until("document.querySelector('.decision[open]')")


async def test_the_theme_follows_the_system_and_can_be_changed_for_good(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await show(page, here, dark=True)
        assert await page.run("document.documentElement.dataset.theme") == "dark"
        await page.click("#theme")
        await show(page, here, dark=True)
        assert await page.run("document.documentElement.dataset.theme") == "light"


async def test_a_gateway_that_goes_away_is_said_and_found_again(page: Page, tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await show(page, here)
        await page.command(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        try:
            await page.until("document.querySelector('#status').textContent.startsWith('No answer')")
        finally:
            await page.command(
                "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
            )
        await page.until("document.querySelector('#status').textContent.startsWith('Ready')")
