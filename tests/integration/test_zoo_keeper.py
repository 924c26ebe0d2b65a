"""Who runs the zoo's engine: one process of a state folder; the others join it, and one takes over."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.registry.records import Candidate
from gateway.registry.registry import Registry
from gateway.settings import Settings
from gateway.zoo.bundle import ZooModel, read_zoo
from gateway.zoo.first import FirstCandidates
from gateway.zoo.keeper import ZooKeeper
from tests.integration.test_zoo_engine import serving
from tests.support.registry import candidate

PROFILE = {"name": "zoo/small", "answers": [{"item": "zoo-skills/0", "suite": "zoo-skills", "text": "?", "score": 1.0}]}


@pytest.fixture(autouse=True)
def small_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo of one model behind an engine without torch."""
    monkeypatch.setattr("gateway.zoo.keeper.read_zoo", lambda: (ZooModel("zoo/small", 2_000_000, 256, PROFILE),))
    monkeypatch.setattr("gateway.zoo.keeper.engine_command", lambda cache: serving())
    monkeypatch.setattr("gateway.zoo.keeper.missing_packages", list)
    monkeypatch.setattr("gateway.zoo.keeper.LOOK_S", 0.05)


class Gateway:
    """One gateway process as far as the zoo is concerned."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.offered: list[Candidate] = []
        self.keeper = ZooKeeper(registry, folder, dict(os.environ), self.offer)

    def offer(self, candidates: Sequence[Candidate]) -> None:
        self.offered = list(candidates)
        self.registry.declare(candidates)

    @property
    def address(self) -> str | None:
        return self.offered[0].deployments[0].base_url if self.offered else None


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.02)


async def test_the_first_runs_the_engine_and_the_second_takes_over_when_it_ends(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, discover=False)
    async with Registry(settings) as one, Registry(settings) as two:
        first, second = Gateway(one, tmp_path), Gateway(two, tmp_path)
        await first.keeper.start()
        await second.keeper.start()
        await until(lambda: second.address is not None)
        assert second.address == first.address
        assert second.keeper.engine is None
        await first.keeper.close()
        await until(lambda: second.keeper.engine is not None)
        assert second.address != first.address
        await second.keeper.close()


async def test_the_profiles_are_in_the_registry_and_written_once(tmp_path: Path) -> None:
    async with Registry(Settings(state_dir=tmp_path, discover=False)) as registry:
        gateway = Gateway(registry, tmp_path)
        await gateway.keeper.start()
        assert registry.snapshot.profiles["zoo/small"]["answers"] == PROFILE["answers"]
        version = registry.snapshot.version
        await gateway.keeper._import_profiles()
        assert registry.snapshot.version == version
        await gateway.keeper.close()


async def test_the_zoo_steps_back_when_the_operator_registers_a_model(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, zoo="auto")
    async with Registry(settings) as registry:
        first = FirstCandidates(registry, settings)
        await first.start()
        assert "zoo/small" in registry.snapshot.enabled
        await registry.put_candidate(candidate("mine"))
        await until(lambda: set(registry.snapshot.enabled) == {"mine"})
        await first.close()
        assert first.zoo is None


async def test_a_zoo_that_is_asked_for_stays_beside_the_operators_models(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, zoo="on", discover=False)
    async with Registry(settings) as registry:
        await registry.put_candidate(candidate("mine"))
        first = FirstCandidates(registry, settings)
        await first.start()
        assert set(registry.snapshot.enabled) == {"mine", "zoo/small"}
        await first.close()


async def test_a_gateway_with_models_of_its_own_starts_no_zoo_by_itself(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, zoo="auto")
    async with Registry(settings) as registry:
        await registry.put_candidate(candidate("mine"))
        first = FirstCandidates(registry, settings)
        assert await first.start() == []
        assert set(registry.snapshot.enabled) == {"mine"}
        await first.close()


async def test_without_its_packages_the_gateway_says_what_the_zoo_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.zoo.keeper.missing_packages", lambda: ["torch"])
    async with Registry(Settings(state_dir=tmp_path, discover=False)) as registry:
        (note,) = await Gateway(registry, tmp_path).keeper.start()
    assert note == 'The bundled zoo needs torch: pip install "orbweaver-gateway[merge]".'


def test_a_bundle_is_read_as_models_with_answers(tmp_path: Path) -> None:
    models = {"small": {"parameters": 5, "context_window": 9, "answers": "10"}}
    (tmp_path / "profiles.json").write_text(json.dumps({"suite": "s", "items": ["a", "b"], "models": models}))
    (model,) = read_zoo(tmp_path)
    assert (model.name, model.context_window) == ("zoo/small", 9)
    assert [(each["item"], each["text"], each["score"]) for each in model.profile["answers"]] == [
        ("s/0", "a", 1.0),
        ("s/1", "b", 0.0),
    ]
