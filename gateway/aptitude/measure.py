"""One measurement of one candidate: suite, probes, questions, profile, card. Writes nothing but answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from aptitude_tests.answers import AnswerStore
from aptitude_tests.caller import Caller
from aptitude_tests.card import Card, task_results
from aptitude_tests.circle import hard_items
from aptitude_tests.drift import compare
from aptitude_tests.errors import AptitudeError
from aptitude_tests.flow import Flow, FlowPlan, FlowResult
from aptitude_tests.item import Item, Suite
from aptitude_tests.probes import Probes, probe
from aptitude_tests.progress import Progress
from aptitude_tests.render import render
from aptitude_tests.selection import choose_items
from aptitude_tests.source import Prices
from aptitude_tests.suite_data import load_suite
from capability_encoder.profile import Answer, CapabilityProfile
from gateway.aptitude.abilities import corrected
from gateway.aptitude.source import UpstreamSource
from gateway.aptitude.wish import Wish
from gateway.encoder.profiles import profile_of
from gateway.registry.records import Ability, Candidate
from gateway.routing.features import estimate_tokens
from gateway.upstreams.base import Timeouts
from gateway.upstreams.failures import is_too_long
from gateway.upstreams.probe import UpstreamFor

if TYPE_CHECKING:
    from aptitude_tests.ability import Measure

#: Above this share of empty replies (or of calls without any) the endpoint is at fault, not the model.
MOST_EMPTY = 0.8
MOST_FAILED = 0.3
#: Tokens that a question leaves for its answer.
SHORT_ANSWER = 16
#: Standard deviations from which answers are not those of the model whose name the candidate bears.
SURPRISING = 3.0
STRANGER = (
    "{name} does not answer as the {known} that the encoder knows ({surprise:+.1f} standard deviations): "
    "it is routed by these answers alone."
)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a measurement works with.

    Attributes:
        measure: gives the encoder's measure, None where no encoder can be had.
        pool: the candidates in use, with what is stored of each; for what the model will win.
        clock: wall time in seconds.
    """

    answers: AnswerStore
    upstream_for: UpstreamFor
    timeouts: Timeouts
    measure: Callable[[], Awaitable[Measure | None]]
    clock: Callable[[], float]
    suite_data: Path | None = None
    pool: Mapping[str, Candidate] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """The profile to store, the candidate as it showed itself, and the card."""

    profile: CapabilityProfile
    candidate: Candidate
    card: Card


async def run_measurement(
    candidate: Candidate, wish: Wish, bench: Bench, on_progress: Callable[[Progress], None]
) -> Measured:
    """Measure a candidate.

    Raises:
        AptitudeError: the suite cannot be used, a cap is reached, or the endpoint does not answer; what was answered
            is kept and used by the next run of the same wish.
    """
    folder = Path(wish.suite_data) if wish.suite_data else bench.suite_data
    suite = await asyncio.to_thread(load_suite, wish.suite, seed=wish.seed, data_dir=folder)
    source = UpstreamSource(candidate, bench.upstream_for, bench.timeouts)
    caller = Caller(source, wish.limits, Prices(candidate.price_in, candidate.price_out))
    probes = await probe(caller, context_window=candidate.context_window) if wish.probes else None
    shown, warnings = (candidate, ()) if probes is None else corrected(candidate, probes)
    measure = await bench.measure()
    known = () if measure is None else measure.scorer.known_models
    facts = replace(profile_of(shown, None, known), answers=())
    plan, left_out = await asyncio.to_thread(_plan, suite, wish, shown, probes, measure, facts)
    result = await Flow(plan, caller, bench.answers, take=wish.take, on_progress=on_progress).run()
    _check_replies(result)
    return await asyncio.to_thread(
        _conclude,
        _Findings(suite, wish, shown, probes, (*suite.warnings, *warnings, *left_out), result),
        bench,
        measure,
        facts,
    )


@dataclass(frozen=True, slots=True)
class _Findings:
    suite: Suite
    wish: Wish
    candidate: Candidate
    probes: Probes | None
    notes: tuple[str, ...]
    result: FlowResult


def _plan(
    suite: Suite,
    wish: Wish,
    candidate: Candidate,
    probes: Probes | None,
    measure: Measure | None,
    facts: CapabilityProfile,
) -> tuple[FlowPlan, tuple[str, ...]]:
    """What to ask, and what is left out because the model cannot take it."""
    able = tuple(item for item in suite.items if _can_take(item, candidate, probes))
    notes: tuple[str, ...] = ()
    if len(able) < len(suite.items):
        notes = (f"{len(suite.items) - len(able)} items need tools or vision, which it lacks; they are not asked.",)
    window = _window(candidate, probes)
    fitting = able if window is None else tuple(item for item in able if _length(item) < window)
    if len(fitting) < len(able):
        notes += (f"{len(able) - len(fitting)} items do not fit its {window} tokens; they are not asked.",)
    asked = replace(suite, items=fitting)
    budget = len(fitting) if wish.budget is None else wish.budget
    items = tuple(choose_items(asked, budget, seed=wish.seed))
    # The bank is calibrated on single answers: a rotation would make its items harder than it knows them.
    uncalibrated = [item for item in hard_items(asked) if item.id not in suite.statistics]
    circle = frozenset(item.id for item in uncalibrated) if wish.circle else frozenset()
    if measure is None or wish.budget is None:
        return FlowPlan(items, circle), notes
    from aptitude_tests.stopping import HardlyMoves, looks

    rule = HardlyMoves(measure, facts, suite.name, items)
    return FlowPlan(items, circle, looks(len(items)), rule), notes


def _can_take(item: Item, candidate: Candidate, probes: Probes | None) -> bool:
    """False where the item needs what the model was seen to lack; what is not known is tried."""
    for needed, ability in ((bool(item.images), Ability.VISION), (bool(item.tools), Ability.TOOLS)):
        if not needed or ability in candidate.can:
            continue
        finding = None if probes is None else probes.abilities.get(ability.value)
        if finding is not None and finding.able is False:
            return False
    return True


def _window(candidate: Candidate, probes: Probes | None) -> int | None:
    """Tokens that the model takes, as declared or as its endpoint says; None where neither is known."""
    known = (candidate.context_window, None if probes is None else probes.context_limit)
    return min((each for each in known if each is not None), default=None)


def _length(item: Item) -> int:
    """Tokens of a question, estimated, and room for a short answer."""
    return estimate_tokens(dict(render(item).as_fields())) + SHORT_ANSWER


def _check_replies(result: FlowResult) -> None:
    """Raises AptitudeError where too little came back to say anything of the model."""
    records = result.records
    if not records:
        raise AptitudeError("the suite holds no item that this model can take.", hint="Choose another with --suite.")
    # Lengths are estimates: what the endpoint finds too long after all says nothing against the endpoint.
    failed = [record for record in records if record.verdict is None and not is_too_long(record.failure or "")]
    if len(failed) > MOST_FAILED * len(records):
        raise AptitudeError(
            f"{len(failed)} of {len(records)} questions got no reply; the last: {failed[-1].failure}",
            hint="Run it again when the endpoint works; what was answered is kept.",
        )
    empty = sum(record.verdict is not None and record.verdict.reason == "empty" for record in records)
    if empty > MOST_EMPTY * len(records):
        raise AptitudeError(
            f"{empty} of {len(records)} replies were empty: the endpoint puts no answer into the message.",
            hint="See what it sends: orbweaver models test NAME.",
        )


def _conclude(found: _Findings, bench: Bench, measure: Measure | None, facts: CapabilityProfile) -> Measured:
    """Profile and card of a finished run."""
    name, records = found.candidate.name, found.result.records
    if measure is not None:
        from aptitude_tests.ability import profile_of_records

        profile = profile_of_records(facts, found.suite.name, records, measure.bank)
    else:
        profile = replace(facts, answers=_plain_answers(found.suite, found.result))
    notes = found.notes
    surprise = 0.0 if measure is None else measure.surprise(profile)
    if abs(surprise) > SURPRISING:
        notes = (*notes, STRANGER.format(name=name, known=profile.known_as, surprise=surprise))
        profile = replace(profile, known_as=None)
    replies = [record for record in records if record.verdict is not None]
    tokens = [record.tokens for record in replies if record.tokens is not None]
    before = bench.profiles.get(name)
    drift = None
    if found.wish.reprofile and before is not None:
        drift = compare(CapabilityProfile.from_record({**before, "name": name}), profile)
    card = Card(
        model=name,
        suite=found.suite.name,
        suite_version=found.suite.version,
        seed=found.wish.seed,
        measured_at=bench.clock(),
        tasks=task_results(found.suite, records),
        replies=len(replies),
        calls_without_reply=len(records) - len(replies),
        reasons=dict(Counter(record.verdict.reason for record in replies if record.verdict is not None)),
        cut=sum(record.cut for record in replies),
        cost_usd=found.result.progress.cost_usd,
        seconds_median=median(record.seconds for record in replies) if replies else None,
        tokens_mean=sum(tokens) / len(tokens) if tokens else None,
        probes=None if found.probes is None else found.probes.as_record(),
        standing=None if measure is None else _standing(measure, profile),
        wins={} if measure is None else _wins(measure, found.candidate, profile, bench),
        drift=None if drift is None else {**drift.as_record(), "words": str(drift)},
        early=found.result.early,
        notes=notes,
    )
    return Measured(profile, found.candidate, card)


def _plain_answers(suite: Suite, result: FlowResult) -> tuple[Answer, ...]:
    """Answers where no encoder is at hand: items with statistics of other models by id alone, all others with text."""
    from aptitude_tests.render import render_text

    graded = [(record.item, record.verdict) for record in result.records if record.verdict is not None]
    texts = {item.id: None if item.id in suite.statistics else render_text(item) for item, _ in graded}
    return tuple(Answer(item.id, verdict.score or 0.0, suite.name, texts[item.id]) for item, verdict in graded)


def _standing(measure: Measure, profile: CapabilityProfile) -> dict[str, float]:
    from dataclasses import asdict

    return {name: round(value, 4) for name, value in asdict(measure.standing(profile)).items()}


def _wins(
    measure: Measure, candidate: Candidate, profile: CapabilityProfile, bench: Bench
) -> Mapping[str, Mapping[str, float]]:
    from gateway.aptitude.wins import shares

    others: Sequence[Candidate] = [one for one in bench.pool.values() if one.name != candidate.name and one.enabled]
    known = measure.scorer.known_models
    profiles = [profile_of(one, bench.profiles.get(one.name), known) for one in others]
    return shares(measure, [candidate, *others], [profile, *profiles])
