"""Two replicas on PostgreSQL and Redis under mixed load, faults, admin changes, artefact swaps and restarts."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import psutil  # type: ignore[import-untyped]

from capability_encoder.artifact import SHIPPED
from tests.soak import bare_loop
from tests.soak.clients import Clients
from tests.soak.upstream import CountingUpstream
from tests.soak.verdict import Verdict, Vitals, lag_p99
from tests.support.replicas import Backends, backends, replica
from tests.support.serving import Serving, admin

PRICE = 1.0
CLEAN, ROUGH = 6, 6
REST_S = 4.0


@dataclass
class Soak:
    """Everything that runs. `second` is restarted now and then; `first` stays, and is what leaks are looked for in."""

    folder: Path
    behind: Backends
    database: str
    upstream: CountingUpstream
    first: Serving
    session: aiohttp.ClientSession
    clean_id: str = ""
    restarts: int = 0
    changes: int = 0
    swaps: int = 0
    second: Serving | None = None
    logs: list[Path] = field(default_factory=list)

    async def admin(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return await admin(self.first, self.session, method, path, body)

    async def metrics(self) -> str:
        async with self.session.get(f"{self.first.url}/metrics") as answer:
            return await answer.text()

    def vitals(self) -> Vitals:
        process = psutil.Process(self.first.process.pid)
        return Vitals(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())


async def soak(seconds: float, seed: int, folder: Path) -> Verdict:
    """Run for so long (seconds, after a warm-up of a fifth) and judge."""
    with backends() as behind:
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(CountingUpstream(seed))
            database = behind.postgres.fresh_database()
            first = await stack.enter_async_context(_replica(folder / "first", behind, database))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            run = Soak(folder, behind, database, upstream, first, session, logs=[first.log])
            clean, rough = await _prepare(run)
            return await _abuse(run, seconds, seed, clean, rough)


def _replica(folder: Path, behind: Backends, database: str) -> Any:
    sections = {
        "server": {"client_keys": "required", "drain_s": 20},
        "telemetry": {"stream_usage": "always"},
        "timeouts": {"first_token_s": 5, "answer_s": 5, "idle_s": 5, "total_s": 20},
        "routing": {"scorer": "auto"},
    }
    return replica(folder, behind, database, **sections)


async def _prepare(run: Soak) -> tuple[str, str]:
    """Two models and two client keys; gives the keys' secrets."""
    base = f"http://127.0.0.1:{run.upstream.port}/v1"
    for name, strength in (("alpha", 0.7), ("beta", 0.6)):
        model = {"name": name, "base_url": base, "strength": strength, "price_in": PRICE, "price_out": PRICE}
        await run.admin("POST", "/models", {**model, "can": ["tools"]})
    secrets = []
    for name in ("clean", "rough"):
        made = await run.admin("POST", "/keys", {"name": name, "budget_usd": 1e6})
        secrets.append(made["key"])
        run.clean_id = run.clean_id or made["id"]
    return secrets[0], secrets[1]


async def _abuse(run: Soak, seconds: float, seed: int, clean: str, rough: str) -> Verdict:
    crowds = [Clients([run.first.url], key, seed + i) for i, key in enumerate((clean, rough))]
    load = [
        asyncio.create_task(crowds[0].run(CLEAN, 0)),
        asyncio.create_task(crowds[1].run(0, ROUGH)),
    ]
    restarting = asyncio.create_task(_restart(run, crowds, seconds))
    changing = asyncio.create_task(_change(run, Random(seed)))
    swapping = asyncio.create_task(_swap(run))
    began = time.monotonic()
    await _wait(seconds / 5, "warm-up")
    start, scrape = run.vitals(), await run.metrics()
    stolen = _stolen_s()
    reference = asyncio.create_task(bare_loop.measured(seconds * 4 / 5))
    await _wait(seconds * 4 / 5, "soak")
    stolen = (_stolen_s() - stolen) / (seconds * 4 / 5) / (psutil.cpu_count() or 1)
    lag = lag_p99(scrape, await run.metrics())
    for task in (changing, swapping):
        task.cancel()
    for crowd in crowds:
        crowd.stop.set()
    await asyncio.gather(*load)
    restarting.cancel()
    await asyncio.gather(restarting, changing, swapping, return_exceptions=True)
    took = time.monotonic() - began
    await asyncio.sleep(REST_S)
    rows = (await run.admin("GET", f"/usage?key_id={run.clean_id}"))["usage"]
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
    ended: Counter[str] = Counter()
    for crowd in crowds:
        ended.update({f"{kind} {status}": count for (kind, status), count in crowd.ended.items()})
    return Verdict(
        seconds=round(took, 1),
        ended=dict(ended),
        upstream_answers=sum(run.upstream.answers.values()),
        ledger_answers=int(sum(row["requests"] - row["errors"] for row in rows)),
        upstream_tokens=sum(run.upstream.tokens.values()),
        ledger_tokens=int(tokens),
        client_answers=crowds[0].answers,
        expected_usd=sum(run.upstream.tokens.values()) * PRICE / 1e6,
        ledger_usd=sum(row["cost_usd"] for row in rows),
        before=start,
        after=run.vitals(),
        lag_p99_s=lag,
        bare_loop_lag_p99_s=await reference,
        stolen_share=round(stolen, 4),
        restarts=run.restarts,
        changes=run.changes,
        swaps=run.swaps,
        errors_logged=sum(log.read_text(errors="replace").count("Traceback") for log in run.logs),
    )


def _stolen_s() -> float:
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


async def _wait(seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        sys.stderr.write(f"{what}: {left:.0f} s left\n")
        await asyncio.sleep(min(30.0, left))


async def _restart(run: Soak, crowds: list[Clients], seconds: float) -> None:
    """The second replica comes, works, is asked to end, and comes again."""
    while True:
        async with _replica(run.folder / "second", run.behind, run.database) as second:
            run.logs = list({*run.logs, second.log})
            for crowd in crowds:
                crowd.urls.append(second.url)
            try:
                await asyncio.sleep(max(8.0, seconds / 12))
            finally:
                for crowd in crowds:
                    crowd.urls.remove(second.url)
                second.terminate()
                await second.ended(60)
            run.restarts += 1


async def _change(run: Soak, random: Random) -> None:
    """Prices stay; models go off and on, keys come and go, decisions and jobs are read."""
    while True:
        await asyncio.sleep(1.0)
        await run.admin("POST", "/models/beta/disable")
        await asyncio.sleep(random.random())
        await run.admin("POST", "/models/beta/enable")
        made = await run.admin("POST", "/keys", {"name": f"passing-{run.changes}", "requests_per_minute": 5})
        await run.admin("DELETE", f"/keys/{made['id']}")
        await run.admin("GET", "/decisions?limit=50")
        run.changes += 1


async def _swap(run: Soak) -> None:
    """Another version of the shipped encoder is put on trial, promoted, and taken back."""
    copy = run.folder / "copy"
    await asyncio.to_thread(shutil.copytree, SHIPPED, copy)
    manifest = copy / "manifest.json"
    # The version is a hash over the manifest: another seed in it makes another version of the same weights.
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "seed": 1}))
    while True:
        await asyncio.sleep(7.0)
        await run.admin("POST", "/encoder/stage", {"folder": str(copy)})
        await asyncio.sleep(3.0)
        await run.admin("POST", "/encoder/promote")
        await asyncio.sleep(3.0)
        await run.admin("POST", "/encoder/rollback")
        run.swaps += 1


def main() -> int:
    """Exit status 1 where something is not as it must be."""
    cli = argparse.ArgumentParser(prog="make soak", description=__doc__)
    cli.add_argument("--seconds", type=float, default=1200.0)
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--out", type=Path, default=Path("reports/soak.json"))
    given = cli.parse_args()
    with tempfile.TemporaryDirectory(prefix="ow-soak-") as folder:
        verdict = asyncio.run(soak(given.seconds, given.seed, Path(folder)))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(verdict.as_record(), indent=1))
    sys.stdout.write(json.dumps(verdict.as_record(), indent=1) + "\n")
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
