"""Joins the exposition texts of several workers into one, each series marked with the worker it comes from.

Summing would be wrong: a worker that ends takes its counts along, which Prometheus would read as a reset. As series of
their own they begin and end with the worker, and queries add them up.
"""

from __future__ import annotations

from collections.abc import Mapping


def join_workers(texts: Mapping[str, str]) -> str:
    """One text with every family once.

    Args:
        texts: exposition text by worker name, each as `prometheus_client` writes it.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
                if family not in heads:
                    heads[family], samples[family] = [line], []
            elif line.startswith("# TYPE "):
                if len(heads[family]) == 1:
                    heads[family].append(line)
            elif line and not line.startswith("#"):
                samples[family].append(_marked(line, worker))
    lines = [line for family in heads for line in (*heads[family], *samples[family])]
    return "\n".join(lines) + "\n"


def _marked(sample: str, worker: str) -> str:
    """A sample line with `worker` as one more label. A metric's name holds neither brace nor space."""
    brace, space = sample.find("{"), sample.find(" ")
    if 0 <= brace < space:
        return f'{sample[: brace + 1]}worker="{worker}",{sample[brace + 1 :]}'
    return f'{sample[:space]}{{worker="{worker}"}}{sample[space:]}'
