"""From the answers to the routing decision, and to the card that people read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from aptitude_tests.build import build_suite
from gateway.cli.main import main
from tests.support.answering import AnsweringModel, write_suite
from tests.support.live_gateway import gateway_settings, live_gateway
from tests.support.scripted_upstream import ScriptedUpstream

ASK = {"model": "auto", "messages": [{"role": "user", "content": "Which number is larger, 3 or 7?"}]}


async def test_what_a_model_answered_decides_where_prompts_go_within_a_second(tmp_path: Path) -> None:
    file = write_suite(tmp_path / "numbers.jsonl")
    suite = build_suite(str(file))
    async with (
        ScriptedUpstream() as clever,
        ScriptedUpstream() as dull,
        live_gateway(gateway_settings(tmp_path / "state", [])) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60.0) as client,
    ):
        clever.always(AnsweringModel(suite))
        dull.always(AnsweringModel(suite, lambda item: False))
        for name, upstream in (("dull", dull), ("clever", clever)):
            wish = {"suite": str(file), "full": True, "probes": False}
            fields = {"name": name, "base_url": upstream.base_url, "aptitude": wish}
            job_id = (await client.post("/admin/models", json=fields)).json()["job"]
            job = (await client.get(f"/admin/jobs/{job_id}")).json()
            async with asyncio.timeout(60):
                while job["state"] in ("queued", "running"):
                    await asyncio.sleep(0.05)
                    job = (await client.get(f"/admin/jobs/{job_id}")).json()
            assert job["state"] == "done", job["error"]
        async with asyncio.timeout(1.0):
            while True:
                decision = (await client.post("/v1/route", json={**ASK, "orbweaver": {"quality": 1}})).json()
                p = {one["model"]: one["p"] for one in decision["candidates"]}
                if p["clever"] > p["dull"] + 0.1:
                    break
                await asyncio.sleep(0.05)
    assert (decision["model"], decision["prior"]) == ("clever", False)
    wins = job["progress"]["card"]["wins"]
    assert wins["1"]["clever"] > 0.9
    assert job["progress"]["card"]["standing"]["p"] > 0.5


def test_the_command_line_measures_where_no_gateway_runs_and_shows_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_suite(tmp_path / "numbers.jsonl")
    (tmp_path / "orbweaver.yaml").write_text(json.dumps({"routing": {"scorer": "prior"}}))
    monkeypatch.chdir(tmp_path)

    def orbweaver(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["orbweaver", *arguments])
        main_exit = 0
        try:
            main()
        except SystemExit as end:
            main_exit = int(end.code or 0)
        shown = capsys.readouterr()
        assert main_exit == 0, shown.err
        return shown.out

    with ScriptedUpstream().in_thread() as upstream:
        upstream.always(AnsweringModel(build_suite(str(file)), lambda item: item.shot < 10))
        added = orbweaver(
            "models", "add", "new", "--base-url", upstream.base_url, "--suite", str(file), "--full", "--wait"
        )
    assert "new is measured and routed by it: 50% right" in added
    assert "numbers" in orbweaver("aptitude", "report", "new", "--html", "card.html")
    assert "<h1>new</h1>" in (tmp_path / "card.html").read_text()
    assert json.loads(orbweaver("aptitude", "report", "new", "--json"))["replies"] == 20
