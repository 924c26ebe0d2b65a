"""`orbweaver`: the command line. Groups are imported only when asked for, so that every command starts quickly."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

import typer

from gateway import __version__


@dataclass(frozen=True, slots=True)
class Group:
    """A command group (`app` in its module) or a single command (`command` in its module)."""

    module: str
    summary: str
    single: bool = False


GROUPS: dict[str, Group] = {
    "serve": Group("gateway.cli.serve", "Start the gateway.", single=True),
    "route": Group("gateway.cli.route", "Show which model a prompt would go to, and why.", single=True),
    "models": Group("gateway.cli.models", "Register, test and manage models."),
    "keys": Group("gateway.cli.keys", "Create, list and revoke client keys."),
    "aptitude": Group("gateway.cli.aptitude", "The tests that a new model takes: suites, tasks, runs, reports."),
    "config": Group("gateway.cli.config", "Check a config file, print its schema."),
    "encoder": Group("gateway.cli.encoder", "Train, evaluate and run the capability encoder."),
    "eval": Group("gateway.cli.eval", "Route a recorded pool end to end over HTTP.", single=True),
    "merge": Group("gateway.cli.merge", "Build, check and serve models made out of models that you have."),
    "tasks": Group("gateway.cli.tasks", "Teach routing a new task from a few examples."),
}


def build_cli(arguments: list[str]) -> typer.Typer:
    """The command tree; only the group named in `arguments` is imported, the others show their summary."""
    cli = typer.Typer(
        name="orbweaver",
        help='OpenAI-compatible LLM routing gateway: say model="auto".',
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    cli.callback()(_options)
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, group in GROUPS.items():
        if name == named:
            module = import_module(group.module)
            if group.single:
                cli.command(name, help=group.summary)(module.command)
            else:
                cli.add_typer(module.app, name=name, help=group.summary, no_args_is_help=True)
        elif group.single:
            cli.command(name, help=group.summary)(_not_loaded)
        else:
            cli.add_typer(typer.Typer(), name=name, help=group.summary)
    return cli


def _not_loaded() -> None:
    """Stands for a command that was not asked for, so that `--help` lists it."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"orbweaver {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point. Errors made on purpose are printed as one message with the fix, without a traceback."""
    from gateway.errors import OrbweaverError

    try:
        build_cli(sys.argv[1:])()
    except OrbweaverError as error:
        if "--json" in sys.argv:
            import json

            body = {"message": error.message, "hint": error.hint, "code": error.code, "param": error.param}
            typer.echo(json.dumps({"error": body}), err=True)
        else:
            typer.secho(f"Error: {error.message}", fg="red", err=True)
            if error.hint:
                typer.echo(error.hint, err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
