"""Small builders for routing tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from gateway.registry.records import Ability, Candidate, Deployment, Endpoint
from gateway.routing.decision import RoutingDecision
from gateway.routing.router import Ambient, Router, RouterSettings
from gateway.routing.scoring import Score, ScoreTable
from gateway.routing.session import MemorySessions
from gateway.routing.vitals import Vitals
from gateway.routing.wishes import NOTHING, Wishes


def candidate(name: str, **fields: Any) -> Candidate:
    fields.setdefault("deployments", (Deployment(f"{name}#0", "http://127.0.0.1:1/v1", name),))
    fields["can"] = frozenset(Ability(item) for item in fields.get("can", ()))
    return Candidate(name=name, **fields)


class FixedScorer:
    """Answers with given probabilities."""

    version = "fixed-1"

    def __init__(
        self, p: Mapping[str, float], *, novelty: float = 0.0, is_prior: bool = False, unmeasured: Sequence[str] = ()
    ) -> None:
        self.p, self.novelty, self.is_prior, self.unmeasured = dict(p), novelty, is_prior, unmeasured

    async def score(self, ask: str, candidates: Sequence[Candidate]) -> ScoreTable:
        scores = {
            c.name: Score(
                self.p[c.name], self.p[c.name] - 0.1, self.p[c.name] + 0.1, measured=c.name not in self.unmeasured
            )
            for c in candidates
        }
        return ScoreTable(scores, version=self.version, is_prior=self.is_prior, novelty=self.novelty)


class FixedHealth:
    """Everything is well but for the names given."""

    def __init__(self, down: Sequence[str] = (), vitals: Mapping[str, Vitals] | None = None) -> None:
        self.down, self.known = set(down), dict(vitals or {})

    def vitals(self, candidate: Candidate) -> Vitals:
        if candidate.name in self.down:
            return Vitals(available=False, retry_in_s=7.0)
        return self.known.get(candidate.name, Vitals())


class Bench:
    """A router with everything around it fixed: counting ids, a clock that stands still, a seeded rng."""

    def __init__(self, scorer: FixedScorer, *, health: FixedHealth | None = None, **settings: Any) -> None:
        self.now, self.count = 1000.0, 0
        self.health = health or FixedHealth()
        defaults = RouterSettings(
            default=None,
            quality=1.0,
            switch_price=0.02,
            sticky=True,
            abstain=True,
            abstain_margin=0.0,
            novelty_limit=0.98,
            time_price=0.0,
            fast_time_price=0.05,
            explore=0.0,
            max_fallbacks=3,
        )
        values = {name: getattr(defaults, name) for name in RouterSettings.__dataclass_fields__} | settings
        self.router = Router(
            RouterSettings(**values),
            scorer,
            self.health,
            MemorySessions(1800, lambda: self.now),
            Ambient(lambda: self.now, self._new_id, b"secret", Random(1)),
        )

    def _new_id(self) -> str:
        self.count += 1
        return f"dec_{self.count}"

    async def auto(
        self, candidates: Sequence[Candidate], body: dict[str, Any] | None = None, wishes: Wishes = NOTHING, **more: Any
    ) -> RoutingDecision:
        return await self.router.auto(
            model="auto",
            body=body or {"messages": [{"role": "user", "content": "Why is the sky blue?"}]},
            endpoint=more.pop("endpoint", Endpoint.CHAT),
            wishes=wishes,
            candidates={item.name: item for item in candidates},
            **more,
        )
