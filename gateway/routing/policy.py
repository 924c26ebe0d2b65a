"""From scores to an order of candidates: utility, floor on p, abstention. Pure arithmetic on values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.registry.records import Candidate
from gateway.routing.scoring import Score, ScoreTable


@dataclass(frozen=True, slots=True)
class Preferences:
    """What an answer is worth. `quality` 0..1; `time_price` in utility per second; margins in utility.

    `novelty_limit`: at or above this novelty (0..1) nothing is known about such prompts and the default answers.
    """

    quality: float
    time_price: float
    switch_price: float
    abstain_margin: float
    novelty_limit: float
    default: str | None


@dataclass(frozen=True, slots=True)
class Prospect:
    """An eligible candidate with what is expected of it. `cost_usd`/`time_s` are None where unknown."""

    candidate: Candidate
    score: Score
    cost_usd: float | None
    time_s: float | None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A prospect with its utility in units of p."""

    prospect: Prospect
    utility: float

    @property
    def name(self) -> str:
        return self.prospect.candidate.name


def worth_usd(quality: float) -> float:
    """USD that a right answer is worth at a setting of the dial: 10^(4q - 4), unbounded at 1.

    An amount of money, not a rank inside the pool, so that adding a model that is never chosen changes no choice:
    0 -> $0.0001, 0.5 -> $0.01, 0.7 -> $0.063, 0.9 -> $0.40, 1 -> price does not count.
    """
    return float("inf") if quality >= 1.0 else 10.0 ** (4.0 * quality - 4.0)


def rank(prospects: Sequence[Prospect], preferences: Preferences) -> list[Ranked]:
    """Best first by utility = p - E[cost] / worth - E[time] * time_price; ties go to the cheaper, then by name.

    A candidate that nothing was measured of counts by the lower end of its interval: a price tag and a name alone must
    not outbid evidence. Among several such the highest of guesses would win, which is the one most overestimated.

    A price that is not declared counts as the dearest known one: unknown is not free. An unknown time counts as
    the median of the known ones.
    """
    worth = worth_usd(preferences.quality)
    dearest = max((item.cost_usd for item in prospects if item.cost_usd is not None), default=0.0)
    times = sorted(item.time_s for item in prospects if item.time_s is not None)
    typical = times[len(times) // 2] if times else 0.0

    def utility(item: Prospect) -> float:
        cost = dearest if item.cost_usd is None else item.cost_usd
        time = typical if item.time_s is None else item.time_s
        p = item.score.p if item.score.measured else item.score.p_low
        return p - cost / worth - time * preferences.time_price

    ranked = [Ranked(item, utility(item)) for item in prospects]
    return sorted(
        ranked, key=lambda r: (-r.utility, dearest if r.prospect.cost_usd is None else r.prospect.cost_usd, r.name)
    )


def abstention(ranked: Sequence[Ranked], table: ScoreTable, preferences: Preferences) -> str | None:
    """Why the default should answer although another ranks first; None where the ranking stands.

    "Never worse than the default": evidence must carry a choice away from it. With a prior there is no evidence
    to weigh, so the declared figures decide.
    """
    best = ranked[0]
    default = next((item for item in ranked if item.name == preferences.default), None)
    if table.is_prior or default is None or default.name == best.name:
        return None
    if table.novelty >= preferences.novelty_limit:
        return f"the prompt is unlike anything known (novelty {table.novelty:.2f})"
    gain = best.utility - default.utility
    if gain < preferences.abstain_margin:
        return f"{best.name} would gain only {gain:.3f} over the default"
    return None


def by_name(ranked: Sequence[Ranked]) -> Mapping[str, Ranked]:
    return {item.name: item for item in ranked}
