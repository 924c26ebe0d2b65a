"""The bundled zoo: exact match of every model by skill, and of `auto` over all of them through gateway and engine."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from merge_backends.zoo.skills import SKILLS, Question
from tests.bench.report import Figure, Options
from tests.support.serving import Serving, serving

SEEDS = (11, 12, 13)
ITEMS = 200
AT_ONCE = 16
ORACLE_SHARE, LEAD, MERGED_SHARE, OWN_SKILL = 0.95, 15.0, 0.90, 85.0
MERGED = ("merge", "smile", "wemoe")
Marked = dict[str, list[bool]]


def run(options: Options) -> list[Figure]:
    """All figures: means over three seeds of 200 fresh questions for each of five skills."""
    from merge_backends.zoo.evaluate import fresh_questions

    with tempfile.TemporaryDirectory() as folder:
        marks = _grade_all(Path(folder) / "models")
        routed = asyncio.run(_route_all(Path(folder)))
    runs = [(fresh_questions(seed, ITEMS), marks[seed], routed[seed]) for seed in SEEDS]
    return [*_by_model(runs), *_bars(runs)]


def _grade_all(cache: Path) -> dict[int, Marked]:
    """Whether each model answers each question right, by seed and model; in this process, greedy."""
    import torch
    from transformers import AutoModelForCausalLM

    from merge_backends.moe.store import load_mixture
    from merge_backends.zoo.evaluate import fresh_questions, grade
    from merge_backends.zoo.expand import expand
    from merge_backends.zoo.tokenizer import build_tokenizer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    marks: dict[int, Marked] = {seed: {} for seed in SEEDS}
    try:
        folders = expand(cache)
        base = AutoModelForCausalLM.from_pretrained(folders["base"]).state_dict()
        for name, folder in folders.items():
            is_mixture = (folder / "mixture.json").is_file()
            model = load_mixture(folder, base=base) if is_mixture else AutoModelForCausalLM.from_pretrained(folder)
            for seed in SEEDS:
                marks[seed][name] = grade(model.eval(), tokenizer, fresh_questions(seed, ITEMS))
    finally:
        torch.set_num_threads(threads)
    return marks


async def _route_all(folder: Path) -> dict[int, list[bool]]:
    """Whether `auto` answers each question right, by seed; real gateway, real engine."""
    from merge_backends.zoo.evaluate import fresh_questions

    found = {}
    async with serving(folder, [], zoo="on", routing={"scorer": "auto"}) as gateway, aiohttp.ClientSession() as session:
        await _until_routed(gateway, session)
        for seed in SEEDS:
            gate = asyncio.Semaphore(AT_ONCE)
            asked = [_ask(gateway, session, gate, question) for _, question in fresh_questions(seed, ITEMS)]
            found[seed] = list(await asyncio.gather(*asked))
    return found


async def _until_routed(gateway: Serving, session: aiohttp.ClientSession) -> None:
    """Wait for the engine, the encoder and the profiles' texts."""
    async with asyncio.timeout(180):
        while True:
            async with session.post(f"{gateway.url}/v1/route", json=_body("Add 20 and 30.")) as reply:
                decision = await reply.json()
            scores = {each["model"]: each["p"] for each in decision.get("candidates", ())}
            if scores.get("zoo/arithmetic", 0.0) > 0.6 > scores["zoo/dates"]:
                break
            await asyncio.sleep(0.5)
        async with session.post(f"{gateway.url}/v1/chat/completions", json=_body("Add 20 and 30.")) as reply:
            await reply.read()


async def _ask(gateway: Serving, session: aiohttp.ClientSession, gate: asyncio.Semaphore, question: Question) -> bool:
    async with gate, session.post(f"{gateway.url}/v1/chat/completions", json=_body(question.prompt)) as reply:
        answer = await reply.json()
    return reply.status == 200 and question.is_answered_by(answer["choices"][0]["message"]["content"])


def _body(prompt: str) -> dict[str, object]:
    return {"model": "auto", "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 48}


def _by_model(runs: Sequence[tuple[list[tuple[str, Question]], Marked, list[bool]]]) -> list[Figure]:
    figures = []
    for name in runs[0][1]:
        shares = {skill: _mean([_share(marked[name], asked, skill) for asked, marked, _ in runs]) for skill in SKILLS}
        own = shares.get(name)
        each = ", ".join(f"{skill} {share:.1f}" for skill, share in shares.items())
        figures.append(
            Figure(f"zoo/{name}: exact match, all skills", _mean(list(shares.values())), "%", note=each)
            if own is None
            else Figure(f"zoo/{name}: exact match, own skill", own, "%", OWN_SKILL, more_is_better=True, note=each)
        )
    return figures


def _bars(runs: Sequence[tuple[list[tuple[str, Question]], Marked, list[bool]]]) -> list[Figure]:
    auto = [100 * statistics.mean(routed) for _, _, routed in runs]
    oracle, best, own = [], [], []
    merged: dict[str, list[float]] = {name: [] for name in MERGED}
    for asked, marked, _ in runs:
        experts = [marked[skill] for skill in SKILLS]
        oracle.append(100 * statistics.mean(any(row) for row in zip(*experts, strict=True)))
        best.append(max(100 * statistics.mean(marks) for marks in marked.values()))
        own.append(_mean([_share(marked[skill], asked, skill) for skill in SKILLS]))
        for name in MERGED:
            merged[name].append(100 * statistics.mean(marked[name]))
    single = [max(100 * statistics.mean(marked[skill]) for skill in SKILLS) for _, marked, _ in runs]
    shares = {name: [a / b for a, b in zip(found, own, strict=True)] for name, found in merged.items()}
    winner = max(MERGED, key=lambda name: _mean(shares[name]))
    return [
        Figure("auto over the zoo, through HTTP", _mean(auto), "%", note=_spread(auto)),
        Figure("the per-item oracle over the experts", _mean(oracle), "%", note=_spread(oracle)),
        Figure("the best candidate alone, merges included", _mean(best), "%", note=_spread(best)),
        _worst("auto / oracle", [a / b for a, b in zip(auto, oracle, strict=True)], ORACLE_SHARE, "x"),
        _worst("auto - best single expert", [a - b for a, b in zip(auto, single, strict=True)], LEAD, "points"),
        _worst(f"best merged ({winner}) / experts on their own skills", shares[winner], MERGED_SHARE, "x"),
        *(
            Figure(f"{name} / experts on their own skills", _mean(shares[name]), "x")
            for name in MERGED
            if name != winner
        ),
    ]


def _worst(name: str, values: Sequence[float], bar: float, unit: str) -> Figure:
    return Figure(name, _mean(values), unit, bar, more_is_better=True, note=_spread(values))


def _share(marks: Sequence[bool], asked: Sequence[tuple[str, Question]], skill: str) -> float:
    own = [mark for mark, (of, _) in zip(marks, asked, strict=True) if of == skill]
    return 100 * statistics.mean(own)


def _mean(values: Sequence[float]) -> float:
    return float(statistics.mean(values))


def _spread(values: Sequence[float]) -> str:
    return "seeds " + ", ".join(f"{value:.3g}" for value in values)
