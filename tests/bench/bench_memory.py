"""Resident memory: idle, and its growth over many requests, half of them streams, one in a hundred cut by its client.

`tests.bench` in full mode sends 200,000.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import uvloop

from tests.bench.canned import chat_body, http_request
from tests.bench.load import check, connect
from tests.bench.processes import PRIOR, Server, gateway, mock_upstream
from tests.bench.report import Figure, Options

CLIENTS = 16
SAMPLES = 20
SEED = 20261121


def run(options: Options) -> list[Figure]:
    """Growth counts from the end of the warm-up, the first tenth of the requests."""
    count = options.scaled(20_000, 200_000)
    with mock_upstream() as upstream, gateway(upstream, routing=PRIOR) as own:
        idle = own.rss_mib()
        samples = uvloop.run(_load(own, count, own.rss_mib))
        uvloop.run(asyncio.sleep(2.0))
        after = own.rss_mib()
    warm = samples[SAMPLES // 10]
    shown = ", ".join(f"{value:.0f}" for value in samples)
    return [
        Figure("resident memory, idle", idle, "MiB", 150),
        Figure(
            "resident memory after the load", after, "MiB", 150, note=f"{count:,} requests; MiB on the way: {shown}"
        ),
        Figure(
            f"memory growth over {count:,} requests",
            max(after, samples[-1]) - warm,
            "MiB",
            10 if options.full else None,
            note="half streams, 1 % cut by their client; after the first tenth",
        ),
    ]


async def _load(server: Server, count: int, sample: Callable[[], float]) -> list[float]:
    """Send everything; memory in MiB at the start and after each twentieth."""
    rng = random.Random(SEED)
    unary, burst, paced = (_request(server, *kind) for kind in (("small", False), ("small", True), ("paced", True)))
    left = count
    samples = [sample()]

    async def work() -> None:
        nonlocal left
        client = await connect(server.port)
        while left > 0:
            left -= 1
            if left % (count // SAMPLES) == 0:
                samples.append(sample())
            draw = rng.random()
            if draw < 0.01:
                leaver = await connect(server.port)
                await leaver.begin(paced, rng.random() * 0.2)
            else:
                check([await client.ask(burst if draw < 0.5 else unary)])
        client.close()

    await asyncio.gather(*(work() for _ in range(CLIENTS)))
    return samples


def _request(server: Server, model: str, stream: bool) -> bytes:
    return http_request("/v1/chat/completions", chat_body(model, stream=stream), key=server.key, port=server.port)
