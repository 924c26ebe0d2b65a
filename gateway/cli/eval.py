"""`orbweaver eval`: route a pool of recorded models end to end over HTTP, and report accuracy, cost and faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    upstream: Annotated[str, typer.Option("--upstream", help="Address that serves the recorded answers (no /v1).")],
    models: Annotated[str, typer.Option("--models", help="The pool, comma-separated.")],
    data: Annotated[Path, typer.Option("--data", help="Folder: prompts, outcomes, responses, models, aptitude.")],
    out: Annotated[Path, typer.Option("--out", help="JSON report to write; the page goes beside it.")],
    split: Annotated[str, typer.Option("--split", help="Whose prompts are asked: train, dev or test.")] = "test",
    quality: Annotated[
        str, typer.Option("--quality", help="Settings of the dial; 1 among them.")
    ] = "0.3,0.5,0.7,0.85,1",
    budget: Annotated[int, typer.Option("--budget", min=1, help="Aptitude calls for each model at most.")] = 100,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many prompts.")] = None,
    artifact: Annotated[
        Path | None, typer.Option("--artifact", help="Encoder; one trained with --hold-out measures honestly.")
    ] = None,
    faulty: Annotated[
        str | None, typer.Option("--faulty-upstream", help="The same answers with faults, for a last pass.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Start a gateway, register the pool with `models add`, ask every prompt with the official client, grade, count.

    Exit status 1 where a request was lost, doubled or not answered, or HTTP and offline results differ.
    """
    import shlex
    import sys

    from gateway.errors import ConfigError
    from gateway.evaluation.page import write_page
    from gateway.evaluation.run import Plan, evaluate

    try:
        dials = tuple(sorted(float(part) for part in quality.split(",")))
    except ValueError:
        raise ConfigError(f"--quality {quality!r} is not a list of numbers.", hint="For example 0.3,0.7,1.") from None
    plan = Plan(
        upstream=upstream,
        models=tuple(part.strip() for part in models.split(",") if part.strip()),
        data=data,
        split=split,
        dials=dials,
        budget=budget,
        limit=limit,
        artifact=artifact,
        faulty=faulty,
        command="orbweaver " + shlex.join(sys.argv[1:]),
    )
    report = evaluate(plan, lambda line: typer.echo(line, err=True))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report.model_dump_json(indent=1), encoding="utf-8")
    page = write_page(report, out.with_suffix(".html"))
    problems = report.problems
    if json_output:
        typer.echo(json.dumps({"out": str(out), "page": str(page), "problems": problems}))
    else:
        for note in report.notes:
            typer.secho(f"Note: {note}", fg="yellow", err=True)
        for problem in problems:
            typer.secho(f"Problem: {problem}", fg="red", err=True)
        typer.echo(f"Report: {out}; page: {page}")
    if problems:
        raise typer.Exit(1)
