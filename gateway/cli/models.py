"""`orbweaver models`: register, show, test and remove candidates, in a running gateway or in the registry itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.aptitude_run import Budget, Full, MaxUsd, Suite, SuiteData, Wait

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="The candidate's name, as clients say it in `model`.", show_default=False)]
Url = Annotated[str | None, typer.Option("--url", help="A running gateway (default ORBWEAVER_URL, else the registry).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("add")
def add(
    name: Name,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Where it is served, up to /v1.")] = None,
    upstream_model: Annotated[str | None, typer.Option("--upstream-model", help="Its name there.")] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", help="openai (any compatible server), else anthropic, gemini, ...")
    ] = None,
    api_key_env: Annotated[str | None, typer.Option("--api-key-env", help="Variable that holds its key.")] = None,
    price_in: Annotated[float | None, typer.Option("--price-in", help="USD per million input tokens.")] = None,
    price_out: Annotated[float | None, typer.Option("--price-out", help="USD per million output tokens.")] = None,
    context: Annotated[int | None, typer.Option("--context", help="Context window in tokens.")] = None,
    can: Annotated[str | None, typer.Option("--can", help="vision,tools,json_schema,audio,logprobs,n")] = None,
    endpoints: Annotated[
        str | None, typer.Option("--endpoints", help="chat/completions,completions,embeddings,responses")
    ] = None,
    strength: Annotated[float | None, typer.Option("--strength", help="Declared quality 0..1, till measured.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Maker's series, e.g. llama-3.")] = None,
    params_b: Annotated[float | None, typer.Option("--params-b", help="Billions of parameters.")] = None,
    suite: Suite = None,
    budget: Budget = None,
    full: Full = False,
    profile: Annotated[Path | None, typer.Option("--profile", help="Import a capability profile (JSON).")] = None,
    suite_data: SuiteData = None,
    max_usd: MaxUsd = None,
    aptitude: Annotated[bool, typer.Option("--aptitude/--no-aptitude", help="Measure it (the default).")] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is measured.")] = False,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Register a model; it takes part at once, and an aptitude test (100 calls, or as said) finds out how well."""
    from gateway.cli.aptitude_run import follow, wish_of
    from gateway.cli.desk import open_desk, without_none

    fields = without_none(
        {
            "name": name,
            "base_url": base_url,
            "upstream_model": upstream_model,
            "provider": provider,
            "api_key_env": api_key_env,
            "price_in": price_in,
            "price_out": price_out,
            "context_window": context,
            "can": _words(can),
            "endpoints": _words(endpoints),
            "strength": strength,
            "family": family,
            "params_total_b": params_b,
            "profile": None if profile is None else read_profile(profile),
        }
    )
    if suite is not None or budget is not None or full or wait or (aptitude and profile is None):
        fields["aptitude"] = wish_of(suite, budget, full, suite_data, max_usd=max_usd)
    desk = open_desk(url)
    added = desk.add_model(fields)
    job = added.get("job")
    if json_output and not (wait and job):
        _print_json(added)
        return
    if json_output:
        follow(desk, str(job), json_output=True)
        return
    place = added["deployments"][0]
    typer.echo(f"Registered {name}: {place['upstream_model']} at {place['base_url'] or place['provider']}.")
    typer.echo(f"It takes requests now, as model={name!r} and through model='auto' ({desk.place}).")
    _print_warnings(added)
    typer.echo(f"Prove it with a real call: orbweaver models test {name}")
    if job and wait:
        follow(desk, job)
    elif job:
        when = "now" if desk.place.startswith("http") else "as soon as a gateway runs on this registry"
        typer.echo(f"It is measured {when} (job {job}); `--no-aptitude` leaves that out.")


@app.command("list")
def list_models(url: Url = None, json_output: Json = False) -> None:
    """All models, with state, prices and abilities."""
    from gateway.cli.desk import open_desk

    desk = open_desk(url)
    answer = desk.models()
    if json_output:
        _print_json(answer)
    elif not answer["models"]:
        typer.echo(f"No model is registered ({desk.place}).")
        typer.echo("Add the first: orbweaver models add NAME --base-url http://127.0.0.1:11434/v1 --upstream-model ID")
    else:
        _print_table(answer["models"])


@app.command("show")
def show(name: Name, url: Url = None, json_output: Json = False) -> None:
    """Everything that is known of one model."""
    from gateway.cli.desk import open_desk

    model = open_desk(url).model(name)
    if json_output:
        _print_json(model)
        return
    for field, value in model.items():
        if field not in ("deployments", "warnings") and value not in (None, [], ""):
            typer.echo(f"{field:18} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for place in model["deployments"]:
        key = {None: "no key", True: f"key in {place['api_key_env']}", False: f"{place['api_key_env']} is not set"}
        where = place["base_url"] or place["provider"]
        typer.echo(f"{'deployment':18} {place['upstream_model']} at {where}, {key[place['key_is_set']]}")
        if place["health"]:
            typer.echo(f"{'':18} {', '.join(f'{name} {value}' for name, value in place['health'].items())}")
    _print_warnings(model)


@app.command("test")
def prove(name: Name, url: Url = None, json_output: Json = False) -> None:
    """Prove a registration: one unary and one streamed call, with times and tokens. Exit code 1 if one fails."""
    from gateway.cli.desk import open_desk

    answer = open_desk(url).test_model(name)
    if json_output:
        _print_json(answer)
    else:
        for probe in answer["probes"]:
            _print_probe(probe)
    if not answer["ok"]:
        raise typer.Exit(1)


@app.command("enable")
def enable(name: Name, url: Url = None, json_output: Json = False) -> None:
    """Switch a model on."""
    _switch(name, True, url, json_output)


@app.command("disable")
def disable(name: Name, url: Url = None, json_output: Json = False) -> None:
    """Switch a model off; requests under way finish. One of the config file stays off until enabled."""
    _switch(name, False, url, json_output)


@app.command("remove")
def remove(name: Name, url: Url = None, json_output: Json = False) -> None:
    """Forget a registered model."""
    from gateway.cli.desk import open_desk

    answer = open_desk(url).remove_model(name)
    if json_output:
        _print_json(answer)
    else:
        typer.echo(f"Removed {name}." + (f" {answer['note']}" if answer["note"] else ""))


@app.command("reprofile")
def reprofile(
    name: Name,
    suite: Suite = None,
    budget: Budget = None,
    full: Full = False,
    suite_data: SuiteData = None,
    max_usd: MaxUsd = None,
    wait: Wait = True,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Measure a model again with fresh answers, and tell whether it has changed."""
    from gateway.cli.aptitude_run import begin, wish_of
    from gateway.cli.desk import open_desk

    desk = open_desk(url)
    wish = wish_of(suite, budget, full, suite_data, max_usd=max_usd)
    begin(desk, desk.measure_model(name, wish, reprofile=True), wait=wait, json_output=json_output)


def read_profile(path: Path) -> dict[str, Any]:
    """A profile file as plain data. Raises ConfigError."""
    import json

    from gateway.errors import ConfigError

    try:
        profile = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"The profile {str(path)!r} cannot be read: {error}.") from None
    if not isinstance(profile, dict):
        raise ConfigError(f"The profile {str(path)!r} must hold a JSON object.")
    return profile


def _switch(name: str, enabled: bool, url: str | None, json_output: bool) -> None:
    from gateway.cli.desk import open_desk

    model = open_desk(url).switch_model(name, enabled)
    if json_output:
        _print_json(model)
    else:
        typer.echo(f"{name} is {'on' if model['enabled'] else 'off'}.")
        _print_warnings(model)


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, ensure_ascii=False))


def _print_warnings(model: dict[str, Any]) -> None:
    for warning in model["warnings"]:
        typer.secho(f"Note: {warning}", fg="yellow", err=True)


def _print_table(models: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "state", "from", "served as", "USD in/out", "window", "can", "measured"):
        # Names are for copying: on a narrow screen the places give way.
        table.add_column(title, overflow="fold", no_wrap=title not in ("served as", "can"))
    for model in models:
        place = model["deployments"][0]
        more = len(model["deployments"]) - 1
        address = (place["base_url"] or place["provider"]).partition("://")[2] or place["provider"]
        served = f"{place['upstream_model']} at {address}" + (f" +{more}" if more else "")
        prices = "/".join("?" if model[field] is None else f"{model[field]:g}" for field in ("price_in", "price_out"))
        table.add_row(
            model["name"],
            _state(model),
            model["source"],
            served,
            prices,
            str(model["context_window"] or "?"),
            " ".join(model["can"]),
            "yes" if model["measured"] else "no",
        )
    Console().print(table)


def _state(model: dict[str, Any]) -> str:
    if not model["enabled"]:
        return "off"
    health = [place["health"] for place in model["deployments"] if place["health"]]
    if health and all(each["circuit"] == "open" for each in health):
        return "down"
    missing = any(place["key_is_set"] is False for place in model["deployments"])
    return "on, no key" if missing else "on"


def _print_probe(probe: dict[str, Any]) -> None:
    kind = "stream" if probe["stream"] else "unary"
    if not probe["ok"]:
        typer.secho(f"FAILED  {probe['deployment']} {kind}: {probe['error']}", fg="red", err=True)
        if probe["hint"]:
            typer.echo(f"        {probe['hint']}", err=True)
        return
    first = "" if probe["first_token_s"] is None else f", first token {probe['first_token_s']:.2f} s"
    known = probe["prompt_tokens"] is not None
    tokens = f"{probe['prompt_tokens']} + {probe['completion_tokens']} tokens" if known else "tokens not reported"
    typer.echo(f"ok      {probe['deployment']} {kind}: {probe['duration_s']:.2f} s{first}, {tokens}")
    if probe["reply"]:
        typer.echo(f"        {probe['answered_as'] or 'it'} said: {probe['reply']}")
