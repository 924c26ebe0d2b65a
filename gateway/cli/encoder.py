"""`orbweaver encoder train|evaluate|score`: the capability encoder from recorded outcomes to scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from gateway.cli import encoder_versions

app = typer.Typer()
encoder_versions.register(app)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[Path, typer.Option("--data", help="Folder with prompts, outcomes, models (parquet).")]
Cache = Annotated[Path, typer.Option("--cache", help="Folder for the prompts' vectors; filled when empty.")]
Seed = Annotated[int, typer.Option("--seed", help="Same data and seed: the same result.")]
BaselineField = Literal["none", "quick", "all"]
DEFAULT_CACHE = Path(".cache/encoder")


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Folder of the artefact.")],
    cache: Cache = DEFAULT_CACHE,
    seed: Seed = 0,
    hold_out: Annotated[
        bool, typer.Option("--hold-out", help="Leave out dev and test prompts and unseen models, to be measured on.")
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Fit the encoder on recorded outcomes and write an artefact."""
    with _plain_errors():
        from capability_encoder.training.export import train_encoder

        trained = train_encoder(data, out, cache=cache, seed=seed, hold_out=hold_out)
    if json_output:
        typer.echo(json.dumps({**asdict(trained), "folder": str(trained.folder)}))
        return
    typer.echo(
        f"Artefact {trained.version} in {trained.folder} ({trained.size_mib} MiB): "
        f"{trained.models} models, {trained.prompts} prompts, {trained.outcomes} outcomes."
    )


@app.command()
def score(
    prompts: Annotated[Path, typer.Option("--prompts", help="Parquet: prompt_id, prompt.")],
    answers: Annotated[Path, typer.Option("--answers", help="Parquet: model, prompt_id, prompt, score.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet to write: prompt_id, model, p, p_low, p_high.")],
    artifact: Annotated[Path | None, typer.Option("--artifact", help="Artefact (default: the shipped one).")] = None,
    json_output: AsJson = False,
) -> None:
    """Score every prompt for every model that has aptitude answers."""
    with _plain_errors():
        from capability_encoder.scoring import score_files

        scored = score_files(prompts, answers, out, artifact=artifact)
    if json_output:
        typer.echo(json.dumps({**asdict(scored), "out": str(out)}))
        return
    typer.echo(
        f"{scored.prompts} prompts x {scored.models} models ({len(scored.known_models)} of them known by name) "
        f"scored with artefact {scored.version} into {out}."
    )


@app.command()
def evaluate(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="JSON report to write; the page with plots goes beside it.")],
    artifact: Annotated[Path | None, typer.Option("--artifact", help="Measure this artefact as it is.")] = None,
    cache: Cache = DEFAULT_CACHE,
    seed: Seed = 0,
    baselines: Annotated[BaselineField, typer.Option("--baselines", help="Which baselines to refit.")] = "all",
    draws: Annotated[int, typer.Option("--draws", help="Draws of the paired bootstrap.", min=100)] = 10_000,
    json_output: AsJson = False,
) -> None:
    """Measure the encoder and every baseline under the protocol, and compare with the bars."""
    with _plain_errors():
        from capability_encoder.training.evaluate import evaluate_encoder
        from capability_encoder.training.report import write_page

        report = evaluate_encoder(
            data,
            cache=cache,
            artifact=artifact,
            seed=seed,
            draws=draws,
            baselines=baselines,
            command=f"orbweaver encoder evaluate --seed {seed} --baselines {baselines} --draws {draws}",
            progress=lambda line: typer.echo(line, err=True),
        )
    page = out.with_suffix(".html")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report.model_dump_json(indent=1), encoding="utf-8")
    write_page(out, page)
    if json_output:
        checks = [check.model_dump() for check in report.checks]
        typer.echo(json.dumps({"out": str(out), "page": str(page), "checks": checks}))
        return
    for check in report.checks:
        typer.echo(f"{'met    ' if check.met else 'NOT met'} {check.name}: {check.measured} (wanted {check.wanted})")
    typer.echo(f"{sum(check.met for check in report.checks)} of {len(report.checks)} bars met. Page: {page}")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say what is wrong with a file or an artefact without a traceback; name the extra where a package is missing."""
    from gateway.errors import ConfigError

    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"This command needs the package {error.name!r}.", hint='pip install "orbweaver-gateway[train]"'
        ) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
