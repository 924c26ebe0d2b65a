"""`orbweaver encoder versions|stage|promote|rollback`: a new artefact on trial, in force, and taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from capability_encoder.versions import VersionStore

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the `encoder` group."""
    for command in (versions, stage, promote, rollback):
        app.command()(command)


def versions(json_output: AsJson = False) -> None:
    """Show which artefact decides, which is on trial, and which can be gone back to."""
    _show(_store(), json_output)


def stage(
    folder: Annotated[Path, typer.Argument(help="Folder that `encoder train --out` wrote.")],
    json_output: AsJson = False,
) -> None:
    """Put an artefact on trial: a running gateway logs its scores beside the live ones within a second."""
    from capability_encoder.scorer import KIND

    _change(lambda store: store.stage(folder, kind=KIND), json_output)


def promote(json_output: AsJson = False) -> None:
    """Let the artefact on trial decide."""
    _change(lambda store: store.promote(), json_output)


def rollback(json_output: AsJson = False) -> None:
    """Let the artefact that decided before decide again."""
    _change(lambda store: store.rollback(), json_output)


def _store() -> VersionStore:
    from gateway.encoder.loaded import version_store
    from gateway.settings import load_settings

    settings = load_settings()
    return version_store(settings.state_dir, settings.routing.artifact)


def _change(step: Callable[[VersionStore], Any], json_output: bool) -> None:
    from capability_encoder.artifact import ArtifactError
    from gateway.errors import ConfigError

    store = _store()
    try:
        step(store)
    except ArtifactError as error:
        raise ConfigError(f"{error}.", code="invalid_artifact") from None
    _show(store, json_output)


def _show(store: VersionStore, json_output: bool) -> None:
    from dataclasses import asdict

    state = asdict(store.state())
    if json_output:
        typer.echo(json.dumps(state))
        return
    typer.echo(
        f"live    {state['live']}\nshadow  {state['shadow'] or '-'}\nearlier {', '.join(state['history']) or '-'}"
    )
