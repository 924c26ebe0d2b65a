"""`orbweaver merge serve`: the engine, an OpenAI-compatible server over local models, mixtures and merges."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

PlainErrors = Callable[[], AbstractContextManager[None]]


def register(app: typer.Typer, plain_errors: PlainErrors) -> None:
    """Add the command to the `merge` group; `plain_errors` turns merging errors into messages."""

    @app.command()
    def serve(
        config: Annotated[Path | None, typer.Option("--config", help="engine.yaml: models, merges, limits.")] = None,
        model: Annotated[
            list[str] | None, typer.Option("--model", help="NAME=DIR: serve a folder; may be given several times.")
        ] = None,
        recipe: Annotated[
            list[str] | None, typer.Option("--recipe", help="NAME=FILE: build a recipe when first asked for, serve it.")
        ] = None,
        zoo: Annotated[Path | None, typer.Option("--zoo", help="Serve the bundled zoo too; expanded here.")] = None,
        models_dir: Annotated[
            list[Path] | None, typer.Option("--models-dir", help="Folder that models must lie in (default: any).")
        ] = None,
        host: Annotated[str | None, typer.Option("--host", help="Address to listen on (default 127.0.0.1).")] = None,
        port: Annotated[int | None, typer.Option("--port", help="TCP port; 0 (the default) picks a free one.")] = None,
        device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.")] = None,
        threads: Annotated[int | None, typer.Option("--threads", help="Of torch (default 1).")] = None,
        memory_gb: Annotated[float | None, typer.Option("--memory-gb", help="Weights kept in memory.")] = None,
        preload: Annotated[bool, typer.Option("--preload", help="Load all models at the start.")] = False,
        json_output: Annotated[bool, typer.Option("--json", help="Print the address as one JSON line.")] = False,
    ) -> None:
        """Serve models over OpenAI's interface until SIGINT or SIGTERM; running answers then finish first."""
        with plain_errors():
            from merge_backends.engine.server import serve as serve_engine
            from merge_backends.engine.settings import named_paths, read_settings

            values: dict[str, Any] = {
                "host": host,
                "port": port,
                "device": device,
                "threads": threads,
                "memory_gb": memory_gb,
                "allowed": models_dir,
                "preload": preload or None,
                "models": named_paths(model or [], "--model"),
                "recipes": named_paths(recipe or [], "--recipe"),
            }
            if zoo is not None:
                from merge_backends.zoo.serve import zoo_settings

                bundled = zoo_settings(zoo).model_dump(include={"models", "merges"})
                values["models"] = {**bundled["models"], **values["models"]}
                values["merges"] = bundled["merges"]
            settings = read_settings(config, values)
            try:
                serve_engine(settings, _announce_json if json_output else _announce)
            except SystemExit as end:
                if end.code:
                    raise
            if not json_output:
                typer.echo("The engine has stopped.")


def _announce(address: str) -> None:
    typer.echo(f"The engine listens on {address}/v1  (GET {address}/v1/models lists what it serves)")
    sys.stdout.flush()


def _announce_json(address: str) -> None:
    typer.echo(json.dumps({"address": address}))
    sys.stdout.flush()
