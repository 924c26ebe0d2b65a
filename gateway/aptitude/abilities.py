"""What the probes found, put into the declaration: missing abilities are filled in, false ones corrected."""

from __future__ import annotations

from dataclasses import replace

from aptitude_tests.probes import Probes
from gateway.registry.records import Ability, Candidate

_PROBED = {"tools": Ability.TOOLS, "json_schema": Ability.JSON_SCHEMA, "vision": Ability.VISION}


def corrected(candidate: Candidate, probes: Probes) -> tuple[Candidate, tuple[str, ...]]:
    """The candidate as it showed itself, and a warning for every declaration that was false.

    A candidate that the registry does not own is left as its file says; the warnings then say what to change there.
    """
    can, warnings = set(candidate.can), []
    for name, ability in _PROBED.items():
        finding = probes.abilities.get(name)
        if finding is None or finding.able is None:
            continue
        if finding.able:
            can.add(ability)
        elif ability in can:
            can.discard(ability)
            warnings.append(f"{candidate.name} was declared to do {name}, but {finding.detail or 'it does not'}.")
    streaming = probes.abilities.get("streaming")
    if streaming is not None and streaming.able is False:
        warnings.append(f"{candidate.name} does not stream: {streaming.detail}.")
    window = candidate.context_window
    if probes.context_limit is not None and (window is None or probes.context_limit < window):
        if window is not None:
            warnings.append(
                f"{candidate.name} was declared to take {window} tokens, but its endpoint says {probes.context_limit}."
            )
        window = probes.context_limit
    shown = replace(candidate, can=frozenset(can), context_window=window)
    if candidate.source == "registry":
        return shown, tuple(warnings)
    if warnings:
        warnings.append(f"{candidate.name} is declared in the config file: correct it there.")
    return candidate, tuple(warnings)
