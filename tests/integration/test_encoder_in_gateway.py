"""The capability encoder inside a gateway: it decides, explains, learns from feedback, and is swapped while running."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from capability_encoder.artifact import SHIPPED
from gateway.app import build_app
from gateway.encoder.loaded import version_store
from gateway.services import Services
from gateway.settings import Settings

pytest.importorskip("onnxruntime")
ASK = {"messages": [{"role": "user", "content": "A car travels 120 km in 90 minutes. What is its mean speed in km/h?"}]}
MODELS = ("gpt-4o-2024-05-13", "mathstral-7b-v0.1", "a-model-nobody-knows")


@pytest.fixture(scope="module", autouse=True)
def _artifact_is_there() -> None:
    if not (Path(SHIPPED) / "manifest.json").is_file():
        pytest.skip("no artefact has been built yet")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """An application with three candidates that nobody serves: decisions need no upstream."""
    settings = Settings.model_validate(
        {
            "state_dir": tmp_path / "state",
            "candidates": [{"name": name, "base_url": "http://127.0.0.1:9/v1"} for name in MODELS],
            "routing": {"quality": 1.0},
        }
    )
    app = build_app(settings)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client,
    ):
        yield client, app.state.services


async def route(client: httpx.AsyncClient, **more: object) -> dict[str, object]:
    reply = await client.post("/v1/route", json={"model": "auto", **ASK, **more}, timeout=60)
    assert reply.status_code == 200, reply.text
    answer: dict[str, object] = reply.json()
    return answer


async def test_the_trained_encoder_decides_and_explains(gateway: tuple[httpx.AsyncClient, Services]) -> None:
    decision = await route(gateway[0])
    assert decision["prior"] is False
    assert decision["model"] == "gpt-4o-2024-05-13"
    assert len(decision["neighbours"]) == 5
    for verdict in decision["candidates"]:
        assert 0.0 <= verdict["p_low"] <= verdict["p"] <= verdict["p_high"] <= 1.0
        assert {"ability", "difficulty", "interaction"} <= set(verdict["why"])


async def test_feedback_moves_the_model_that_was_graded(gateway: tuple[httpx.AsyncClient, Services]) -> None:
    client, services = gateway
    before = {item["model"]: item["p"] for item in (await route(client))["candidates"]}
    assert services.learner is not None
    for number in range(12):
        decision = await route(client)
        assert await services.learner.graded(decision["id"], MODELS[0], before[MODELS[0]], 0.0, 1.0), number
    after = {item["model"]: item["p"] for item in (await route(client))["candidates"]}
    assert after[MODELS[0]] < before[MODELS[0]] - 0.1
    assert after[MODELS[1]] == pytest.approx(before[MODELS[1]], abs=1e-6)


async def test_feedback_on_a_forgotten_decision_teaches_nothing(gateway: tuple[httpx.AsyncClient, Services]) -> None:
    client, services = gateway
    await route(client)
    assert services.learner is not None
    assert not await services.learner.graded("dec_unknown", MODELS[0], 0.5, 1.0, 1.0)


async def test_a_task_taught_while_running_is_used_and_named_at_once(
    gateway: tuple[httpx.AsyncClient, Services], tmp_path: Path
) -> None:
    from capability_encoder.embed import PromptEmbedder
    from capability_encoder.scorer import LAYERS
    from capability_encoder.task_store import teach_task

    client, services = gateway
    before = await route(client)
    examples = tmp_path / "trips.jsonl"
    asks = [f"A train travels {n} km in {n // 2} minutes. What is its mean speed in km/h?" for n in (60, 90, 150)]
    examples.write_text("".join(json.dumps({"prompt": ask}) + "\n" for ask in asks), encoding="utf-8")
    teach_task("trips", examples, state=services.settings.state_dir, embedder=PromptEmbedder.load(layers=LAYERS))
    assert services.encoder is not None
    await services.encoder.reload()
    after = await route(client)
    assert {item["why"].get("task") for item in after["candidates"]} == {"trips"}
    assert {item["why"].get("task") for item in before["candidates"]} == {None}


async def test_a_version_is_staged_promoted_and_rolled_back_in_one_call_each(
    gateway: tuple[httpx.AsyncClient, Services], tmp_path: Path
) -> None:
    client, _ = gateway
    live = (await route(client))["scorer"]
    staged = (await client.post("/admin/encoder/stage", json={"folder": str(_variant(tmp_path))}, timeout=60)).json()
    assert staged["version"] != live
    decision = await route(client)
    assert (decision["scorer"], decision["shadow_scorer"]) == (live, staged["version"])
    assert set(decision["shadow"]) == set(MODELS)
    assert (await client.post("/admin/encoder/promote", timeout=60)).json()["detail"] == staged["version"]
    assert (await route(client))["scorer"] == staged["version"]
    await client.post("/admin/encoder/rollback", timeout=60)
    assert (await route(client))["scorer"] == live


async def test_a_broken_artifact_is_refused_and_the_old_one_stays(
    gateway: tuple[httpx.AsyncClient, Services], tmp_path: Path
) -> None:
    client, _ = gateway
    live = (await route(client))["scorer"]
    folder = _variant(tmp_path)
    (folder / "models.npz").write_bytes(b"broken")
    reply = await client.post("/admin/encoder/stage", json={"folder": str(folder)}, timeout=60)
    assert reply.status_code == 409
    assert "models.npz" in reply.json()["error"]["message"]
    assert (await route(client))["scorer"] == live


async def test_without_an_artifact_the_prior_decides_and_says_so(tmp_path: Path) -> None:
    candidates = [{"name": name, "base_url": "http://127.0.0.1:9/v1"} for name in ("a", "b")]
    values = {"state_dir": tmp_path, "candidates": candidates, "routing": {"artifact": str(tmp_path / "nowhere")}}
    app = build_app(Settings.model_validate(values))
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client,
    ):
        assert (await route(client))["prior"] is True
        state = (await client.get("/admin/encoder")).json()
    assert state["state"] == "failed"
    assert "nowhere" in state["detail"]


def _variant(folder: Path) -> Path:
    """A copy of the shipped artefact with another note in its manifest, and so another version."""
    import shutil

    target = folder / "variant"
    shutil.copytree(SHIPPED, target)
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    manifest["seed"] = 4242
    (target / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert version_store(folder, target).live() == target
    return target


async def test_drift_shows_in_the_metrics_once_there_is_enough_traffic(
    gateway: tuple[httpx.AsyncClient, Services],
) -> None:
    client, services = gateway
    await route(client)
    assert "orbweaver_drift_psi " not in (await client.get("/metrics")).text
    for _ in range(200):
        await route(client)
    assert "orbweaver_drift_psi " in (await client.get("/metrics")).text
    assert services.learner is not None
    assert (await client.get("/admin/encoder")).json()["drift"]["prompts"] == 201
