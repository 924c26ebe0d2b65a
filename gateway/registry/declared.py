"""Checks of the config file's candidates before the gateway starts: the same as for a registration at run time."""

from __future__ import annotations

import asyncio

from gateway.errors import ConfigError, InvalidBody
from gateway.registry.registration import network_rules
from gateway.registry.validation import check_candidate
from gateway.settings import Settings


def check_declared(settings: Settings) -> list[str]:
    """Warnings about the declared candidates, each with the candidate's name.

    Raises:
        ConfigError: one line for each value that cannot be used.
    """
    return asyncio.run(_check(settings))


async def _check(settings: Settings) -> list[str]:
    rules = network_rules(settings)
    declared = [candidate.to_candidate() for candidate in settings.candidates]
    results = await asyncio.gather(*(check_candidate(one, rules) for one in declared), return_exceptions=True)
    warnings, errors = [], []
    for candidate, result in zip(declared, results, strict=True):
        if isinstance(result, InvalidBody):
            errors += [f"candidate {candidate.name!r}: {line}" for line in str(result).splitlines()]
        elif isinstance(result, BaseException):
            raise result
        else:
            warnings += [f"candidate {candidate.name!r}: {line}" for line in result]
    if errors:
        raise ConfigError("\n".join(errors))
    return warnings
