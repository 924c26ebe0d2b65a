"""The shipped Grafana dashboard, alerts and recording rules, asked of a real Prometheus beside a gateway at work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.prometheus import DEPLOY, PROMETHEUS, PROMTOOL, Prometheus, prometheus
from tests.support.scripted_upstream import Received, Reply, ScriptedUpstream, chat_stream, error_answer, usual_reply

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "orbweaver.json").read_text())
TARGETS = [
    pytest.param(panel["title"], target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
KINDS = {panel["title"]: panel["type"] for panel in DASHBOARD["panels"]}
INSTANT = ("piechart", "bargauge", "barchart")
QUIET = ("Cooldown left", "Ledger", "Limits counted alone", "Models by state")  # 0 is what they should show here
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="needs the prometheus binary")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs the promtool binary")
with_scene = pytest.mark.asyncio(loop_scope="module")
pytestmark = pytest.mark.prometheus


def for_prometheus(expression: str) -> str:
    """Fill in Grafana's variables."""
    for name, value in {"$__rate_interval": "3s", "$__range": "60s", "$model": ".*"}.items():
        expression = expression.replace(name, value)
    return expression


class CheapServer:
    """The cheap model's server: some prompts make it fail, some only the first time, some make it slow."""

    def __init__(self) -> None:
        self._busy = False

    def __call__(self, received: Received) -> Reply:
        text = json.dumps(received.json.get("messages", ""))
        if "always fail" in text:
            return error_answer(500, "The model fell over.", "server_error")
        if "second try" in text:
            self._busy = not self._busy
            if self._busy:
                return error_answer(503, "Busy.", "overloaded")
        if received.json.get("stream"):
            usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
            return chat_stream(usage=usage, pause_s=5.0 if "slowly" in text else 0.01)
        return usual_reply(received)


@dataclass
class Traffic:
    """Everything a gateway sees in a day, over and over."""

    gateway: LiveGateway
    session: aiohttp.ClientSession
    limited_key: str = ""

    async def go_on(self) -> None:
        """One round after the other until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(0.02)

    async def round(self) -> None:
        decision = await self.ask("auto", "Why is the sky blue?")
        await self.ask("auto:best", "Prove it.", stream=True)
        await self.ask("small", "Named.", stream=True)
        await self.ask("free", "No price.")
        await self.ask("small", "Answered at the second try.")
        await self.ask("small", "always fail, named")
        await self.ask("auto", "always fail here", orbweaver={"quality": 0.0})
        await self.ask("nobody-knows-this", "Unknown.")
        await self.ask("small", "Limited.", key=self.limited_key)
        await self.ask("small", "Turned away.", key="sk-nobody-has-this-key")
        await self.leave_early()
        if decision is not None:
            feedback = {"decision_id": decision, "score": 1.0}
            async with self.session.post(f"{self.gateway.base_url}/feedback", json=feedback) as answer:
                assert answer.status == 200, await answer.text()

    async def ask(self, model: str, text: str, *, key: str | None = None, **body: Any) -> str | None:
        """One request; gives its decision id."""
        body |= {"model": model, "messages": [{"role": "user", "content": text}]}
        headers = {"authorization": f"Bearer {key}"} if key else {}
        url = f"{self.gateway.base_url}/chat/completions"
        async with self.session.post(url, json=body, headers=headers) as answer:
            await answer.read()
            return answer.headers.get("x-orbweaver-decision-id")

    async def leave_early(self) -> None:
        """Close the connection in the middle of a stream."""
        body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "slowly"}]}
        with contextlib.suppress(TimeoutError):
            timeout = aiohttp.ClientTimeout(total=0.1)
            async with self.session.post(
                f"{self.gateway.base_url}/chat/completions", json=body, timeout=timeout
            ) as answer:
                await answer.read()


@dataclass
class Scene:
    """A Prometheus that has watched a busy gateway, and when it began."""

    prometheus: Prometheus
    began: float


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("prometheus")
    async with ScriptedUpstream() as cheap, ScriptedUpstream() as dear:
        cheap.always(CheapServer())
        settings = gateway_settings(folder / "state", candidates(cheap.base_url, dear.base_url))
        async with live_gateway(settings) as gateway, aiohttp.ClientSession() as session:
            traffic = Traffic(gateway, session, await make_key(gateway, session))
            async with prometheus(folder, f"127.0.0.1:{gateway.port}") as server:
                began = time.time()
                working = asyncio.create_task(traffic.go_on())
                await until_seen(server, working)
                yield Scene(server, began)
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)


def candidates(cheap: str, dear: str) -> list[dict[str, Any]]:
    return [
        {"name": "small", "base_url": cheap, "price_in": 0.1, "price_out": 0.4, "strength": 0.6},
        {"name": "large", "base_url": dear, "price_in": 5.0, "price_out": 20.0, "strength": 0.8},
        {"name": "free", "base_url": dear, "strength": 0.1},
    ]


async def make_key(gateway: LiveGateway, session: aiohttp.ClientSession) -> str:
    """A client key that may ask once a minute."""
    async with session.post(f"{gateway.url}/admin/keys", json={"name": "slow", "requests_per_minute": 1}) as answer:
        made = await answer.json()
        assert answer.status == 201, made
        return str(made["key"])


async def until_seen(server: Prometheus, working: asyncio.Task[None]) -> None:
    """Wait until Prometheus has seen the rarest series grow for longer than the rates look back."""
    async with asyncio.timeout(60):
        while not await server.query("min_over_time((orbweaver_feedback_score_count > 2)[4s:500ms])"):
            if working.done():
                working.result()
            await asyncio.sleep(0.25)


def is_data(series: dict[str, Any], *, zero_counts: bool = True) -> bool:
    """Whether a series holds a number, or (`zero_counts` false) one other than 0."""
    values = [float(value) for _, value in series.get("values") or [series["value"]]]
    return any(not math.isnan(value) and (zero_counts or value != 0.0) for value in values)


@needs_prometheus
@with_scene
@pytest.mark.parametrize(("title", "expression"), TARGETS)
async def test_every_panel_shows_data(scene: Scene, title: str, expression: str) -> None:
    query, counts_zero = for_prometheus(expression), title in QUIET

    async def has_data() -> bool:
        if KINDS[title] in INSTANT:
            result = await scene.prometheus.query(query)
        else:
            result = await scene.prometheus.query_range(query, start=scene.began, end=time.time())
        return any(is_data(series, zero_counts=counts_zero) for series in result)

    # A rate of this moment needs two scrapes with traffic between them, which a busy machine may still owe.
    async with asyncio.timeout(30):
        while not await has_data():
            await asyncio.sleep(0.25)


@needs_prometheus
@with_scene
async def test_every_rule_is_evaluated_without_an_error(scene: Scene) -> None:
    rules = await scene.prometheus.rules()
    assert len(rules) >= 20
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}


@needs_prometheus
@with_scene
@pytest.mark.parametrize(
    "name",
    [
        rule["record"]
        for rule in yaml.safe_load((DEPLOY / "prometheus" / "recording_rules.yml").read_text())["groups"][0]["rules"]
    ],
)
async def test_every_recording_rule_records(scene: Scene, name: str) -> None:
    async with asyncio.timeout(20):
        while not any(is_data(series) for series in await scene.prometheus.query(name)):
            await asyncio.sleep(0.25)


@needs_prometheus
@with_scene
async def test_no_series_repeats_what_a_client_sent(scene: Scene) -> None:
    found = await scene.prometheus.query('{job="orbweaver"}')
    assert "nobody-knows-this" not in json.dumps(found)


@needs_promtool
def test_the_shipped_configuration_is_valid() -> None:
    done = subprocess.run(
        [str(PROMTOOL), "check", "config", "prometheus.yml"], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@needs_promtool
def test_each_alert_fires_when_it_should() -> None:
    folder = DEPLOY / "prometheus" / "tests"
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "alerts_test.yml"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test_and_says_what_to_do() -> None:
    folder = DEPLOY / "prometheus"
    alerts = yaml.safe_load((folder / "alerts.yml").read_text())["groups"][0]["rules"]
    tested = {
        case["alertname"]
        for test in yaml.safe_load((folder / "tests" / "alerts_test.yml").read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert {alert["alert"] for alert in alerts} == tested
    assert all(set(alert["annotations"]) == {"summary", "description"} for alert in alerts)


def test_the_committed_dashboard_is_what_the_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEPLOY / "grafana"))
    import build_dashboard  # type: ignore[import-not-found, unused-ignore]

    assert (DEPLOY / "grafana" / "dashboards" / "orbweaver.json").read_text() == build_dashboard.render()


def test_panels_do_not_overlap_and_each_says_what_it_shows() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["description"]
        taken |= cells


def test_every_metric_that_the_dashboard_asks_for_exists() -> None:
    from gateway.telemetry.metrics import Metrics

    known = {name for family in Metrics().registry.collect() for name in (family.name, family.name + "_total")}
    live = {"orbweaver_deployment", "orbweaver_candidates", "orbweaver_ledger", "orbweaver_limiter"}
    asked = {
        name
        for _, expr in (param.values for param in TARGETS)
        for name in re.findall(r"(?:orbweaver|gen_ai)_\w+", str(expr))
    }
    asked -= {"gen_ai_request_model", "gen_ai_token_type"}
    unknown = {name for name in asked if re.sub(r"_(bucket|sum|count)$", "", name) not in known}
    assert {name for name in unknown if not name.startswith(tuple(live))} == set()


def test_provisioning_points_at_the_dashboard_and_its_data_source() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == source["uid"]
    provider = yaml.safe_load((folder / "dashboards" / "orbweaver.yml").read_text())["providers"][0]
    assert Path(provider["options"]["path"]).name == "dashboards"
