"""`orbweaver route "PROMPT"`: which model would answer, and why. Asks the running gateway; forwards nothing."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def command(
    prompt: Annotated[str, typer.Argument(help="The prompt to route; - reads standard input.")],
    quality: Annotated[float | None, typer.Option("--quality", help="0 = cheapest that will do, 1 = best.")] = None,
    model: Annotated[str, typer.Option("--model", help="auto, or auto:best|balanced|cheap|fast.")] = "auto",
    max_cost_usd: Annotated[float | None, typer.Option("--max-cost-usd", help="Price cap of this request.")] = None,
    allow: Annotated[str | None, typer.Option("--allow", help="Only these models, comma-separated.")] = None,
    deny: Annotated[str | None, typer.Option("--deny", help="Never these models, comma-separated.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The gateway (default ORBWEAVER_URL or port 8080).")] = None,
    key: Annotated[str | None, typer.Option("--key-env", help="Variable that holds a client key.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the RoutingDecision as JSON.")] = False,
) -> None:
    """Show the ranking of all candidates for a prompt."""
    import sys

    from gateway.cli.http import post

    text = sys.stdin.read() if prompt == "-" else prompt
    wishes: dict[str, Any] = {"quality": quality, "max_cost_usd": max_cost_usd}
    wishes |= {name: value.split(",") for name, value in (("allow", allow), ("deny", deny)) if value}
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "orbweaver": {name: value for name, value in wishes.items() if value is not None},
    }
    decision = post(url, "/v1/route", body, key_env=key)
    if json_output:
        typer.echo(json.dumps(decision, ensure_ascii=False))
    else:
        print_decision(decision)


def print_decision(decision: dict[str, Any]) -> None:
    """The decision as a table for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{decision['model']}[/bold]  by rule [bold]{decision['rule']}[/bold]: {decision['reason']}")
    table = Table(box=None, pad_edge=False)
    for title in ("model", "p", "90 % interval", "cost USD", "utility", "note"):
        table.add_column(title, justify="left" if title in ("model", "note") else "right")
    for item in decision["candidates"]:
        mark = "-> " if item["model"] == decision["model"] else "   "
        if item["excluded_because"]:
            table.add_row(mark + item["model"], "", "", "", "", item["excluded_because"], style="dim")
            continue
        cost = "?" if item["cost_usd"] is None else f"{item['cost_usd']:.6f}"
        interval = f"{item['p_low']:.2f}..{item['p_high']:.2f}"
        note = ", ".join(f"{name} {_short(value)}" for name, value in (item["why"] or {}).items())
        table.add_row(mark + item["model"], f"{item['p']:.3f}", interval, cost, f"{item['utility']:.3f}", note)
    console.print(table)
    basis = "a declared prior, not yet a trained scorer" if decision["prior"] else "the capability encoder"
    console.print(f"scored by {decision['scorer']} ({basis}); quality {decision['quality']:g}", style="dim")


def _short(value: Any) -> str:
    return f"{value:+.2f}" if isinstance(value, float) else str(value)
