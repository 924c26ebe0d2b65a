"""`orbweaver keys`: make, list and revoke client keys, in a running gateway or in the registry itself."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

app = typer.Typer()

Url = Annotated[str | None, typer.Option("--url", help="A running gateway (default ORBWEAVER_URL, else the registry).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people.", show_default=False)],
    models: Annotated[str | None, typer.Option("--models", help="Only these, comma-separated (auto counts).")] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", "--requests-per-minute", help="Requests per minute.")] = None,
    tpm: Annotated[int | None, typer.Option("--tpm", "--tokens-per-minute", help="Tokens per minute.")] = None,
    budget: Annotated[float | None, typer.Option("--budget", "--budget-usd", help="Money to spend, in USD.")] = None,
    period: Annotated[
        str, typer.Option("--period", "--budget-period", help="What the budget is for: total, day or month (UTC).")
    ] = "total",
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Make a client key. It is printed this once and stored only as a hash."""
    from gateway.cli.desk import open_desk, without_none

    fields = {
        "name": name,
        "models": None if models is None else [word.strip() for word in models.split(",") if word.strip()],
        "requests_per_minute": rpm,
        "tokens_per_minute": tpm,
        "budget_usd": budget,
        "budget_period": period,
    }
    made = open_desk(url).create_key(without_none(fields))
    if json_output:
        typer.echo(json.dumps(made, ensure_ascii=False))
        return
    typer.echo(made["key"])
    typer.echo(
        f"This is key {made['id']} of {made['name']!r}: {limits(made)}. Keep it; it is not shown again.", err=True
    )
    for warning in made["warnings"]:
        typer.secho(f"Note: {warning}", fg="yellow", err=True)


@app.command("list")
def list_keys(url: Url = None, json_output: Json = False) -> None:
    """All client keys with their limits; the keys themselves are known to their owners only."""
    from gateway.cli.desk import open_desk

    desk = open_desk(url)
    answer = desk.keys()
    if json_output:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    elif not answer["keys"]:
        typer.echo(f"There is no client key ({desk.place}). Make one: orbweaver keys create NAME")
    else:
        for key in answer["keys"]:
            state = "revoked" if key["revoked"] else "in force"
            typer.echo(f"{key['id']}  {key['prefix']}...  {state:8}  {key['name']}: {limits(key)}")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id or name.", show_default=False)],
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Revoke a key for good; every gateway refuses it within a second."""
    from gateway.cli.desk import open_desk

    key = open_desk(url).revoke_key(key_id)
    typer.echo(json.dumps(key, ensure_ascii=False) if json_output else f"Revoked {key['id']} of {key['name']!r}.")


def limits(key: dict[str, Any]) -> str:
    """A key's limits in words."""
    found = []
    if key["models"]:
        found.append("only " + ", ".join(key["models"]))
    if key["requests_per_minute"] is not None:
        found.append(f"{key['requests_per_minute']} requests/min")
    if key["tokens_per_minute"] is not None:
        found.append(f"{key['tokens_per_minute']} tokens/min")
    if key["budget_usd"] is not None:
        per = "in total" if key["budget_period"] == "total" else f"per {key['budget_period']}"
        found.append(f"{key['budget_usd']:g} USD {per}")
    return ", ".join(found) or "no limits"
