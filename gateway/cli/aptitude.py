"""`orbweaver aptitude suites|show`: what a new model is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.aptitude_run import add_to

if TYPE_CHECKING:
    from aptitude_tests.item import Item, Task

app = typer.Typer()
add_to(app)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SuiteName = Annotated[str, typer.Argument(help="A bundled suite, a task file (.jsonl, .yaml), or a folder of them.")]
SuiteData = Annotated[
    Path | None,
    typer.Option("--suite-data", envvar="ORBWEAVER_SUITE_DATA", help="Folder with prompts.parquet, for MMLU suites."),
]


@contextmanager
def readable_errors() -> Iterator[None]:
    """Errors of the aptitude tests as errors of the command line, with their hints."""
    from aptitude_tests.errors import AptitudeError
    from gateway.errors import ConfigError

    try:
        yield
    except AptitudeError as error:
        raise ConfigError(error.message, hint=error.hint, code="aptitude_error") from error


@app.command()
def suites(json_output: AsJson = False) -> None:
    """List the bundled suites."""
    from aptitude_tests.build import bundled_suites, read_declaration
    from aptitude_tests.item import SHOTS
    from aptitude_tests.suite_data import list_tasks

    records: list[dict[str, Any]] = []
    with readable_errors():
        for name in bundled_suites():
            declared, tasks = read_declaration(name), list_tasks(name)
            records.append(
                {
                    "suite": name,
                    "version": declared["version"],
                    "summary": declared["summary"],
                    "tasks": len(tasks),
                    "items": len(tasks) * SHOTS,
                    "languages": sorted({task.language for task in tasks}),
                    "domains": sorted({task.domain for task in tasks}),
                    "modalities": sorted({task.modality for task in tasks}),
                    "texts": "loaded at run time" if "items" in declared else "bundled",
                }
            )
    if json_output:
        typer.echo(json.dumps(records, ensure_ascii=False))
        return
    for record in records:
        typer.secho(f"{record['suite']}  ({record['tasks']} tasks x {SHOTS} shots)", bold=True)
        typer.echo(f"  {record['summary']}")
        typer.echo(f"  languages {', '.join(record['languages'])}; texts {record['texts']}")


@app.command()
def show(
    suite: SuiteName = "core-50x20",
    task: Annotated[str | None, typer.Option("--task", help="Show items of this task.")] = None,
    shots: Annotated[int, typer.Option("--shots", min=1, max=20, help="How many items of the task.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Parallel form of a generated suite.")] = 0,
    suite_data: SuiteData = None,
    json_output: AsJson = False,
) -> None:
    """Show the tasks of a suite, or with --task the items of one of them with their gold answers."""
    from aptitude_tests.suite_data import list_tasks, load_suite

    with readable_errors():
        if task is None:
            print_tasks(list_tasks(suite), json_output)
            return
        loaded = load_suite(suite, seed=seed, data_dir=suite_data)
        known = [entry.name for entry in loaded.tasks]
        if task not in known:
            import difflib

            from aptitude_tests.errors import AptitudeError

            near = difflib.get_close_matches(task, known, n=3, cutoff=0.3) or known[:3]
            raise AptitudeError(f"suite {suite!r} has no task {task!r}.", hint=f"Did you mean {' or '.join(near)}?")
        print_items(loaded.items_of(task)[:shots], json_output)


def print_tasks(tasks: tuple[Task, ...], json_output: bool) -> None:
    """A line for each task, or JSON."""
    from dataclasses import asdict

    if json_output:
        typer.echo(json.dumps([asdict(task) for task in tasks], ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("task", "language", "domain", "modality", "scorer", "asks"):
        table.add_column(title, overflow="fold")
    for task in tasks:
        table.add_row(task.name, task.language, task.domain, task.modality, task.scorer, task.summary)
    Console().print(table)


def print_items(items: tuple[Item, ...], json_output: bool) -> None:
    """Items as a model gets them, with their gold answers."""
    from aptitude_tests.render import render, render_text

    if json_output:
        records = [
            {"id": item.id, "hash": item.hash, "difficulty": item.difficulty, "gold": item.gold, "scorer": item.scorer}
            | render(item).as_fields()
            for item in items
        ]
        typer.echo(json.dumps(records, ensure_ascii=False))
        return
    for item in items:
        typer.secho(f"{item.id}  {item.difficulty}", bold=True)
        typer.echo(render_text(item))
        notes = [f"{len(item.images)} image(s)"] * bool(item.images) + [f"{len(item.tools)} tools"] * bool(item.tools)
        gold = item.gold if isinstance(item.gold, str | int) else json.dumps(item.gold, ensure_ascii=False)
        typer.secho(f"-> {gold}" + (f"  ({', '.join(notes)})" if notes else "") + "\n", fg="green")
