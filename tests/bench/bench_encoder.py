"""The capability encoder alone, on one thread: embed and decide, the head by itself, the outcome memory, size, memory.

Prompts are made up of common words, a new one for each repetition.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from capability_encoder.artifact import SHIPPED
from capability_encoder.async_embed import AsyncEmbedder
from capability_encoder.embed import DEFAULT_EMBEDDER, PromptEmbedder
from capability_encoder.memory import MemorySettings, OutcomeMemory
from capability_encoder.profile import Answer, CapabilityProfile
from capability_encoder.scorer import LAYERS, CapabilityScorer, Pool
from tests.bench.report import Figure, Options

FloatArray = npt.NDArray[np.float32]
SEED = 20261121
WORDS = (
    "time people water music history number country river small system paper garden light market winter engine story "
    "teacher table window doctor island summer letter family bridge forest planet energy metal"
).split()
LOADED_RSS = """
import resource, sys
from capability_encoder.profile import CapabilityProfile
from capability_encoder.scorer import CapabilityScorer
scorer = CapabilityScorer.load()
pool = scorer.prepare([CapabilityProfile(f"model-{number}") for number in range(10)])
scorer.score("How much does a bridge of this kind cost to build?", pool)
with open("/proc/self/statm") as statm:
    sys.stdout.write(str(int(statm.read().split()[1]) * resource.getpagesize() / 2**20))
"""


def run(options: Options) -> list[Figure]:
    """All figures of the speed bars; the memory of 1,000,000 vectors in full mode only (it takes minutes to build)."""
    with threadpool_limits(limits=1):
        embedder = PromptEmbedder.load(layers=LAYERS)
        scorer = CapabilityScorer.load(embedder=embedder)
        repetitions = options.scaled(200, 1_000)
        figures = [*_decide(scorer, repetitions), *_repeated(scorer, repetitions), *_head(scorer, repetitions)]
        figures += asyncio.run(_loop_lag(scorer, options.scaled(400, 3_000)))
        return [*figures, *_memory(options, scorer), _artefact_size(), _loaded_memory()]


def _decide(scorer: CapabilityScorer, repetitions: int) -> Iterator[Figure]:
    pool = _pool(scorer, 10)
    for tokens, bar in ((20, 8.0), (64, 16.0)):
        prompts = iter(_prompts(scorer, tokens, repetitions + 10))

        def once(prompts: Iterator[str] = prompts) -> None:
            int(np.argmax(scorer.score(next(prompts), pool).p))

        p50, p99 = _times_ms(once, repetitions)
        yield Figure(f"embed + decide, {tokens} tokens, 10 candidates, p50", p50, "ms", bar)
        yield Figure(f"embed + decide, {tokens} tokens, 10 candidates, p99 / p50", p99 / p50, "x", 3.0)


def _repeated(scorer: CapabilityScorer, repetitions: int) -> Iterator[Figure]:
    """A prompt whose vector is cached: hash, look-up, score, choose."""
    pool = _pool(scorer, 10)
    prompt = _prompts(scorer, 64, 1)[0]

    async def measure() -> float:
        async with AsyncEmbedder(scorer.embedder.embed_one) as front:
            times = []
            for _ in range(repetitions + 10):
                start = time.perf_counter()
                int(np.argmax(scorer.score(await front.vector(prompt), pool).p))
                times.append(time.perf_counter() - start)
            return 1e3 * float(np.median(times[10:]))

    yield Figure("embed + decide, repeated prompt, p50", asyncio.run(measure()), "ms", 0.3)


def _head(scorer: CapabilityScorer, repetitions: int) -> Iterator[Figure]:
    """From a prompt's vector to scores and reasons; each vector is a new one, for places of recent ones are kept."""
    vectors = [scorer.embedder.embed_one(prompt) for prompt in _prompts(scorer, 20, 2 * (repetitions + 10))]
    turn = iter(vectors)
    for count, bar in ((100, 0.3), (10_000, 3.0)):
        pool = _pool(scorer, count)
        p50, p99 = _times_ms(lambda pool=pool: scorer.score(next(turn), pool), repetitions)  # type: ignore[misc]
        yield Figure(f"head alone, {count:,} candidates, p50", p50, "ms", bar, note=f"p99 {p99:.2f} ms")


async def _loop_lag(scorer: CapabilityScorer, count: int) -> list[Figure]:
    """16 callers, each prompt new: how late the event loop wakes, and how many prompts pass."""
    prompts = iter(_prompts(scorer, 64, count))
    lags: list[float] = []
    async with AsyncEmbedder(scorer.embedder.embed_one) as front:

        async def watch() -> None:
            while True:
                start = time.perf_counter()
                await asyncio.sleep(0.001)
                lags.append(time.perf_counter() - start - 0.001)

        async def caller() -> None:
            for prompt in prompts:
                await front.vector(prompt, deadline_s=60)

        watcher = asyncio.create_task(watch())
        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(16)))
        taken = time.perf_counter() - start
        watcher.cancel()
    return [
        Figure("event loop lag with 16 callers, p99", 1e3 * float(np.quantile(lags, 0.99)), "ms", 10.0),
        Figure("prompts embedded with 16 callers", count / taken, "/s", note="64 tokens, 2 threads"),
    ]


def _memory(options: Options, scorer: CapabilityScorer) -> Iterator[Figure]:
    """A memory grown to size with mixtures of the known prompts' vectors and noise, so that it has their structure."""
    count = options.scaled(100_000, 1_000_000)
    rng = np.random.default_rng(SEED)
    known = _units(scorer.state.memory.astype(np.float64))
    dimension = known.shape[1]
    vectors = np.empty((count, dimension), dtype=np.float32)
    for start in range(0, count, 50_000):
        stop = min(start + 50_000, count)
        first, second = known[rng.integers(len(known), size=(2, stop - start))]
        share = rng.uniform(0.0, 0.5, size=(stop - start, 1))
        noise = rng.normal(scale=0.35 / np.sqrt(dimension), size=(stop - start, dimension))
        vectors[start:stop] = _units((1 - share) * first + share * second + noise)
    queries = vectors[:: count // 200][:200]
    nearest = [np.argpartition(-(vectors @ query), 250)[:250] for query in queries]
    start_s = time.perf_counter()
    memory = OutcomeMemory.build(vectors, MemorySettings("ivf", "int8"))
    built_s = time.perf_counter() - start_s
    del vectors
    gc.collect()
    found = [set(memory.search(query, 250).rows[0].tolist()) for query in queries]
    recall = float(np.mean([len(found[row] & set(nearest[row].tolist())) / 250 for row in range(len(queries))]))
    turn = iter(np.tile(queries, (10, 1)))
    p50, p99 = _times_ms(lambda: memory.search(next(turn), 250), 1_000)
    yield Figure(
        f"memory of {count:,} vectors, search for 250, p50",
        p50,
        "ms",
        3.0,
        note=f"p99 {p99:.2f} ms, built {built_s:.0f} s",
    )
    yield Figure(f"memory of {count:,} vectors, recall@250", recall, "", 0.95, more_is_better=True)


def _artefact_size() -> Figure:
    files = [path for folder in (DEFAULT_EMBEDDER, SHIPPED) for path in folder.rglob("*") if path.is_file()]
    return Figure("shipped artefact, embedder included", sum(path.stat().st_size for path in files) / 2**20, "MiB", 40)


def _loaded_memory() -> Figure:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", LOADED_RSS], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the scorer cannot be loaded: {done.stderr.strip().splitlines()[-1:]}")
    return Figure("resident memory with the scorer loaded", float(done.stdout), "MiB", 200, note="whole process")


def _times_ms(call: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Median and 99th percentile of the wall time, after ten calls of warm-up."""
    times = []
    for _ in range(repetitions + 10):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[10:])), float(np.quantile(times[10:], 0.99))


def _prompts(scorer: CapabilityScorer, tokens: int, count: int) -> list[str]:
    """Distinct made-up questions of so many word pieces: a common word is one piece; two marks and a question mark."""
    rng = random.Random(f"{SEED} {tokens} {count}")
    return ["what " + " ".join(rng.choice(WORDS) for _ in range(tokens - 4)) + "?" for _ in range(count)]


def _pool(scorer: CapabilityScorer, count: int) -> Pool:
    """Candidates known by 50 answers each, with the own heads of known models; beyond 100 under other names."""
    rng = np.random.default_rng(SEED)
    profiles = [
        CapabilityProfile(
            f"model-{number}",
            answers=tuple(
                Answer(scorer.item_ids[row], float(rng.random() < 0.6))
                for row in rng.choice(len(scorer.item_ids), size=50, replace=False)
            ),
        )
        for number in range(min(count, 100))
    ]
    pool = scorer.prepare(profiles)
    rows = np.arange(count) % len(pool)
    names = tuple(f"model-{row}" for row in range(count))
    own = np.arange(count) % len(scorer.known_models)
    return Pool(names, pool.means[rows], pool.covariances[rows], own)


def _units(vectors: npt.NDArray[np.float64]) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
