"""How fast things start: the gateway up to its first answer, and the command line."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.processes import ORBWEAVER, PRIOR, bare_relay, clean_environment, gateway, mock_upstream
from tests.bench.report import Figure, Options

COMMANDS = (("--version",), ("--help",), ("models", "--help"), ("config", "schema"))


def run(options: Options) -> list[Figure]:
    """Medians, for another process's burst spoils a single start."""
    starts, calls = options.scaled(3, 7), options.scaled(7, 15)
    with mock_upstream() as upstream:
        own, own_cpu, relay = [], [], []
        for _ in range(starts):
            began = time.perf_counter()
            with gateway(upstream, routing=PRIOR) as server:
                own.append(time.perf_counter() - began)
                own_cpu.append(server.cpu_s())
            began = time.perf_counter()
            with bare_relay(upstream):
                relay.append(time.perf_counter() - began)
    figures = [
        Figure(
            "cold start to the first 200",
            median(own),
            "s",
            3.0,
            relay=median(relay),
            note=f"a new state folder, migration and a client key included; {_range(own)}",
        ),
        Figure("CPU of a cold start", median(own_cpu), "s"),
    ]
    for arguments in COMMANDS:
        wall, cpu = _time(arguments, calls)
        note = f"CPU {median(cpu):.2f} s; wall {_range(wall)}"
        bar = 0.4 if arguments[0].startswith("--") else None
        figures.append(Figure(f"orbweaver {' '.join(arguments)}", median(wall), "s", bar, note=note))
    return figures


def _time(arguments: Sequence[str], calls: int) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of each call."""
    wall, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        environment = clean_environment(Path(folder))
        for _ in range(calls):
            before, began = _children_cpu_s(), time.perf_counter()
            subprocess.run([ORBWEAVER, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
            wall.append(time.perf_counter() - began)
            cpu.append(_children_cpu_s() - before)
    return wall, cpu


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} s"
