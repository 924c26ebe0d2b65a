"""What must be true after the soak, from counts taken before and after. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

LAG = re.compile(r'^orbweaver_event_loop_lag_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
LAG_P99_S = 0.025
GROWTH_MIB = 25.0
MORE_FILES = 12
MORE_THREADS = 4


@dataclass(frozen=True, slots=True)
class Vitals:
    """One process at rest: resident memory, open files and sockets, threads."""

    memory_mib: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """All figures of a soak; `problems` is empty where it passed.

    For reference, not judged: the lag of a loop with nothing to do beside it, and the share of the cores' time that a
    hypervisor took (0 where there is none, or it does not say).
    """

    seconds: float
    ended: Mapping[str, int]
    upstream_answers: int
    ledger_answers: int
    upstream_tokens: int
    ledger_tokens: int
    client_answers: int
    expected_usd: float
    ledger_usd: float
    before: Vitals
    after: Vitals
    lag_p99_s: float
    bare_loop_lag_p99_s: float
    stolen_share: float
    restarts: int
    changes: int
    swaps: int
    errors_logged: int

    @property
    def problems(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = []
        if self.upstream_answers != self.ledger_answers:
            found.append(f"the upstream gave {self.upstream_answers} answers, the ledger holds {self.ledger_answers}")
        if self.upstream_tokens != self.ledger_tokens:
            found.append(f"the upstream counted {self.upstream_tokens} tokens, the ledger {self.ledger_tokens}")
        if abs(self.expected_usd - self.ledger_usd) > 1e-6 * max(1.0, self.expected_usd):
            found.append(f"money: expected {self.expected_usd:.6f} USD, ledger {self.ledger_usd:.6f} USD")
        if self.client_answers > self.upstream_answers:
            found.append(f"clients saw {self.client_answers} whole answers, more than the upstream gave")
        if self.after.memory_mib - self.before.memory_mib > GROWTH_MIB:
            found.append(f"memory grew from {self.before.memory_mib:.0f} to {self.after.memory_mib:.0f} MiB")
        if self.after.files - self.before.files > MORE_FILES:
            found.append(f"open files grew from {self.before.files} to {self.after.files}")
        if self.after.threads - self.before.threads > MORE_THREADS:
            found.append(f"threads grew from {self.before.threads} to {self.after.threads}")
        if self.lag_p99_s > LAG_P99_S:
            found.append(f"event loop lag p99 {self.lag_p99_s * 1000:.0f} ms, wanted {LAG_P99_S * 1000:.0f}")
        if self.errors_logged:
            found.append(f"{self.errors_logged} tracebacks in the gateways' logs")
        return found

    def as_record(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "problems": self.problems}


def lag_p99(before: str, after: str) -> float:
    """Upper bound in seconds of the bucket that holds the 99th percentile between two scrapes of /metrics."""
    start, end = _buckets(before), _buckets(after)
    grown = {bound: count - start.get(bound, 0.0) for bound, count in end.items()}
    total = grown.get(float("inf"), 0.0)
    for bound in sorted(grown):
        if total and grown[bound] >= 0.99 * total:
            return bound
    return 0.0


def _buckets(text: str) -> dict[float, float]:
    found: dict[float, float] = {}
    for bound, count in LAG.findall(text):
        found[float(bound)] = found.get(float(bound), 0.0) + float(count)
    return found
