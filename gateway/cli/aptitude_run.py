"""`orbweaver aptitude run|report|cancel|resume`: measure a model, watch it, read its card."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gateway.cli.desk import Desk

Name = Annotated[str, typer.Argument(help="The model's name at the gateway.", show_default=False)]
JobId = Annotated[str, typer.Argument(help="As `aptitude run` and /admin/jobs name it.", show_default=False)]
Url = Annotated[str | None, typer.Option("--url", help="A running gateway (default ORBWEAVER_URL, else the registry).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; progress goes to standard error as JSON lines.")]
Suite = Annotated[str | None, typer.Option("--suite", help="Aptitude suite (default core-50x20).")]
SuiteData = Annotated[
    Path | None,
    typer.Option("--suite-data", envvar="ORBWEAVER_SUITE_DATA", help="Folder with prompts.parquet, for MMLU suites."),
]
Budget = Annotated[int | None, typer.Option("--budget", min=1, help="Questions at most (default 100); may end early.")]
Full = Annotated[bool, typer.Option("--full", help="Ask the whole suite.")]
MaxUsd = Annotated[float | None, typer.Option("--max-usd", min=0.0, help="Stop before this much is spent.")]
MaxCalls = Annotated[int | None, typer.Option("--max-calls", min=1, help="Stop after this many calls.")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=1, max=256, help="Calls side by side.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is done.")]

POLL_S = 0.5
# A gateway on the same registry looks for jobs every second; after this nobody is there.
TAKEN_WITHIN_S = 2.5
LINE_EVERY_S = 5.0
BAR_WIDTH = 24


def add_to(app: typer.Typer) -> None:
    """Put the commands into the group `aptitude`."""
    app.command("run")(run)
    app.command("report")(report)
    app.command("cancel")(cancel)
    app.command("resume")(resume)


def run(
    name: Name,
    suite: Suite = None,
    budget: Budget = None,
    full: Full = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Parallel form of a generated suite.")] = None,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
    concurrency: Concurrency = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask again what was answered before.")] = False,
    suite_data: SuiteData = None,
    wait: Wait = True,
    url: Url = None,
    json_output: AsJson = False,
) -> None:
    """Measure a registered model. Answers of earlier runs are used again, so an interrupted run goes on."""
    from gateway.cli.desk import open_desk

    desk = open_desk(url)
    wish = wish_of(suite, budget, full, suite_data, max_usd=max_usd, max_calls=max_calls, seed=seed)
    wish |= {"fresh": True} if fresh else {}
    wish |= {"concurrency": concurrency} if concurrency else {}
    begin(desk, desk.measure_model(name, wish), wait=wait, json_output=json_output)


def cancel(job: JobId, url: Url = None, json_output: AsJson = False) -> None:
    """Cancel a job; its answers are kept."""
    from gateway.cli.desk import open_desk

    ended = open_desk(url).cancel_job(job)
    typer.echo(json.dumps(ended) if json_output else f"{job} of {ended['subject']} is {ended['state']}.")


def resume(
    job: JobId,
    max_usd: MaxUsd = None,
    max_calls: MaxCalls = None,
    wait: Wait = True,
    url: Url = None,
    json_output: AsJson = False,
) -> None:
    """Go on with a failed or cancelled job, with other caps where given; nothing is asked twice."""
    from gateway.cli.desk import open_desk, without_none

    desk = open_desk(url)
    changes = without_none({"max_usd": max_usd, "max_calls": max_calls})
    begin(desk, desk.resume_job(job, changes), wait=wait, json_output=json_output)


def report(
    name: Name,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the card as a page that needs nothing else.")
    ] = None,
    url: Url = None,
    json_output: AsJson = False,
) -> None:
    """The model's card: what it can do, beside the pool."""
    from aptitude_tests.report import card_text
    from aptitude_tests.report_page import render_page
    from gateway.cli.desk import open_desk

    desk = open_desk(url)
    card, pool = cards(desk, name)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(render_page(card, pool), encoding="utf-8")
    if json_output:
        typer.echo(json.dumps(card.as_record(), ensure_ascii=False))
        return
    typer.echo(card_text(card, pool))
    if html is not None:
        typer.echo(f"The page is {html}.")


def cards(desk: Desk, name: str) -> tuple[Any, list[Any]]:
    """The newest card of a model, and those of the other models. Raises ConfigError where it has none."""
    from aptitude_tests.card import Card
    from gateway.errors import ConfigError

    desk.model(name)
    found: dict[str, Card] = {}
    for job in desk.jobs()["jobs"]:
        if job["state"] == "done" and "card" in job["progress"] and job["subject"] not in found:
            found[job["subject"]] = Card.of(job["progress"]["card"])
    if name not in found:
        raise ConfigError(f"{name!r} has not been measured here.", hint=f"Measure it: orbweaver aptitude run {name}")
    return found.pop(name), list(found.values())


def wish_of(
    suite: str | None, budget: int | None, full: bool, suite_data: Path | None, **others: Any
) -> dict[str, Any]:
    """The body of a wish, without what was left out."""
    from gateway.cli.desk import without_none

    if suite is not None and ("/" in suite or suite.endswith((".jsonl", ".yaml"))):
        suite = str(Path(suite).absolute())
    data = None if suite_data is None else str(suite_data.absolute())
    wish = without_none({"suite": suite, "budget": budget, "suite_data": data, **others})
    return {**wish, "full": True} if full else wish


def begin(desk: Desk, job: dict[str, Any], *, wait: bool, json_output: bool) -> None:
    """Say what was queued, or follow it to its end. Exit status 1 where it fails."""
    if wait:
        follow(desk, job["id"], json_output=json_output)
    elif json_output:
        typer.echo(json.dumps(job))
    else:
        typer.echo(f"{job['subject']} is being measured: job {job['id']} ({desk.place}).")


def follow(desk: Desk, job_id: str, *, json_output: bool = False) -> None:
    """Show a job's progress until it ends; where no gateway takes it, it runs here. Exit status 1 where it fails."""
    shown = Shown(json_output)
    began = time.monotonic()
    while True:
        job = desk.job(job_id)
        is_open = job["state"] in ("queued", "running")
        if is_open and time.time() - job["updated_at"] > TAKEN_WITHIN_S < time.monotonic() - began:
            job = desk.run_job(job_id, shown.show) or job  # nobody is at it, or whoever was has gone
        shown.show(job)
        if job["state"] in ("done", "failed", "cancelled"):
            break
        time.sleep(POLL_S)
    shown.end(job)
    if job["state"] != "done":
        raise typer.Exit(1)


class Shown:
    """Progress for people or programs: a bar on a terminal, now and then a line elsewhere, JSON lines on wish."""

    def __init__(self, json_output: bool) -> None:
        self._json = json_output
        self._bar = sys.stderr.isatty() and not json_output
        self._last = ""
        self._next_line_at = 0.0

    def show(self, job: dict[str, Any]) -> None:
        """Show a job's view, if there is something new."""
        from aptitude_tests.progress import Progress, line

        record = job["progress"].get("run")
        if not record:
            return
        values = {name: value for name, value in record.items() if name != "accuracy"}
        text = json.dumps(record) if self._json else line(Progress(**values), width=BAR_WIDTH if self._bar else 0)
        if text == self._last:
            return
        if self._bar:
            typer.echo(f"\r\x1b[2K{text}", nl=False, err=True)
        elif time.monotonic() >= self._next_line_at:
            typer.echo(text, err=True)
            self._next_line_at = time.monotonic() + LINE_EVERY_S
        self._last = text

    def end(self, job: dict[str, Any]) -> None:
        """The outcome."""
        if self._bar and self._last:
            typer.echo("", err=True)
        card = job["progress"].get("card")
        if self._json:
            typer.echo(json.dumps(job, ensure_ascii=False))
        elif job["state"] == "done" and card:
            self._tell(job, card)
        else:
            typer.secho(f"{job['subject']}: {job['error'] or job['state']}", fg="red", err=True)
            typer.echo(f"Go on where it ended: orbweaver aptitude resume {job['id']}", err=True)

    def _tell(self, job: dict[str, Any], card: dict[str, Any]) -> None:
        from aptitude_tests.card import Card

        found = Card.of(card)
        share = found.overall
        typer.echo(
            f"{job['subject']} is measured and routed by it: {share.share:.0%} right "
            f"[{share.low:.0%}, {share.high:.0%}] of {found.replies} replies to {found.suite}."
        )
        for note in (*found.notes, *([found.early] if found.early else [])):
            typer.secho(f"Note: {note}", fg="yellow", err=True)
        if found.drift is not None:
            typer.echo(found.drift["words"])
        typer.echo(f"Its card: orbweaver aptitude report {job['subject']}")
