"""The aptitude tests: calls per second and CPU of the flow, onboarding under load, and how well few answers predict.

The last two need the shared folder (recorded answers of real models) and are left out where it is absent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import numpy as np

from aptitude_tests.ability import Measure, profile_of_records
from aptitude_tests.answers import MemoryAnswers, SqliteAnswers
from aptitude_tests.caller import Caller, FlowLimits
from aptitude_tests.flow import Flow, FlowPlan
from aptitude_tests.item import Suite
from aptitude_tests.selection import choose_items
from aptitude_tests.source import Prices
from aptitude_tests.stopping import HardlyMoves, looks
from aptitude_tests.suite_data import load_suite
from capability_encoder.profile import CapabilityProfile
from capability_encoder.scorer import CapabilityScorer
from gateway.aptitude.source import UpstreamSource
from gateway.registry.records import Candidate, Deployment
from gateway.upstreams.base import Timeouts
from gateway.upstreams.probe import ProbeUpstreams
from tests.bench.report import Figure, Options
from tests.support.recorded_models import Recorded, RecordedSource, rank_correlation, unseen_models

SHARED = Path(__file__).resolve().parents[3] / "shared"
REPLAY = SHARED / "tools" / "replay_upstream.py"
ROUTING = SHARED / "data" / "routing"
CACHE = Path(".cache/encoder")
MODEL = "command-r-v01"
SERVING = "deepseek-coder-v2-0614"
SEEDS = 5


def run(options: Options) -> list[Figure]:
    """All figures; the recorded models only in full mode (a fit on what was seen takes minutes)."""
    if not REPLAY.is_file():
        raise RuntimeError("the shared folder with recorded answers is not beside this checkout")
    with _replay() as address:
        figures = asyncio.run(_thousand_calls(address))
        figures += asyncio.run(_onboard(address))
    return [*figures, *(_recorded() if options.full else [])]


@contextlib.contextmanager
def _replay() -> Iterator[str]:
    """The recorded upstream with 200 ms of latency, as a process of its own."""
    port = _free_port()
    command = [sys.executable, str(REPLAY), "--port", str(port), "--pool", "mmlu_pro_pool", "--latency", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the recorded upstream did not start")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.communicate()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _thousand_calls(address: str) -> list[Figure]:
    suite = load_suite("mmlu-pro-50x20", data_dir=ROUTING)
    candidate = Candidate(MODEL, (Deployment(f"{MODEL}#0", address, MODEL),))
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteAnswers(Path(folder) / "answers.db")
        async with ProbeUpstreams() as upstream_for:
            source = UpstreamSource(candidate, upstream_for, Timeouts())
            caller = Caller(source, FlowLimits(concurrency=64), Prices(1.0, 1.0))
            wall, cpu = time.perf_counter(), time.process_time()
            result = await Flow(FlowPlan(suite.items), caller, store).run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        await store.close()
    if result.progress.answered < 950:
        raise RuntimeError(f"only {result.progress.answered} of 1,000 calls were answered")
    return [
        Figure("aptitude: 1,000 calls, 200 ms latency, concurrency 64", wall, "s", 10.0),
        Figure("aptitude: CPU of ours per call", 1e3 * cpu / len(suite.items), "ms", 2.0),
    ]


async def _onboard(address: str) -> list[Figure]:
    """`models add --wait` through a gateway that serves 20 requests a second meanwhile."""
    async with _gateway(address) as url, aiohttp.ClientSession() as session:
        load = asyncio.create_task(_load(session, url))
        await asyncio.sleep(2.0)
        began = time.perf_counter()
        command = ["models", "add", "fresh", "--base-url", address, "--upstream-model", MODEL, "--budget", "100"]
        command += ["--suite", "mmlu-pro-50x20", "--suite-data", str(ROUTING), "--wait", "--url", url]
        script = "from gateway.cli.main import main; main()"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *command)
        status = await process.wait()
        took = time.perf_counter() - began
        async with session.get(f"{url}/admin/models/fresh") as answer:
            is_measured = (await answer.json())["measured"]
        load.cancel()
        sent, failed = await load
    if status != 0 or not is_measured:
        raise RuntimeError("the model was not measured")
    return [
        Figure("aptitude: models add --wait, budget 100, under load", took, "s", 15.0),
        Figure(f"aptitude: requests that failed meanwhile, of {sent}", failed, "", 0.0),
    ]


@contextlib.asynccontextmanager
async def _gateway(address: str) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        place = {"base_url": address, "upstream_model": SERVING}
        config = {"candidates": [{"name": name, **place} for name in ("one", "two")], "discover": False}
        path = Path(folder) / "orbweaver.yaml"
        path.write_text(json.dumps({**config, "state_dir": f"{folder}/state"}))
        script = "from gateway.cli.main import main; main()"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, "serve", "--config", str(path), "--port", "0", "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "ORBWEAVER_STATE_DIR": f"{folder}/state"},
        )
        try:
            assert process.stdout is not None
            yield str(json.loads(await process.stdout.readline())["address"])
        finally:
            process.terminate()
            await process.communicate()


async def _load(session: aiohttp.ClientSession, url: str) -> tuple[int, int]:
    """Ask `auto` a recorded question 20 times a second until cancelled; how many were sent, how many failed."""
    question = next(iter(load_suite("mmlu-pro-50x20", data_dir=ROUTING).items))
    from aptitude_tests.render import render_text

    body = {"model": "auto", "messages": [{"role": "user", "content": render_text(question)}]}
    outcomes: list[bool] = []

    async def one() -> None:
        try:
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                await answer.read()
                outcomes.append(answer.status == 200)
        except aiohttp.ClientError:
            outcomes.append(False)

    tasks: set[asyncio.Task[None]] = set()
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            tasks.add(asyncio.create_task(one()))
            await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)
    return len(outcomes), outcomes.count(False)


def _recorded() -> list[Figure]:
    """Brier on test prompts and rank of ability, for the unseen models, through the flow and a scorer that never saw
    them: fitted on the seen models' outcomes on train and aptitude prompts alone."""
    scorer, vectors = _honest_scorer()
    recorded = unseen_models(ROUTING.parent)
    suite = load_suite("mmlu-pro-50x20", data_dir=ROUTING)
    measure = Measure(scorer)
    if set(recorded.facts) & set(scorer.known_models):
        raise RuntimeError("the scorer knows a model that it must not know")
    figures = []
    for calls, bar in ((20, 0.223), (50, 0.2092), (100, None), (200, 0.2083), (1000, 0.2076)):
        found = [_measured(recorded, suite, measure, vectors, calls, seed) for seed in range(SEEDS)]
        briers, ranks = np.array(found).T
        figures.append(Figure(f"aptitude: Brier after {calls} answers", float(briers.mean()), "", bar))
        if calls == 100:
            worst = float(ranks.min())
            figures.append(Figure("aptitude: Spearman after 100 answers, mean", float(ranks.mean()), "", None))
            figures.append(Figure("aptitude: Spearman after 100 answers, worst draw", worst, "", None))
    asked = [_asked_with_early_end(recorded, suite, measure, name, 1000) for name in recorded.facts]
    figures.append(Figure("aptitude: calls before the early end, of 1,000", float(np.mean(asked)), "", None))
    return figures


def _honest_scorer() -> tuple[CapabilityScorer, np.ndarray]:
    """A scorer of seen models and train prompts, and the vectors of the test prompts."""
    from capability_encoder.training.data import load_models, load_outcomes
    from capability_encoder.training.export import prepare_cache
    from capability_encoder.training.fit import Recorded as Table
    from capability_encoder.training.fit import fit_state
    from capability_encoder.training.views import load_embedder

    embedder = load_embedder()
    prepare_cache(ROUTING, CACHE, embedder)
    outcomes = load_outcomes(ROUTING, CACHE, drop_prefixes=("routerdc_", "llmrouter_"))
    facts = load_models(ROUTING)
    table = Table(outcomes, facts, CACHE, embedder)
    scores = outcomes.scores.copy()
    scores[:, [facts[name].split != "seen" for name in outcomes.models]] = np.nan
    state = fit_state(table, np.isin(outcomes.splits, ["train", "aptitude"]), scores)
    rows = (outcomes.splits == "test") & (outcomes.datasets == "mmlu_pro")
    return CapabilityScorer(state, embedder), table.table.views(state.grams)[rows]


def _measured(
    recorded: Recorded, suite: Suite, measure: Measure, vectors: np.ndarray, calls: int, seed: int
) -> tuple[float, float]:
    """Mean Brier over the models, and Spearman of predicted standing with true test accuracy."""
    items = tuple(choose_items(suite, calls, seed=seed))
    profiles = []
    for name, facts in recorded.facts.items():
        caller = Caller(RecordedSource(name, suite, recorded.aptitude[name]), FlowLimits(concurrency=64))
        result = asyncio.run(Flow(FlowPlan(items), caller, MemoryAnswers()).run())
        profiles.append(profile_of_records(facts, suite.name, result.records, measure.bank))
    p = measure.scorer.score_many(vectors, measure.scorer.prepare(profiles)).p
    briers = [
        float(np.nanmean((p[:, column] - recorded.test_scores[one.name]) ** 2)) for column, one in enumerate(profiles)
    ]
    truth = np.array([np.nanmean(recorded.test_scores[one.name]) for one in profiles])
    standing = np.array([measure.standing(one).p for one in profiles])
    return float(np.mean(briers)), rank_correlation(standing, truth)


def _asked_with_early_end(recorded: Recorded, suite: Suite, measure: Measure, name: str, budget: int) -> int:
    facts: CapabilityProfile = recorded.facts[name]
    items = tuple(choose_items(suite, budget))
    rule = HardlyMoves(measure, facts, suite.name, items)
    caller = Caller(RecordedSource(name, suite, recorded.aptitude[name]), FlowLimits(concurrency=64))
    flow = Flow(FlowPlan(items, waves=looks(budget), early_stop=rule), caller, MemoryAnswers())
    return len(asyncio.run(flow.run()).records)
