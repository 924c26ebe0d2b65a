"""`orbweaver merge bench`: fine-tunes an encoder per task, merges the experts by every method, prints the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

PlainErrors = Callable[[], AbstractContextManager[None]]


def register(app: typer.Typer, plain_errors: PlainErrors) -> None:
    """Add the command to the `merge` group; `plain_errors` turns merging errors into messages."""

    @app.command()
    def bench(
        data: Annotated[Path, typer.Option("--data", help="Folder of Parquet files: text, label, split.")],
        tasks: Annotated[str, typer.Option("--tasks", help="Names of the files, as in trec6,cola,sst2.")],
        out: Annotated[Path, typer.Option("--out", help="JSON report to write; its page (.html) goes beside it.")],
        methods: Annotated[str, typer.Option("--methods", help="Rows of the table, as in linear,ties,smile.")] = "all",
        seed: Annotated[int, typer.Option("--seed", help="Draws the train rows and everything random.")] = 0,
        base: Annotated[Path | None, typer.Option("--base", help="Base encoder (default: bundled MiniLM).")] = None,
        cache: Annotated[Path, typer.Option("--cache", help="Folder that keeps experts and finished rows.")] = Path(
            ".cache/merge_study"
        ),
        train_rows: Annotated[int, typer.Option("--train-rows", min=1, help="Per task, at most.")] = 2000,
        validation_rows: Annotated[int, typer.Option("--validation-rows", min=2, help="Per task, at most.")] = 300,
        test_rows: Annotated[int, typer.Option("--test-rows", min=1, help="Per task, at most.")] = 1000,
        epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of fine-tuning each expert.")] = 2,
        learning_rate: Annotated[float, typer.Option("--learning-rate", help="Of fine-tuning.")] = 2e-4,
        front: Annotated[
            list[str] | None, typer.Option("--front", help="Two or three of the tasks: their Pareto front, too.")
        ] = None,
        join: Annotated[
            list[Path] | None, typer.Option("--join", help="Report of another seed to average with.")
        ] = None,
        threads: Annotated[int, typer.Option("--threads", min=1, help="Of torch.")] = 1,
        full_precision: Annotated[bool, typer.Option("--fp32", help="No bf16 matrix products.")] = False,
        json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Compare merge methods on your own tasks: a table of methods x tasks, with intervals."""
        with plain_errors():
            from merge_backends.study.bench import Bench, run_bench, sets_of_tasks
            from merge_backends.study.data import Sizes
            from merge_backends.study.experts import Training
            from merge_backends.study.report import as_markdown

            report = run_bench(
                Bench(
                    data=data,
                    tasks=_names(tasks),
                    out=out,
                    methods=_names(methods),
                    seed=seed,
                    base=base,
                    cache=cache,
                    sizes=Sizes(train_rows, validation_rows, test_rows),
                    training=Training(epochs=epochs, learning_rate=learning_rate, half=not full_precision),
                    front=sets_of_tasks(front or ()),
                    join=tuple(join or ()),
                    threads=threads,
                    half=not full_precision,
                )
            )
            table = as_markdown(report)
        if json_output:
            typer.echo(json.dumps({key: report[key] for key in ("date", "tasks", "seeds", "table", "fronts")}))
            return
        typer.echo(table, nl=False)
        typer.echo(f"Report in {out}, page in {out.with_suffix('.html')}.")


def _names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(",") if name.strip())
