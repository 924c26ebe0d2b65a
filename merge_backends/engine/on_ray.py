"""The engine as a Ray Serve application, for more replicas than one machine holds: `serve run deploy/ray/engine.yaml`.

Ray is an extra (`pip install "orbweaver-gateway[merge,ray]"`) and is imported only when the application is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_backends.engine.settings import EngineSettings, check_settings, read_settings
from merge_backends.errors import RecipeError

if TYPE_CHECKING:
    from fastapi import FastAPI

KINDS = ("config", "zoo")


def build(arguments: Mapping[str, Any]) -> Any:
    """The application that a Ray Serve config names; each replica is one engine in a process of its own.

    Args:
        arguments: `config` (an engine.yaml) or `zoo` (a folder to expand the bundled models in); paths must be there on
            every node.
    Raises:
        RecipeError: neither or both are given, or the settings are wrong.
    """
    from ray import serve

    # Read here too, so that a wrong setting fails the deployment and not every replica in turn.
    settings_from(arguments)
    engine = serve.ingress(app_builder(dict(arguments)))(type("Engine", (), {}))
    return serve.deployment(engine, name="Engine").bind()


def app_builder(arguments: Mapping[str, Any]) -> Callable[[], FastAPI]:
    """What a replica calls when it starts: only names and paths travel there, never loaded weights."""

    def build_engine() -> FastAPI:
        import torch

        from merge_backends.engine.app import build_app

        settings = settings_from(arguments)
        torch.set_num_threads(settings.threads)
        return build_app(settings)

    return build_engine


def settings_from(arguments: Mapping[str, Any]) -> EngineSettings:
    """Settings of one replica. Raises RecipeError; address and port are Ray Serve's own and may not be set."""
    given = {name: value for name, value in arguments.items() if value}
    if len(given) != 1 or not set(given) <= set(KINDS):
        raise RecipeError(f"The engine on Ray takes one argument of {' and '.join(KINDS)}, not {sorted(given)}.")
    if "zoo" in given:
        from merge_backends.zoo.serve import zoo_settings

        return check_settings(zoo_settings(Path(given["zoo"])).model_dump())
    settings = read_settings(Path(given["config"]))
    if settings.model_fields_set & {"host", "port"}:
        raise RecipeError("Take host and port out of the engine's config: on Ray, `http_options` says where to listen.")
    return settings
