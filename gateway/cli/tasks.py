"""`orbweaver tasks add|list|remove`: teach routing a new task from a few examples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from capability_encoder.embed import PromptEmbedder

app = typer.Typer()
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
State = Annotated[
    Path | None, typer.Option("--state-dir", help="State folder (default: ORBWEAVER_STATE_DIR, else .orbweaver).")
]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the task.")],
    examples: Annotated[Path, typer.Option("--examples", help='JSON lines: {"prompt": "..."} (1 to 20 are enough).')],
    replace: Annotated[bool, typer.Option("--replace", help="Replace a taught task of this name.")] = False,
    state_dir: State = None,
    json_output: AsJson = False,
) -> None:
    """Add a task prototype, calibrated by the known tasks it resembles; a running gateway uses it at once."""
    with _plain_errors():
        from capability_encoder.known_tasks import live_tasks
        from capability_encoder.scorer import CapabilityScorer
        from capability_encoder.task_index import TaskError
        from capability_encoder.task_store import teach_task

        embedder = _embedder()
        tasks = live_tasks(CapabilityScorer.load(embedder=embedder), _state(state_dir), embedder.fingerprint)
        if any(task.name == name and not task.is_new for task in tasks.get().tasks):
            raise TaskError(f"{name!r} is a known task already; choose another name")
        taught = teach_task(name, examples, state=_state(state_dir), embedder=embedder, replace=replace)
        tasks.refresh()
        prototype = next(task for task in tasks.get().tasks if task.name == name)
    if json_output:
        typer.echo(json.dumps({"name": name, "shots": taught.shots, "calibrated_from": prototype.calibrated_from}))
        return
    nearest = ", ".join(f"{known} {100 * weight:.0f} %" for known, weight in prototype.calibrated_from[:3])
    typer.echo(f"Task {name}: {taught.shots} example(s). Nearest known tasks: {nearest or 'none'}.")


@app.command("list")
def list_tasks(state_dir: State = None, json_output: AsJson = False) -> None:
    """List the taught tasks."""
    with _plain_errors():
        from capability_encoder.task_store import TaskStore

        tasks = TaskStore(_state(state_dir), _embedder().fingerprint).load()
    if json_output:
        typer.echo(json.dumps([{"name": task.name, "shots": task.shots} for task in tasks]))
        return
    for task in tasks:
        typer.echo(f"{task.name}  {task.shots} example(s)")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the task.")], state_dir: State = None, json_output: AsJson = False
) -> None:
    """Forget a taught task."""
    with _plain_errors():
        from capability_encoder.task_store import TaskStore

        TaskStore(_state(state_dir), _embedder().fingerprint).remove(name)
    typer.echo(json.dumps({"removed": name}) if json_output else f"Task {name} is forgotten.")


def _state(given: Path | None) -> Path:
    from gateway.settings import environment

    return given or Path(environment().get("ORBWEAVER_STATE_DIR") or ".orbweaver")


def _embedder() -> PromptEmbedder:
    from capability_encoder.embed import PromptEmbedder
    from capability_encoder.scorer import LAYERS

    return PromptEmbedder.load(layers=LAYERS)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What the encoder refuses becomes an error of the command line: one sentence, no traceback."""
    from gateway.errors import ConfigError

    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error
