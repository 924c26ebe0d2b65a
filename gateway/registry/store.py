"""Reads and writes candidates, client keys and profiles. Synchronous: `registry.py` calls it in a thread."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import Conflict, NotFound
from gateway.registry.encoding import candidate_from_json, candidate_to_json
from gateway.registry.records import Candidate, ClientKey
from gateway.registry.snapshot import StoredCandidate

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from gateway.registry.database import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contents:
    """What the store holds at the given section versions; the next load reads only what changed since."""

    versions: Mapping[str, int] = field(default_factory=dict)
    candidates: tuple[StoredCandidate, ...] = ()
    keys: Mapping[str, ClientKey] = field(default_factory=dict)
    profiles: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    profile_versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """One number for all sections; it only grows."""
        return sum(self.versions.values())


class Store:
    """The registry's tables as verbs. Times are given by the caller, in seconds since 1970."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, known: Contents) -> Contents:
        """What is stored now; `known` itself where nothing has changed. Raises RegistryError."""
        from sqlalchemy import select

        from gateway.registry.tables import versions

        with self._database.read() as connection:
            now = {row.section: int(row.value) for row in connection.execute(select(versions))}
            if now == known.versions:
                return known
            changed = {section for section, value in now.items() if known.versions.get(section) != value}
            # A smaller number means another database (restored, or made anew): nothing known holds any more.
            if any(now.get(section, 0) < value for section, value in known.versions.items()):
                known, changed = Contents(), set(now)
            profiles, profile_versions = known.profiles, known.profile_versions
            if "profiles" in changed:
                profiles, profile_versions = _read_profiles(connection, known)
            return Contents(
                versions=now,
                candidates=_read_candidates(connection) if "candidates" in changed else known.candidates,
                keys=_read_keys(connection, known) if "keys" in changed else known.keys,
                profiles=profiles,
                profile_versions=profile_versions,
            )

    def put_candidate(self, candidate: Candidate, now: float, *, replace: bool) -> None:
        """Add a candidate, or replace it. Raises Conflict where it is there already and `replace` is false."""
        from sqlalchemy import insert, select, update

        from gateway.registry.tables import candidates

        body = orjson.dumps(candidate_to_json(candidate)).decode()
        values = {"body": body, "enabled": candidate.enabled, "updated_at": now}
        with self._database.write() as connection:
            _raise_version(connection, "candidates")
            row = connection.execute(select(candidates.c.body).where(candidates.c.name == candidate.name)).first()
            if row is None:
                connection.execute(insert(candidates).values(name=candidate.name, created_at=now, **values))
                return
            if row.body is not None and not replace:
                raise Conflict(
                    f"A candidate named {candidate.name!r} is registered already.",
                    hint=f"Choose another name, or `orbweaver models remove {candidate.name}` first.",
                    param="name",
                )
            connection.execute(update(candidates).where(candidates.c.name == candidate.name).values(values))

    def switch_candidate(self, name: str, enabled: bool, now: float) -> None:
        """Switch a candidate on or off; for one of the config file a row without a body is kept."""
        from sqlalchemy import insert, update

        from gateway.registry.tables import candidates

        with self._database.write() as connection:
            _raise_version(connection, "candidates")
            changed = connection.execute(
                update(candidates).where(candidates.c.name == name).values(enabled=enabled, updated_at=now)
            )
            if changed.rowcount == 0:
                connection.execute(
                    insert(candidates).values(name=name, body=None, enabled=enabled, created_at=now, updated_at=now)
                )

    def remove_candidate(self, name: str) -> None:
        """Forget a candidate and its profile. Raises NotFound."""
        from sqlalchemy import delete

        from gateway.registry.tables import candidates, profiles

        with self._database.write() as connection:
            _raise_version(connection, "candidates")
            if connection.execute(delete(candidates).where(candidates.c.name == name)).rowcount == 0:
                raise NotFound(f"No candidate named {name!r} is registered.", param="name")
            if connection.execute(delete(profiles).where(profiles.c.name == name)).rowcount:
                _raise_version(connection, "profiles")

    def put_key(self, key: ClientKey) -> None:
        """Store a new client key."""
        from sqlalchemy import insert

        from gateway.registry.tables import client_keys

        with self._database.write() as connection:
            version = _raise_version(connection, "keys")
            connection.execute(insert(client_keys).values(version=version, **_key_values(key)))

    def change_key(self, key: ClientKey) -> None:
        """Store new limits, models or the revocation of a key. Raises NotFound."""
        from sqlalchemy import update

        from gateway.registry.tables import client_keys

        with self._database.write() as connection:
            version = _raise_version(connection, "keys")
            change = update(client_keys).where(client_keys.c.id == key.id).values(version=version, **_key_values(key))
            if connection.execute(change).rowcount == 0:
                raise NotFound(f"There is no client key {key.id!r}.", param="id")

    def put_profile(self, name: str, profile: Mapping[str, Any], now: float) -> None:
        """Store the capability profile of a candidate, replacing the old one."""
        from sqlalchemy import insert, update

        from gateway.registry.tables import profiles

        with self._database.write() as connection:
            values = {
                "body": orjson.dumps(dict(profile)).decode(),
                "updated_at": now,
                "version": _raise_version(connection, "profiles"),
            }
            if connection.execute(update(profiles).where(profiles.c.name == name).values(values)).rowcount == 0:
                connection.execute(insert(profiles).values(name=name, **values))

    def shared_key(self, name: str, offered: bytes) -> bytes:
        """The key of that name, the same for every gateway on this database; `offered` becomes it where none is."""
        from sqlalchemy import insert, select

        from gateway.registry.tables import shared_keys, versions

        with self._database.write() as connection:
            # PostgreSQL: one writer at a time, so that two gateways that start together agree.
            connection.execute(select(versions.c.value).where(versions.c.section == "keys").with_for_update())
            row = connection.execute(select(shared_keys.c.value).where(shared_keys.c.name == name)).first()
            if row is not None:
                return bytes.fromhex(row.value)
            connection.execute(insert(shared_keys).values(name=name, value=offered.hex()))
            return offered


def _raise_version(connection: Connection, section: str) -> int:
    """The section's next version. The row stays locked until the commit, so versions are committed in order."""
    from sqlalchemy import insert, select, update

    from gateway.registry.tables import versions

    mine = versions.c.section == section
    if connection.execute(update(versions).where(mine).values(value=versions.c.value + 1)).rowcount == 0:
        connection.execute(insert(versions).values(section=section, value=1))
    return int(connection.execute(select(versions.c.value).where(mine)).scalar_one())


def _read_candidates(connection: Connection) -> tuple[StoredCandidate, ...]:
    """All rows; one that cannot be read is left out and logged, so that it does not take the others with it."""
    from sqlalchemy import select

    from gateway.registry.tables import candidates

    found = []
    for row in connection.execute(select(candidates).order_by(candidates.c.created_at, candidates.c.name)):
        try:
            candidate = (
                None if row.body is None else candidate_from_json(orjson.loads(row.body), enabled=bool(row.enabled))
            )
        except (ValueError, KeyError, TypeError) as error:
            log.error("The registry's entry %r cannot be read and is left out: %s", row.name, error)
            continue
        found.append(StoredCandidate(name=row.name, enabled=bool(row.enabled), candidate=candidate))
    return tuple(found)


def _read_keys(connection: Connection, known: Contents) -> dict[str, ClientKey]:
    """Known keys plus those changed since; keys are never deleted."""
    from sqlalchemy import select

    from gateway.registry.tables import client_keys

    keys = dict(known.keys)
    since = known.versions.get("keys", -1)
    for row in connection.execute(select(client_keys).where(client_keys.c.version > since)):
        keys[row.key_hash] = _key(row)
    return keys


def _read_profiles(connection: Connection, known: Contents) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Profiles by name and the version of each; only bodies that changed are read (one may hold 1,000 answers)."""
    from sqlalchemy import select

    from gateway.registry.tables import profiles

    versions = {row.name: int(row.version) for row in connection.execute(select(profiles.c.name, profiles.c.version))}
    changed = [name for name, version in versions.items() if known.profile_versions.get(name) != version]
    bodies = {name: known.profiles[name] for name in versions if name not in changed}
    for row in connection.execute(select(profiles.c.name, profiles.c.body).where(profiles.c.name.in_(changed))):
        bodies[row.name] = orjson.loads(row.body)
    return bodies, versions


def _key_values(key: ClientKey) -> dict[str, Any]:
    values = {name: getattr(key, name) for name in ClientKey.__dataclass_fields__}
    values["models"] = orjson.dumps(sorted(key.models)).decode()
    return values


def _key(row: Row[Any]) -> ClientKey:
    values = {name: getattr(row, name) for name in ClientKey.__dataclass_fields__}
    values["models"] = frozenset(orjson.loads(row.models))
    values["revoked"] = bool(row.revoked)
    return ClientKey(**values)
