"""`orbweaver config check|schema|show`: the config file, before it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="Config file (default ./orbweaver.yaml).")] = None,
    json_output: AsJson = False,
) -> None:
    """Check a config file: every wrong key is named with its fix; exit status 2 if there is one."""
    from gateway.registry.declared import check_declared
    from gateway.settings import load_settings

    settings = load_settings(file)
    warnings = check_declared(settings)
    if json_output:
        typer.echo(json.dumps({"ok": True, "candidates": len(settings.candidates), "warnings": warnings}))
        return
    typer.echo(f"The configuration is valid: {len(settings.candidates)} candidate(s), registry {_where(settings)}.")
    for warning in warnings:
        typer.secho(f"Warning: {warning}", fg="yellow")


def _where(settings: object) -> str:
    """The registry URL without a password."""
    url: str = getattr(settings, "registry_url", "")
    head, at, tail = url.rpartition("@")
    return f"{head.split('//')[0]}//...@{tail}" if at else url


@app.command()
def schema(json_output: AsJson = True) -> None:
    """Print the JSON schema of the config file."""
    from gateway.settings import Settings

    typer.echo(json.dumps(Settings.model_json_schema(), indent=2))


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="Config file (default ./orbweaver.yaml).")] = None,
    json_output: AsJson = False,
) -> None:
    """Print the settings in force, after file, environment and defaults."""
    from gateway.settings import load_settings

    values = load_settings(file).model_dump(mode="json")
    if json_output:
        typer.echo(json.dumps(values, indent=2))
        return
    import yaml

    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)
