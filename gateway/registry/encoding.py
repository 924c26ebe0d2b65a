"""Candidates and client keys as plain JSON values, for the database, the admin API and the CLI. No I/O."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from gateway.registry.records import Ability, Candidate, ClientKey, Deployment, Endpoint, Source

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_PREFIX = "ow-"
KEY_LENGTH = 43  # of 32 random bytes in base 62
_BASE62 = frozenset(BASE62)
_DEPLOYMENT_FIELDS = {field.name for field in fields(Deployment)}
_CANDIDATE_FIELDS = {field.name for field in fields(Candidate)} - {"name", "deployments", "can", "endpoints", "source"}


def candidate_to_json(candidate: Candidate) -> dict[str, Any]:
    """Everything of a candidate; the inverse of `candidate_from_json`."""
    data = asdict(candidate)
    data["can"] = sorted(candidate.can)
    data["endpoints"] = sorted(candidate.endpoints)
    return data


def candidate_from_json(data: Mapping[str, Any], *, source: Source = "registry", enabled: bool = True) -> Candidate:
    """Rebuild a candidate. What a newer release wrote and this one does not know is left out.

    Raises:
        ValueError, KeyError, TypeError: the data is not a candidate.
    """
    known = {name: data[name] for name in _CANDIDATE_FIELDS if name in data and name != "enabled"}
    deployments = tuple(
        Deployment(**{name: value for name, value in place.items() if name in _DEPLOYMENT_FIELDS})
        for place in data["deployments"]
    )
    if not deployments:
        raise ValueError(f"candidate {data['name']!r} has no deployment")
    abilities = frozenset(Ability(value) for value in data.get("can", ()) if value in set(Ability))
    endpoints = frozenset(Endpoint(value) for value in data.get("endpoints", ()) if value in set(Endpoint))
    if endpoints:
        known["endpoints"] = endpoints
    return Candidate(name=data["name"], deployments=deployments, can=abilities, source=source, enabled=enabled, **known)


def key_to_json(key: ClientKey) -> dict[str, Any]:
    """What may be shown of a key: everything but its hash."""
    data = asdict(key)
    del data["key_hash"]
    data["models"] = sorted(key.models)
    return data


def is_key_of_ours(secret: str) -> bool:
    """Whether a secret has exactly the form that `new_secret` gives, so that some gateway of ours made it."""
    rest = secret.removeprefix(KEY_PREFIX)
    return len(rest) == KEY_LENGTH and len(secret) == len(KEY_PREFIX) + KEY_LENGTH and set(rest) <= _BASE62


def new_secret() -> str:
    """A fresh client key: `ow-` and 32 random bytes in base 62 (43 characters)."""
    number = int.from_bytes(secrets.token_bytes(32))
    digits = []
    for _ in range(KEY_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    return KEY_PREFIX + "".join(digits)


def hash_secret(secret: str) -> str:
    """SHA-256 in hex, the only form in which a key is kept.

    Keys carry 256 random bits, so no salt or slow hash is needed, and looking a hash up in a dict gives nothing away
    about other keys: an attacker cannot choose the hash.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
