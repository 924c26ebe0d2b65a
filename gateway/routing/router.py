"""`Router`: features -> constraints -> scores -> policy -> `RoutingDecision`. Knows no HTTP, no clock of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from gateway.registry.records import Candidate, ClientKey, Endpoint
from gateway.routing.constraints import Exclusion, exclusion, nobody_left
from gateway.routing.cost import expected_cost, expected_time
from gateway.routing.decision import CandidateVerdict, RoutingDecision, Rule
from gateway.routing.features import Features, extract_features
from gateway.routing.policy import Preferences, Prospect, Ranked, abstention, by_name, rank
from gateway.routing.scoring import Scorer, ScoreTable
from gateway.routing.session import SessionStore, stay
from gateway.routing.vitals import HealthView, Vitals
from gateway.routing.wishes import Wishes


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """The knobs of `auto`; see `RoutingSettings` for what each means."""

    default: str | None
    quality: float
    switch_price: float
    sticky: bool
    abstain: bool
    abstain_margin: float
    novelty_limit: float
    time_price: float
    fast_time_price: float
    explore: float
    max_fallbacks: int


@dataclass(frozen=True, slots=True)
class Ambient:
    """What the router takes from outside, injected so that decisions can be replayed."""

    clock: Callable[[], float]
    new_id: Callable[[], str]
    secret: bytes
    rng: Random


class Router:
    """Chooses who answers. One instance serves a process; `scorer` may be swapped at any time."""

    def __init__(
        self, settings: RouterSettings, scorer: Scorer, health: HealthView, sessions: SessionStore, ambient: Ambient
    ) -> None:
        self.settings, self.scorer = settings, scorer
        self.on_decided: Callable[[RoutingDecision, ScoreTable], None] | None = None
        self.hash_key = ambient.secret
        self._health, self._sessions, self._ambient = health, sessions, ambient

    def named(self, model: str, candidate: Candidate, wishes: Wishes) -> RoutingDecision:
        """The decision for a model that the caller named: no scoring, no fallback to another model."""
        return RoutingDecision(
            id=self._ambient.new_id(),
            requested=model,
            model=candidate.name,
            order=(candidate.name,),
            rule="named",
            reason="the caller named it",
            quality=wishes.quality if wishes.quality is not None else self.settings.quality,
            candidates=(),
            scorer="none",
            prior=False,
            ask_hash="",
            decided_at=self._ambient.clock(),
        )

    async def auto(
        self,
        *,
        model: str,
        body: dict[str, Any],
        endpoint: Endpoint,
        wishes: Wishes,
        candidates: Mapping[str, Candidate],
        key: ClientKey | None = None,
        conversation: str | None = None,
    ) -> RoutingDecision:
        """Choose among `candidates`.

        Args:
            model: what the caller asked for, `auto` or a preset.
            conversation: the caller's own name for the conversation, where a header carries one.
        Raises:
            RoutingError: no candidate satisfies the hard constraints or `min_p`; names the rule.
        """
        features = extract_features(body, endpoint)
        vitals = {name: self._health.vitals(item) for name, item in candidates.items()}
        excluded: dict[str, Exclusion] = {}
        eligible: list[Candidate] = []
        for name, item in candidates.items():
            why_not = exclusion(item, features, wishes, endpoint=endpoint, key=key, vitals=vitals[name])
            if why_not is None:
                eligible.append(item)
            else:
                excluded[name] = why_not
        if not eligible:
            raise nobody_left(list(excluded.values()), wishes, candidates)
        session = self._session_key(features, wishes, key, conversation)
        current = await self._sessions.get(session) if session and self._looks_back(features, wishes) else None
        table = await self.scorer.score(features.ask, eligible)
        prospects = [
            self._prospect(item, features, vitals[item.name], table, item.name == current) for item in eligible
        ]
        if wishes.min_p is not None:
            prospects = _above_floor(prospects, wishes.min_p, excluded)
            if not prospects:
                raise nobody_left(list(excluded.values()), wishes, candidates)
        preferences = self._preferences(wishes)
        ranked = rank(prospects, preferences)
        choice, rule, reason, propensity = self._choose(ranked, table, preferences, current, features)
        order = self._order(choice, ranked)
        decision = RoutingDecision(
            id=self._ambient.new_id(),
            requested=model,
            model=choice.name,
            order=order,
            rule=rule,
            reason=reason,
            quality=preferences.quality,
            candidates=_verdicts(ranked, excluded),
            scorer=table.version,
            prior=table.is_prior,
            ask_hash=self._hash("ask", features.ask),
            session=session,
            novelty=table.novelty,
            neighbours=table.neighbours,
            features=features.summary(),
            decided_at=self._ambient.clock(),
            propensity=propensity,
            shadow=dict(table.shadow) if table.shadow is not None else None,
            shadow_scorer=table.shadow_version,
        )
        if self.on_decided is not None:
            self.on_decided(decision, table)
        return decision

    async def observe(self, decision: RoutingDecision, model: str) -> None:
        """Remember which model really answered, so that the session stays with it (also after a fallback)."""
        if decision.session is not None:
            await self._sessions.put(decision.session, model)

    def _preferences(self, wishes: Wishes) -> Preferences:
        own = self.settings
        return Preferences(
            quality=own.quality if wishes.quality is None else wishes.quality,
            time_price=own.fast_time_price if wishes.fast else own.time_price,
            switch_price=own.switch_price,
            abstain_margin=own.abstain_margin,
            novelty_limit=own.novelty_limit if own.abstain else 2.0,
            default=own.default if own.abstain else None,
        )

    def _prospect(
        self, item: Candidate, features: Features, vitals: Vitals, table: ScoreTable, is_current: bool
    ) -> Prospect:
        # What was said before this turn is likely in the prompt cache of the model that answered it.
        cached = max(0, features.prompt_tokens - len(features.ask) // 4) if is_current and features.continues else 0
        cost = expected_cost(item, features, vitals, cached_tokens=cached)
        return Prospect(item, table.scores[item.name], cost, expected_time(features, vitals))

    def _choose(
        self,
        ranked: Sequence[Ranked],
        table: ScoreTable,
        preferences: Preferences,
        current: str | None,
        features: Features,
    ) -> tuple[Ranked, Rule, str, float]:
        """The chosen prospect, the rule that fired, one sentence, and the probability with which it was chosen."""
        best, places = ranked[0], by_name(ranked)
        if len(ranked) == 1:
            return best, "only_one", "it is the only model that can take this request", 1.0
        doubt = abstention(ranked, table, preferences)
        preferred = places[preferences.default] if doubt and preferences.default else best
        keeps = stay(
            places.get(current) if current else None,
            preferred,
            in_tool_loop=features.in_tool_loop,
            sticky=self.settings.sticky,
            switch_price=self.settings.switch_price,
        )
        if keeps is not None and current is not None:
            return places[current], keeps.rule, keeps.reason, 1.0
        explore = self.settings.explore
        if explore > 0 and current is None and self._ambient.rng.random() < explore:
            drawn = self._ambient.rng.choice(list(ranked))
            share = explore / len(ranked) + (1 - explore if drawn is preferred else 0.0)
            return drawn, "explore", "drawn at random to learn how well it answers such prompts", share
        propensity = 1.0 - explore + explore / len(ranked) if current is None else 1.0
        if doubt:
            return preferred, "abstain", doubt, propensity
        return best, "utility", _sentence(ranked, table), propensity

    def _order(self, choice: Ranked, ranked: Sequence[Ranked]) -> tuple[str, ...]:
        others = [item.name for item in ranked if item.name != choice.name]
        return (choice.name, *others[: self.settings.max_fallbacks])

    def _looks_back(self, features: Features, wishes: Wishes) -> bool:
        """A first turn has no model to stay with, unless the caller named the session."""
        return features.continues or wishes.session is not None

    def _session_key(
        self, features: Features, wishes: Wishes, key: ClientKey | None, conversation: str | None
    ) -> str | None:
        """The caller's name for the session, else a keyed hash of what stays the same: tenant, system, first turn."""
        tenant = key.id if key is not None else ""
        if wishes.session or conversation:
            return self._hash("session", tenant, wishes.session or conversation or "")
        return self._hash("opening", tenant, features.opening) if features.opening else None

    def _hash(self, *parts: str) -> str:
        data = "\x1e".join(parts).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=self.hash_key, digest_size=12).hexdigest()


def _above_floor(prospects: list[Prospect], floor: float, excluded: dict[str, Exclusion]) -> list[Prospect]:
    kept = []
    for item in prospects:
        if item.score.p < floor:
            excluded[item.candidate.name] = Exclusion("min_p", f"p {item.score.p:.3f} is below {floor:.3f}")
        else:
            kept.append(item)
    return kept


def _verdicts(ranked: Sequence[Ranked], excluded: Mapping[str, Exclusion]) -> tuple[CandidateVerdict, ...]:
    seen = [_verdict(item) for item in ranked]
    return (*seen, *(CandidateVerdict(model=name, excluded_because=str(why)) for name, why in excluded.items()))


def _verdict(item: Ranked) -> CandidateVerdict:
    prospect, score = item.prospect, item.prospect.score
    return CandidateVerdict(
        model=item.name,
        p=score.p,
        p_low=score.p_low,
        p_high=score.p_high,
        cost_usd=prospect.cost_usd,
        time_s=prospect.time_s,
        utility=item.utility,
        why=dict(score.why) or None,
    )


def _sentence(ranked: Sequence[Ranked], table: ScoreTable) -> str:
    best, second = ranked[0], ranked[1]
    basis = "declared prior" if table.is_prior else "predicted"

    def figures(item: Ranked) -> str:
        cost = item.prospect.cost_usd
        return f"p {item.prospect.score.p:.2f}" + (f" at ${cost:.6f}" if cost is not None else "")

    return f"best utility by {basis} quality and price: {figures(best)} against {figures(second)} of {second.name}"
