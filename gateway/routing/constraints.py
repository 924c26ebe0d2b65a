"""Hard constraints: what a candidate must satisfy before any score counts. Pure; each rule has a name and a fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.errors import RoutingError
from gateway.registry.records import Ability, Candidate, ClientKey, Endpoint
from gateway.routing.cost import expected_cost
from gateway.routing.features import Features
from gateway.routing.vitals import Vitals
from gateway.routing.wishes import Wishes

FIXES = {
    "none": "Add a model: `orbweaver models add NAME --base-url URL`.",
    "disabled": "Enable one: `orbweaver models enable NAME`.",
    "endpoint": "Register a model that serves this endpoint.",
    "key": "Use a key that may use more models, or widen this one's list.",
    "allow": "Widen `orbweaver.allow`.",
    "deny": "Shorten `orbweaver.deny`.",
    "context": "Shorten the prompt, lower max_tokens, or register a model with a larger context window.",
    "max_cost_usd": "Raise `orbweaver.max_cost_usd`, or declare the models' prices.",
    "min_p": "Lower `orbweaver.min_p`.",
    "health": "Every model that could answer is cooling down after failures; try again shortly.",
    **{
        str(ability): f"Register a model with this ability: `orbweaver models add NAME ... --can {ability}`."
        for ability in Ability
    },
}

RULE_ORDER = (
    *("disabled", "endpoint", "key", "allow", "deny"),
    *map(str, Ability),
    *("context", "max_cost_usd", "min_p", "health"),
)
PARAMS = {"context": "messages", **{rule: f"orbweaver.{rule}" for rule in ("allow", "deny", "max_cost_usd", "min_p")}}


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why a candidate cannot take a request: the rule's name, and the facts."""

    rule: str
    facts: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.facts}" if self.facts else self.rule


def exclusion(
    candidate: Candidate,
    features: Features,
    wishes: Wishes,
    *,
    endpoint: Endpoint,
    key: ClientKey | None,
    vitals: Vitals,
) -> Exclusion | None:
    """The first rule that keeps the candidate out, or None. Order: who may, what can, what costs, what works."""
    found = _not_allowed(candidate, wishes, endpoint, key) or _not_able(candidate, features)
    if found is None and wishes.max_cost_usd is not None:
        found = _too_dear(candidate, features, wishes.max_cost_usd)
    if found is None and not vitals.available:
        found = Exclusion("health", f"cooling down for {vitals.retry_in_s:.0f} s after failures")
    return found


def _not_allowed(candidate: Candidate, wishes: Wishes, endpoint: Endpoint, key: ClientKey | None) -> Exclusion | None:
    if not candidate.enabled:
        return Exclusion("disabled", "the operator has disabled it")
    if endpoint not in candidate.endpoints:
        return Exclusion("endpoint", f"does not serve {endpoint.value}")
    if key is not None and key.models and candidate.name not in key.models:
        return Exclusion("key", "this client key may not use it")
    if wishes.allow is not None and candidate.name not in wishes.allow:
        return Exclusion("allow", "not in the allow list")
    if candidate.name in wishes.deny:
        return Exclusion("deny", "in the deny list")
    return None


def _not_able(candidate: Candidate, features: Features) -> Exclusion | None:
    for ability in sorted(features.needs):
        if ability not in candidate.can:
            return Exclusion(str(ability), f"needs {ability}, which is not declared")
    needed = features.prompt_tokens + (features.max_output_tokens or 0)
    if candidate.context_window is not None and needed > candidate.context_window:
        return Exclusion("context", f"needs about {needed:,} tokens, the window is {candidate.context_window:,}")
    return None


def _too_dear(candidate: Candidate, features: Features, cap_usd: float) -> Exclusion | None:
    cost = expected_cost(candidate, features)
    if cost is None:
        return Exclusion("max_cost_usd", "its price is not declared")
    if cost > cap_usd:
        return Exclusion("max_cost_usd", f"would cost about ${cost:.6f}, the cap is ${cap_usd:.6f}")
    return None


def nobody_left(exclusions: Sequence[Exclusion], wishes: Wishes, known: Iterable[str]) -> RoutingError:
    """The error for an empty candidate set: names the rule that emptied it, and what would fix it."""
    if not exclusions:
        message = "`auto` has no model to choose from: none is registered."
        return RoutingError(message, hint=FIXES["none"], code="no_candidate", param="model")
    rules = Counter(item.rule for item in exclusions)
    # The rule that took out those who came furthest decides: it is the one whose change would help.
    decisive = max(rules, key=RULE_ORDER.index)
    detail = "; ".join(f"{rule} excluded {count}" for rule, count in rules.most_common())
    unknown = sorted((wishes.allow or frozenset()) - set(known))
    note = f" Not registered: {', '.join(repr(name) for name in unknown)}." if unknown else ""
    example = next(item for item in exclusions if item.rule == decisive)
    return RoutingError(
        f"No model can take this request: rule {decisive!r} left none ({example.facts}; {detail}).{note}",
        hint=FIXES[decisive],
        code="context_length_exceeded" if decisive == "context" else "no_candidate",
        param=PARAMS.get(decisive, "model"),
        status=503 if decisive == "health" else 400,
    )
