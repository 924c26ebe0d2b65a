"""`orbweaver merge methods|plan|build|lineage|serve|bench`: models made out of models that you already have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import merge_bench, merge_serve

if TYPE_CHECKING:
    from merge_backends.plan import Plan

app = typer.Typer()
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RecipeFile = Annotated[Path, typer.Argument(help="Recipe: YAML, mergekit's as it is.")]
Allowed = Annotated[
    list[Path] | None,
    typer.Option("--models-dir", help="Folder that models must lie in; may be given several times (default: any)."),
]
Budget = Annotated[str | None, typer.Option("--memory", help="Memory the merge may take, as 2GiB (default: free).")]


@app.command("methods")
def list_methods(json_output: AsJson = False) -> None:
    """List the merge methods and mixtures with their papers."""
    with _plain_errors():
        from merge_backends import moe
        from merge_backends.methods.registry import listings

        rows = [
            {"name": name, "kind": "merge", "summary": row.summary, "paper": row.paper}
            for name, row in listings().items()
        ]
        rows += [
            {"name": one.name, "kind": "mixture", "summary": one.summary, "paper": one.paper}
            for one in moe.METHODS.values()
        ]
    if json_output:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['name']:16} {row['kind']:8} {row['summary']} ({row['paper']})")


@app.command()
def plan(
    recipe: RecipeFile,
    models_dir: Allowed = None,
    memory: Budget = None,
    json_output: AsJson = False,
) -> None:
    """Check a recipe and the models it names; say what would be built and how much memory it takes."""
    with _plain_errors():
        from merge_backends.memory import parse_bytes
        from merge_backends.plan import make_plan
        from merge_backends.recipe import load_recipes

        plans = []
        recipes = load_recipes(recipe)
        names = {one.name for one in recipes if one.name}
        for one in recipes:
            if any(model.path in names for model in one.models):
                continue  # its inputs are made by the documents before it
            budget = parse_bytes(memory) if memory else None
            plans.append(make_plan(one, root=recipe.parent, allowed=models_dir, budget=budget))
        shown = [_plan_facts(made) for made in plans]
    if json_output:
        typer.echo(json.dumps({"documents": len(recipes), "plans": shown}))
        return
    for facts in shown:
        typer.echo(f"{facts['method']} of {len(facts['models'])} model(s): {facts['tensors']} tensors, ", nl=False)
        typer.echo(f"{facts['result']} on disk, about {facts['memory']} of memory. Recipe {facts['recipe_hash'][:19]}.")
        for model in facts["models"]:
            moved = "" if model["relative_change"] is None else f", moved {model['relative_change']:.4f} of the base"
            typer.echo(f"  {model['name']}: {model['role']}, licence {model['licence']}{moved}")
        for note in facts["notes"]:
            typer.echo(f"  {note}")
    if len(shown) < len(recipes):
        typer.echo(f"{len(recipes) - len(shown)} document(s) use results of others and are checked when built.")


@app.command()
def build(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", help="Folder to make; must not exist.")],
    models_dir: Allowed = None,
    memory: Budget = None,
    export: Annotated[
        bool, typer.Option("--export", help="Refuse where the parents' licences do not allow passing it on.")
    ] = False,
    allow_unknown_licence: Annotated[
        bool, typer.Option("--allow-unknown-licence", help="With --export: let unknown licences pass.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="Where tensors are merged: cpu, cuda, cuda:1.")] = "cpu",
    shard_size: Annotated[str, typer.Option("--shard-size", help="Size at which a new file is begun.")] = "4GiB",
    json_output: AsJson = False,
) -> None:
    """Build a recipe into a folder that transformers and vLLM load, with its lineage."""
    with _plain_errors():
        from merge_backends.build import Options, build_all
        from merge_backends.memory import parse_bytes
        from merge_backends.recipe import load_recipes

        options = Options(
            allowed=models_dir,
            budget=parse_bytes(memory) if memory else None,
            export=export,
            allow_unknown_licence=allow_unknown_licence,
            shard_bytes=parse_bytes(shard_size),
            device=device,
        )
        record = build_all(load_recipes(recipe), out, root=recipe.parent, options=options)
    if json_output:
        typer.echo(json.dumps({"folder": str(out), **record}))
        return
    typer.echo(f"Built {out}: {record['method']}, {record['digest'][:19]}, licence {record['licence']['licence']}.")
    for reason in record["export"]["reasons"]:
        typer.echo(f"Not for export: {reason}", err=True)


@app.command()
def lineage(
    folder: Annotated[Path, typer.Argument(help="Folder made by `merge build`.")],
    verify: Annotated[bool, typer.Option("--verify", help="Read the weights and compare their hash.")] = False,
    json_output: AsJson = False,
) -> None:
    """Show where a merge comes from: recipe, parents, content hashes, licences, measurements."""
    with _plain_errors():
        from merge_backends import lineage as records
        from merge_backends.errors import CheckpointError

        record = records.read_lineage(folder)
        if verify and not records.verify(folder):
            raise CheckpointError(f"The weights in {str(folder)!r} are not those of the record.", "Build it again.")
    if json_output:
        typer.echo(json.dumps(record))
        return
    typer.echo(f"{record['method']}, built {record['created']} by Orbweaver {record['tool']['version']}")
    typer.echo(f"  content {record['digest']}\n  recipe  {record['recipe_hash']}")
    for parent in record["parents"]:
        typer.echo(f"  {parent['role']:6} {parent['name']} ({parent['licence']}) {parent['digest'][:19]}")
    typer.echo(f"  licence {record['licence']['licence']}: {'; '.join(record['licence']['obligations']) or 'free'}")
    for reason in record["export"]["reasons"]:
        typer.echo(f"  not for export: {reason}")
    if verify:
        typer.echo("  the weights are those of the record")


def _plan_facts(made: Plan) -> dict[str, Any]:
    from merge_backends.lineage import verdict_of
    from merge_backends.memory import spoken

    models = [
        {
            "name": model.name,
            "role": "base" if model is made.base else "expert",
            "licence": model.licence,
            "digest": model.digest,
            "relative_change": made.changes.get(model.name),
        }
        for model in made.models.values()
    ]
    return {
        "method": made.recipe.method,
        "kind": made.kind,
        "name": made.recipe.name,
        "models": models,
        "tensors": len(made.layout),
        "bytes": made.nbytes,
        "result": spoken(made.nbytes),
        "memory_bytes": made.needed,
        "memory": spoken(made.needed),
        "recipe_hash": made.hash,
        "licence": verdict_of(made).licence,
        "notes": [*made.notes, *verdict_of(made).blocked],
    }


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say what is wrong with a recipe or a model without a traceback; name the extra where a package is missing."""
    from gateway.errors import ConfigError
    from merge_backends.errors import MergeError

    try:
        yield
    except MergeError as error:
        raise ConfigError(error.message, hint=error.fix or None, code="merge_error") from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("merge_backends", "gateway")):
            raise
        raise ConfigError(
            f"This command needs the package {error.name!r}.", hint='pip install "orbweaver-gateway[merge]"'
        ) from error


merge_bench.register(app, _plain_errors)
merge_serve.register(app, _plain_errors)
