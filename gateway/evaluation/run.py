"""`evaluate`: register a pool at a gateway of its own, route its prompts over HTTP, grade and count."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.http import call
from gateway.errors import ConfigError, OrbweaverError
from gateway.evaluation import figures
from gateway.evaluation.asking import Asked, ask_all
from gateway.evaluation.grading import check
from gateway.evaluation.offline import compare, score_offline
from gateway.evaluation.own_gateway import OwnGateway, own_gateway
from gateway.evaluation.recorded import FloatArray, RecordedPool, load_pool
from gateway.evaluation.report import Books, EvalReport, Faults, Registered

Say = Callable[[str], None]
DIALS = (0.3, 0.5, 0.7, 0.85, 1.0)
FAULT_QUALITY = 0.7
# Short waits, so that a hanging upstream is left soon; exact usage of streams, so that the books can balance.
SECTIONS = {
    "timeouts": {"first_token_s": 3.0, "answer_s": 3.0, "idle_s": 3.0, "total_s": 30.0},
    "telemetry": {"stream_usage": "always"},
}
PAGE = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """What to evaluate. `faulty` is a second address of the same upstream that fails and hangs on purpose."""

    upstream: str
    models: tuple[str, ...]
    data: Path
    split: str = "test"
    dials: tuple[float, ...] = DIALS
    budget: int = 100
    limit: int | None = None
    artifact: Path | None = None
    faulty: str | None = None
    command: str = "orbweaver eval"


def evaluate(plan: Plan, say: Say = lambda _: None) -> EvalReport:
    """Run the plan. Raises OrbweaverError where the data, the upstream or the gateway cannot be used."""
    if 1.0 not in plan.dials:
        raise ConfigError("The dial's settings must include 1, where price does not count.", param="quality")
    pool = load_pool(plan.data, plan.models, split=plan.split, limit=plan.limit)
    pool = answerable(plan.upstream, pool)
    costs = figures.costs_of(pool)
    say(f"{len(pool.prompts)} prompts, {len(pool.models)} models; the best single one is {pool.names[pool.best]}")
    with tempfile.TemporaryDirectory(prefix="orbweaver-eval-") as name:
        folder = Path(name)
        with own_gateway(folder, artifact=plan.artifact, sections=SECTIONS) as gateway:
            registered = [_register(gateway, plan, model, say) for model in pool.models]
            runs, answers = _route(gateway, plan, pool, costs, say)
            books = _books(gateway, pool, costs, [one for _, asked in answers for one in asked])
            faults = None if plan.faulty is None else _with_faults(gateway, plan, pool, costs, say)
        offline = asyncio.run(score_offline(folder / "state", plan.artifact, pool))
    at_best = next(asked for quality, asked in answers if quality == 1.0)
    return EvalReport(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        command=plan.command,
        commit=_commit(),
        split=plan.split,
        prompts=len(pool.prompts),
        datasets=dict(Counter(prompt.dataset for prompt in pool.prompts)),
        artifact=offline.version,
        best_single=pool.names[pool.best],
        models=registered,
        singles=figures.singles(pool, costs),
        runs=runs,
        agreement=compare(pool, offline, at_best),
        grading=check(pool, at_best),
        books=books,
        faults=faults,
        notes=_notes(plan, pool),
    )


def answerable(upstream: str, pool: RecordedPool) -> RecordedPool:
    """Without the prompts whose text the upstream takes for another record; it finds answers by the text."""
    kept = []
    for row, prompt in enumerate(pool.prompts):
        if pool.ambiguous[row]:
            body = {"model": pool.names[0], "messages": [{"role": "user", "content": prompt.text}]}
            try:
                answer = call("POST", upstream, "/v1/chat/completions", body)
            except OrbweaverError as error:
                if error.status != 404:
                    raise
                continue
            if answer["choices"][0]["message"]["content"] != pool.answers[row][0]:
                continue
        kept.append(row)
    return pool.rows(kept)


def _register(gateway: OwnGateway, plan: Plan, model: Any, say: Say) -> Registered:
    began = time.perf_counter()
    added = gateway.add(model, f"{plan.upstream.rstrip('/')}/v1", suite_data=plan.data, budget=plan.budget)
    progress = added.get("progress") or {}
    if added.get("state") not in (None, "done"):
        raise OrbweaverError(f"The aptitude test of {model.name} ended as {added['state']}: {added.get('error')}")
    calls = int((progress.get("card") or {}).get("replies", 0))
    took = time.perf_counter() - began
    say(f"registered {model.name} ({model.suite or 'no aptitude answers recorded'}, {calls} calls, {took:.1f} s)")
    return Registered(name=model.name, suite=model.suite, calls=calls, known=model.suite is not None, seconds=took)


def _route(
    gateway: OwnGateway, plan: Plan, pool: RecordedPool, costs: FloatArray, say: Say
) -> tuple[list[figures.Run], list[tuple[float, list[Asked]]]]:
    """One unary pass for each setting of the dial, and one streamed pass at the last."""
    runs, answers = [], []
    for quality, stream in [*((quality, False) for quality in plan.dials), (1.0, True)]:
        began = time.perf_counter()
        asked = asyncio.run(ask_all(gateway.url, pool.prompts, quality=quality, stream=stream))
        run = figures.measure(pool, costs, asked, quality=quality, stream=stream, seconds=time.perf_counter() - began)
        say(_line(run))
        runs.append(run)
        answers.append((quality, asked))
    return runs, answers


def _with_faults(gateway: OwnGateway, plan: Plan, pool: RecordedPool, costs: FloatArray, say: Say) -> Faults:
    assert plan.faulty is not None
    for name in pool.names:
        call("PATCH", gateway.url, f"/admin/models/{name}", {"base_url": f"{plan.faulty.rstrip('/')}/v1"})
    began = time.perf_counter()
    asked = asyncio.run(ask_all(gateway.url, pool.prompts, quality=FAULT_QUALITY))
    seconds = time.perf_counter() - began
    run = figures.measure(pool, costs, asked, quality=FAULT_QUALITY, stream=False, seconds=seconds)
    say("with faults: " + _line(run))
    ids = [one.decision for one in asked if one.decision]
    return Faults(
        run=run,
        decisions=len(_written(gateway, set(ids))),
        repeated=len(ids) - len(set(ids)),
        without_reason=sum(one.error in ("APIConnectionError", "APITimeoutError") for one in asked),
    )


def _books(gateway: OwnGateway, pool: RecordedPool, costs: FloatArray, asked: Sequence[Asked]) -> Books:
    ids = [one.decision for one in asked if one.decision]
    column_of = {name: column for column, name in enumerate(pool.names)}
    row_of = {prompt.id: row for row, prompt in enumerate(pool.prompts)}
    expected = sum(float(costs[row_of[one.prompt_id], column_of[one.model]]) for one in asked if one.model in column_of)
    written = _written(gateway, set(ids))
    return Books(
        asked=len(asked),
        decisions=len(written),
        repeated=len(ids) - len(set(ids)),
        ledger_usd=sum(float(one["cost_usd"] or 0.0) for one in written.values()),
        expected_usd=expected,
    )


def _written(gateway: OwnGateway, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The decisions of these ids as the gateway's ledger holds them, page by page from the newest."""
    found: dict[str, dict[str, Any]] = {}
    before = ""
    while True:
        page = call("GET", gateway.url, f"/admin/decisions?limit={PAGE}{before}")["decisions"]
        found |= {one["id"]: one for one in page if one["id"] in wanted}
        if len(page) < PAGE or len(found) == len(wanted):
            return found
        before = f"&before={page[-1]['at']!r}"


def _line(run: figures.Run) -> str:
    kind = "stream" if run.stream else "unary"
    saved = "" if run.saved is None else f", {run.saved:+.1%} of the cost saved"
    return (
        f"quality {run.quality:g} {kind}: {run.accuracy.mean:.4f} ({run.gain.mean:+.2f} points "
        f"[{run.gain.low:+.2f}, {run.gain.high:+.2f}] on the best single){saved}; "
        f"{run.answered} of {run.asked} answered in {run.seconds:.0f} s"
    )


def _notes(plan: Plan, pool: RecordedPool) -> list[str]:
    notes = []
    if plan.artifact is None and plan.split != "train":
        notes.append(
            "The shipped encoder was fitted on all public prompts: on those this measures memory. Train one with "
            "`orbweaver encoder train --hold-out` and give it as --artifact."
        )
    without = [model.name for model in pool.models if model.suite is None]
    if without:
        notes.append(f"No aptitude answers are recorded for {', '.join(without)}: known by name, size and price alone.")
    return notes


def _commit() -> str:
    try:
        ended = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return ended.stdout.strip()
