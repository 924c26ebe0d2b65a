"""The Ray Serve config of the engine: its application can be imported, its arguments are understood, its bounds fit."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from merge_backends.engine.on_ray import settings_from
from merge_backends.engine.settings import EngineSettings
from merge_backends.errors import RecipeError

CONFIG = Path(__file__).parents[2] / "deploy" / "ray" / "engine.yaml"


@pytest.fixture
def application() -> dict[str, Any]:
    (found,) = yaml.safe_load(CONFIG.read_text())["applications"]
    return dict(found)


def test_the_application_is_where_the_config_says(application: dict[str, Any]) -> None:
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_the_bundled_zoo_is_an_argument_that_is_understood(application: dict[str, Any], tmp_path: Path) -> None:
    assert set(application["args"]) == {"zoo"}
    assert "arithmetic" in settings_from({"zoo": str(tmp_path)}).models


def test_a_replica_can_hold_what_ray_sends_it_and_scales_before_it_is_full(application: dict[str, Any]) -> None:
    (deployment,) = application["deployments"]
    usual = EngineSettings()
    assert deployment["max_ongoing_requests"] <= usual.batch + usual.queue
    assert deployment["autoscaling_config"]["target_ongoing_requests"] <= usual.batch
    assert deployment["autoscaling_config"]["target_ongoing_requests"] < deployment["max_ongoing_requests"]


def test_the_config_is_what_ray_accepts() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="ray is not installed")
    schema.ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))


def test_an_engine_config_is_read_and_its_address_refused(tmp_path: Path) -> None:
    config = tmp_path / "engine.yaml"
    config.write_text(f"models: {{small: {tmp_path}}}\nbatch: 8\n")
    assert settings_from({"config": str(config)}).batch == 8
    config.write_text("port: 8091\n")
    with pytest.raises(RecipeError, match="http_options"):
        settings_from({"config": str(config)})


@pytest.mark.parametrize("arguments", [{}, {"zoo": "a", "config": "b"}, {"models": "a"}], ids=str)
def test_other_arguments_are_refused_with_those_that_exist(arguments: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="config and zoo"):
        settings_from(arguments)
