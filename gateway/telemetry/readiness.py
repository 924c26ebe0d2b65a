"""Whether the gateway can do its work now: what is wrong, and what would put it right. Pure functions of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.registry.records import Candidate
from gateway.routing.vitals import HealthView

FIRST_MODEL = "orbweaver models add NAME --base-url http://127.0.0.1:11434/v1"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `blocking`: no request can be answered until it is put right."""

    what: str
    fix: str
    blocking: bool = False


@dataclass(frozen=True, slots=True)
class CandidateStates:
    """Names of the candidates, by state. `down`: switched on, but every deployment's circuit is open."""

    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()


def candidate_states(candidates: Mapping[str, Candidate], health: HealthView) -> CandidateStates:
    """Sort all candidates, disabled ones too, into their states."""
    up, down, disabled = [], [], []
    for name, candidate in candidates.items():
        if not candidate.enabled:
            disabled.append(name)
        elif health.vitals(candidate).available:
            up.append(name)
        else:
            down.append(name)
    return CandidateStates(tuple(up), tuple(down), tuple(disabled))


def candidate_problems(
    candidates: Mapping[str, Candidate], health: HealthView, read_secret: Callable[[str | None], str | None]
) -> list[Problem]:
    """What is wrong with the candidates.

    Args:
        candidates: all of them, disabled ones too.
        read_secret: looks an environment variable up; None where it is not set.
    """
    states = candidate_states(candidates, health)
    problems = []
    if not candidates:
        problems.append(Problem("No model is registered.", f"Add the first: `{FIRST_MODEL}`.", blocking=True))
    elif not states.up and not states.down:
        first = states.disabled[0]
        problems.append(
            Problem("Every model is switched off.", f"Switch one on: `orbweaver models enable {first}`.", blocking=True)
        )
    for name in states.down:
        wait = health.vitals(candidates[name]).retry_in_s
        problems.append(
            Problem(
                f"{name} fails and rests for {wait:.0f} s.",
                f"See what it answers: `orbweaver models test {name}`.",
                blocking=not states.up,
            )
        )
    problems.extend(
        Problem(
            f"{name} needs a key, and the variable {variable} is not set.",
            f"Start the gateway with {variable} set, or register {name} without a key.",
        )
        for name in (*states.up, *states.down)
        for variable in sorted({place.api_key_env or "" for place in candidates[name].deployments} - {""})
        if read_secret(variable) is None
    )
    return problems


def registry_problems(problem: str | None, *, loaded: bool) -> list[Problem]:
    """What is wrong with the registry's database, from its own words; it blocks only what was never read."""
    if problem is None:
        return []
    if loaded:
        return [Problem(f"The registry cannot be read: {problem}", "The last known state stays in force until it can.")]
    return [
        Problem(
            f"The registry has not been read: {problem}",
            "Check database_url and the state folder; the models of the config file are in force until then.",
        )
    ]
