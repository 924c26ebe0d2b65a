"""`orbweaver serve`: start the gateway."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[Path | None, typer.Option("--config", help="Config file (default ./orbweaver.yaml).")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="TCP port; 0 picks a free one.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Worker processes.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the address as one JSON line.")] = False,
) -> None:
    """Start the gateway and serve until SIGINT or SIGTERM; open streams then finish first."""
    from gateway.registry.declared import check_declared
    from gateway.server import serve
    from gateway.settings import load_settings

    overrides = {"server.host": host, "server.port": port, "server.workers": workers}
    settings = load_settings(config, overrides)
    warnings = check_declared(settings)
    announce = _announce_json if json_output else _announce
    try:
        serve(settings, config_path=config, announce=lambda address, notes: announce(address, [*warnings, *notes]))
    except SystemExit as end:
        if end.code:
            raise
    if not json_output:
        typer.echo("Orbweaver has stopped.")


def _announce(address: str, notes: list[str]) -> None:
    typer.echo("\n".join([f"Orbweaver listens on {address}  (dashboard: {address}/)", *notes]))
    sys.stdout.flush()


def _announce_json(address: str, notes: list[str]) -> None:
    import json

    typer.echo(json.dumps({"address": address, "notes": notes}))
