"""`HealthBoard`: which deployments work, how busy and how fast they are; circuits and cooldowns. No I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from gateway.registry.records import Candidate, Deployment
from gateway.routing.vitals import Vitals
from gateway.settings import CircuitSettings

Outcome = Literal["ok", "failed", "limited", "refused", "cancelled"]
"""How a call ended: `failed` counts against the deployment, `limited` (429) cools it down, `refused` is the caller's
own fault and `cancelled` says nothing."""

Circuit = Literal["closed", "open", "half_open"]

# Weight of the newest measurement in a moving average: the last ten or so calls decide.
SMOOTHING = 0.2
# Pause after a 429 that does not say for how long.
DEFAULT_LIMITED_S = 1.0


@dataclass(slots=True)
class DeploymentHealth:
    """What is known of one deployment. Times in seconds of the board's clock; averages are None until measured."""

    model: str
    deployment: Deployment
    in_flight: int = 0
    failures: int = 0
    openings: int = 0
    open_until: float = 0.0
    is_open: bool = False
    probing: bool = False
    ttft_s: float | None = None
    tokens_per_s: float | None = None
    output_tokens: float | None = None
    last_failure: str | None = None

    def circuit(self, now: float) -> Circuit:
        if not self.is_open:
            return "closed"
        return "open" if now < self.open_until else "half_open"


class HealthBoard:
    """Implements `HealthView` for the router and picks deployments for the executor.

    A circuit opens after `failures` failures in a row, for a cooldown that doubles with each opening; then one call
    at a time probes it. A 429 opens it for the time that the provider asked for.
    """

    def __init__(self, settings: CircuitSettings, clock: Callable[[], float], rng: random.Random | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng or random.Random()
        self._known: dict[str, DeploymentHealth] = {}

    def pick(self, candidate: Candidate, exclude: Collection[str] = ()) -> Deployment | None:
        """The least busy usable deployment by weight, or None where all are excluded or cooling down."""
        now = self._clock()
        best: Deployment | None = None
        least = (float("inf"), 0.0)
        alone = len(candidate.deployments) == 1
        for deployment in candidate.deployments:
            if deployment.id in exclude:
                continue
            health = self._known.get(deployment.id)
            if health is not None and health.is_open and (now < health.open_until or health.probing):
                continue
            if alone:
                return deployment
            busy = health.in_flight / deployment.weight if health is not None else 0.0
            # The smallest of exponential draws falls on each in proportion to its weight: idle ones share the work.
            load = (busy, self._rng.expovariate(deployment.weight))
            if load < least:
                best, least = deployment, load
        return best

    def last_resort(self, candidate: Candidate) -> Deployment:
        """The deployment that will be usable soonest: better an answer from a shaky place than none."""
        return min(candidate.deployments, key=lambda each: self._of(candidate, each).open_until)

    def started(self, candidate: Candidate, deployment: Deployment) -> None:
        """A call begins; exactly one `finished` must follow."""
        health = self._of(candidate, deployment)
        health.in_flight += 1
        if health.is_open:
            health.probing = True

    def finished(
        self,
        deployment: Deployment,
        outcome: Outcome,
        *,
        ttft_s: float | None = None,
        tokens_per_s: float | None = None,
        output_tokens: float | None = None,
        retry_after_s: float | None = None,
        reason: str | None = None,
    ) -> None:
        """A call has ended."""
        health = self._known.get(deployment.id)
        if health is None:
            return
        health.in_flight = max(0, health.in_flight - 1)
        was_probe, health.probing = health.probing, False
        if outcome in ("ok", "refused"):
            health.failures = health.openings = 0
            health.is_open = False
            health.ttft_s = _smooth(health.ttft_s, ttft_s)
            health.tokens_per_s = _smooth(health.tokens_per_s, tokens_per_s)
            health.output_tokens = _smooth(health.output_tokens, output_tokens)
        elif outcome == "limited":
            health.last_failure = reason or outcome
            self._open(health, retry_after_s if retry_after_s is not None else DEFAULT_LIMITED_S)
        elif outcome == "failed":
            health.last_failure = reason or outcome
            health.failures += 1
            if was_probe or health.failures >= self._settings.failures:
                self._open(health, self._settings.cooldown_s * 2**health.openings)
                health.openings = min(health.openings + 1, 30)

    def vitals(self, candidate: Candidate) -> Vitals:
        """What the router needs to know. Unknown deployments count as healthy."""
        if len(candidate.deployments) == 1:
            health = self._known.get(candidate.deployments[0].id)
            if health is None:
                return _UNKNOWN
            retry_in_s = max(0.0, health.open_until - self._clock()) if health.is_open else 0.0
            return Vitals(retry_in_s == 0.0, health.ttft_s, health.tokens_per_s, health.output_tokens, retry_in_s)
        return self._vitals_of_many(candidate)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The board for people and metrics, by deployment id."""
        now = self._clock()
        return {
            name: {
                "model": health.model,
                "circuit": health.circuit(now),
                "in_flight": health.in_flight,
                "failures": health.failures,
                "retry_in_s": round(max(0.0, health.open_until - now), 3) if health.is_open else 0.0,
                "ttft_s": health.ttft_s,
                "tokens_per_s": health.tokens_per_s,
                "output_tokens": health.output_tokens,
                "last_failure": health.last_failure,
            }
            for name, health in self._known.items()
        }

    def follow(self, candidates: Iterable[Candidate]) -> None:
        """These are all candidates now: what is known of deployments that are gone or were changed is dropped."""
        current = {each.id: each for candidate in candidates for each in candidate.deployments}
        for name in [name for name, health in self._known.items() if current.get(name) != health.deployment]:
            del self._known[name]

    def _vitals_of_many(self, candidate: Candidate) -> Vitals:
        now = self._clock()
        known = [self._of(candidate, each) for each in candidate.deployments]
        usable = [health for health in known if health.circuit(now) != "open"]
        return Vitals(
            available=bool(usable),
            ttft_s=_mean([health.ttft_s for health in usable or known]),
            tokens_per_s=_mean([health.tokens_per_s for health in usable or known]),
            output_tokens=_mean([health.output_tokens for health in usable or known]),
            retry_in_s=0.0 if usable else max(0.0, min(health.open_until for health in known) - now),
        )

    def _open(self, health: DeploymentHealth, seconds: float) -> None:
        health.is_open = True
        health.open_until = self._clock() + min(seconds, self._settings.max_cooldown_s)

    def _of(self, candidate: Candidate, deployment: Deployment) -> DeploymentHealth:
        health = self._known.get(deployment.id)
        if health is None:
            health = self._known[deployment.id] = DeploymentHealth(candidate.name, deployment)
        return health


_UNKNOWN = Vitals()


def _smooth(average: float | None, value: float | None) -> float | None:
    if value is None:
        return average
    return value if average is None else average + SMOOTHING * (value - average)


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
