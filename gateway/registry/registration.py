"""Registers a candidate: the checks, the merge with what was known, the write. Used by the admin API and the CLI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from capability_encoder.profile import CapabilityProfile, ProfileError
from gateway.config_file import explain
from gateway.errors import InvalidBody
from gateway.registry.addresses import NetworkRules, resolve
from gateway.registry.records import Candidate
from gateway.registry.registry import Registry
from gateway.registry.validation import Resolver, check_candidate
from gateway.settings import CandidateSettings, DeploymentSettings, Settings


@dataclass(frozen=True, slots=True)
class Registered:
    """A candidate as it now stands in the registry, and what its operator should know."""

    candidate: Candidate
    warnings: tuple[str, ...] = ()


def network_rules(settings: Settings) -> NetworkRules:
    """What the settings allow a candidate's address to be."""
    return NetworkRules(settings.allow_private_networks, settings.allow_link_local)


def fields_of(candidate: Candidate) -> dict[str, Any]:
    """The fields of the config schema that describe a candidate."""
    names = set(CandidateSettings.model_fields) & set(Candidate.__dataclass_fields__) - {"deployments"}
    places = [
        {name: getattr(place, name) for name in DeploymentSettings.model_fields} for place in candidate.deployments
    ]
    fields: dict[str, Any] = {name: getattr(candidate, name) for name in names}
    if len(places) == 1 and places[0]["weight"] == 1.0:
        del places[0]["weight"]
        return {**fields, **places[0], "base_url": places[0]["base_url"] or None}
    return {**fields, "deployments": places}


def read_profile(name: str, profile: Mapping[str, Any]) -> dict[str, Any]:
    """A capability profile as it is stored, under the candidate's name. Raises InvalidBody."""
    try:
        return CapabilityProfile.from_record({**profile, "name": name}).as_record()
    except (ProfileError, TypeError) as error:
        raise InvalidBody(f"The profile cannot be used: {error}.", param="profile", code="invalid_profile") from None


async def register(
    registry: Registry,
    settings: Settings,
    fields: Mapping[str, Any],
    *,
    profile: Mapping[str, Any] | None = None,
    resolver: Resolver = resolve,
) -> Registered:
    """Check and add a new candidate, with a profile where it is known; one of the config file may be overridden.

    Raises:
        InvalidBody: every bad value with its fix. Conflict: the name is taken.
    """
    candidate, warnings = await _checked(settings, fields, resolver)
    known = None if profile is None else read_profile(candidate.name, profile)
    await registry.put_candidate(candidate)
    if known is not None:
        await registry.put_profile(candidate.name, known)
    return _registered(registry, candidate.name, warnings)


async def change(
    registry: Registry, settings: Settings, name: str, changes: Mapping[str, Any], *, resolver: Resolver = resolve
) -> Registered:
    """Change some fields of a candidate; None takes a value away. Raises NotFound, InvalidBody."""
    if changes.get("name", name) != name:
        raise InvalidBody(f"{name!r} cannot be renamed.", hint="Register it anew under the other name.", param="name")
    place_fields = set(DeploymentSettings.model_fields)
    fields = fields_of(registry.candidate(name))
    if changes.get("deployments"):
        fields = {field: value for field, value in fields.items() if field not in place_fields}
    elif "deployments" in fields and place_fields & set(changes):
        raise InvalidBody(
            f"{name!r} has several deployments.", hint="Give all of them as `deployments`.", param="deployments"
        )
    fields |= changes
    given = {field: value for field, value in fields.items() if value is not None}
    candidate, warnings = await _checked(settings, given, resolver)
    await registry.put_candidate(candidate, replace_existing=True)
    return _registered(registry, name, warnings)


async def remove(registry: Registry, name: str) -> str | None:
    """Forget a registered candidate; a note where its name is still in force. Raises NotFound, Conflict."""
    await registry.remove_candidate(name)
    left = registry.snapshot.candidates.get(name)
    return None if left is None else f"{name} of the config file is in force again."


async def _checked(settings: Settings, fields: Mapping[str, Any], resolver: Resolver) -> tuple[Candidate, list[str]]:
    """The candidate and warnings. Raises InvalidBody with the schema's complaints and those of the checks together."""
    try:
        candidate = CandidateSettings.model_validate(dict(fields)).to_candidate("registry")
    except ValidationError as error:
        places = [str(problem["loc"][0]) for problem in error.errors(include_url=False) if problem["loc"]]
        sound = {field: value for field, value in fields.items() if field not in places}
        lines = [*explain(error, CandidateSettings), *await _complaints(settings, sound, resolver)]
        raise InvalidBody("\n".join(lines), param=next(iter(places), None), code="invalid_candidate") from None
    return candidate, await check_candidate(candidate, network_rules(settings), resolver)


async def _complaints(settings: Settings, fields: Mapping[str, Any], resolver: Resolver) -> list[str]:
    """What the checks say of those fields that fit the schema; nothing where they do not make a candidate."""
    try:
        candidate = CandidateSettings.model_validate(dict(fields)).to_candidate("registry")
        await check_candidate(candidate, network_rules(settings), resolver)
    except ValidationError:
        return []
    except InvalidBody as error:
        return error.message.splitlines()
    return []


def _registered(registry: Registry, name: str, warnings: list[str]) -> Registered:
    candidate = registry.candidate(name)
    note = registry.snapshot.notes.get(name)
    if name not in registry.snapshot.profiles:
        warnings = [*warnings, NOT_MEASURED.format(name=name)] if candidate.enabled else warnings
    return Registered(candidate, tuple([*warnings, *([note] if note else [])]))


NOT_MEASURED = "{name} is routed by its declared strength and price until it is measured."
