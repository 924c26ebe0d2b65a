"""Where `models` and `keys` take their orders: a running gateway's admin API, or the registry of the state folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from gateway.cli.http import TIMEOUT_S, call
from gateway.settings import Settings, environment, load_settings

if TYPE_CHECKING:
    from gateway.registry.jobs import Job
    from gateway.registry.registry import Registry

Json = dict[str, Any]
# A probe calls twice, each within a minute.
TEST_TIMEOUT_S = 150.0


class Desk(Protocol):
    """What can be done to candidates and client keys. Answers are those of the admin API."""

    place: str

    def models(self) -> Json: ...
    def model(self, name: str) -> Json: ...
    def add_model(self, fields: Json) -> Json: ...
    def test_model(self, name: str) -> Json: ...
    def switch_model(self, name: str, enabled: bool) -> Json: ...
    def remove_model(self, name: str) -> Json: ...
    def measure_model(self, name: str, wish: Json, *, reprofile: bool = False) -> Json: ...
    def jobs(self, subject: str | None = None) -> Json: ...
    def job(self, job_id: str) -> Json: ...
    def cancel_job(self, job_id: str) -> Json: ...
    def resume_job(self, job_id: str, changes: Json) -> Json: ...
    def run_job(self, job_id: str, show: Callable[[Json], None]) -> Json | None: ...
    def keys(self) -> Json: ...
    def create_key(self, fields: Json) -> Json: ...
    def revoke_key(self, key_id: str) -> Json: ...


def open_desk(url: str | None, config: Path | None = None) -> Desk:
    """The gateway at `url` or ORBWEAVER_URL where one is named, else the registry that the settings name."""
    url = url or environment().get("ORBWEAVER_URL")
    return RemoteDesk(url) if url else LocalDesk(load_settings(config))


class RemoteDesk:
    """Speaks to a gateway's admin API with the key in ORBWEAVER_ADMIN_KEY."""

    def __init__(self, url: str) -> None:
        self.place = url

    def models(self) -> Json:
        return self._call("GET", "/models")

    def model(self, name: str) -> Json:
        return self._call("GET", f"/models/{quote(name)}")

    def add_model(self, fields: Json) -> Json:
        return self._call("POST", "/models", fields)

    def test_model(self, name: str) -> Json:
        return self._call("POST", f"/models/{quote(name)}/test", timeout_s=TEST_TIMEOUT_S)

    def switch_model(self, name: str, enabled: bool) -> Json:
        return self._call("POST", f"/models/{quote(name)}/{'enable' if enabled else 'disable'}")

    def remove_model(self, name: str) -> Json:
        return self._call("DELETE", f"/models/{quote(name)}")

    def measure_model(self, name: str, wish: Json, *, reprofile: bool = False) -> Json:
        return self._call("POST", f"/models/{quote(name)}/{'reprofile' if reprofile else 'aptitude'}", wish)

    def jobs(self, subject: str | None = None) -> Json:
        return self._call("GET", "/jobs?limit=500" + (f"&subject={quote(subject, safe='')}" if subject else ""))

    def job(self, job_id: str) -> Json:
        return self._call("GET", f"/jobs/{quote(job_id, safe='')}")

    def cancel_job(self, job_id: str) -> Json:
        return self._call("DELETE", f"/jobs/{quote(job_id, safe='')}")

    def resume_job(self, job_id: str, changes: Json) -> Json:
        return self._call("POST", f"/jobs/{quote(job_id, safe='')}/resume", changes)

    def run_job(self, job_id: str, show: Callable[[Json], None]) -> Json | None:
        """Nothing to do here: the gateway runs its jobs."""
        return None

    def keys(self) -> Json:
        return self._call("GET", "/keys")

    def create_key(self, fields: Json) -> Json:
        return self._call("POST", "/keys", fields)

    def revoke_key(self, key_id: str) -> Json:
        return self._call("DELETE", f"/keys/{quote(key_id, safe='')}")

    def _call(self, method: str, path: str, body: Json | None = None, *, timeout_s: float = TIMEOUT_S) -> Json:
        return call(method, self.place, f"/admin{path}", body, key_env="ORBWEAVER_ADMIN_KEY", timeout_s=timeout_s)


class LocalDesk:
    """Works on the registry itself; gateways that run on it see a change within a second."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.place = settings.database_url.rpartition("@")[2] if settings.database_url else settings.registry_url

    def models(self) -> Json:
        async def work(registry: Registry) -> Json:
            views = [self._view(registry, candidate) for candidate in registry.snapshot.candidates.values()]
            return {"version": registry.snapshot.version, "models": views}

        return self._with_registry(work)

    def model(self, name: str) -> Json:
        async def work(registry: Registry) -> Json:
            return self._view(registry, registry.candidate(name))

        return self._with_registry(work)

    def add_model(self, fields: Json) -> Json:
        from gateway.aptitude.jobs import queue, read_wish
        from gateway.registry.registration import register

        fields = dict(fields)
        profile, aptitude = fields.pop("profile", None), fields.pop("aptitude", None)
        wish = None if aptitude is None else read_wish(aptitude)

        async def work(registry: Registry) -> Json:
            added = await register(registry, self._settings, fields, profile=profile)
            view = self._view(registry, added.candidate, added.warnings)
            return view if wish is None else {**view, "job": (await queue(registry, added.candidate.name, wish)).id}

        return self._with_registry(work)

    def test_model(self, name: str) -> Json:
        from gateway.upstreams.base import Timeouts
        from gateway.upstreams.probe import ProbeUpstreams, probe

        async def work(registry: Registry) -> Json:
            candidate = registry.candidate(name)
            async with ProbeUpstreams() as upstream_for:
                probes = await probe(candidate, upstream_for, Timeouts(**self._settings.timeouts.model_dump()))
            return {"model": name, "ok": all(one.ok for one in probes), "probes": [asdict(one) for one in probes]}

        return self._with_registry(work)

    def switch_model(self, name: str, enabled: bool) -> Json:
        async def work(registry: Registry) -> Json:
            return self._view(registry, await registry.switch_candidate(name, enabled))

        return self._with_registry(work)

    def remove_model(self, name: str) -> Json:
        from gateway.registry.registration import remove

        async def work(registry: Registry) -> Json:
            return {"name": name, "note": await remove(registry, name)}

        return self._with_registry(work)

    def measure_model(self, name: str, wish: Json, *, reprofile: bool = False) -> Json:
        from gateway.aptitude.jobs import queue, read_wish

        wanted = read_wish({**wish, "reprofile": reprofile})
        return self._with_job(lambda registry: queue(registry, name, wanted))

    def jobs(self, subject: str | None = None) -> Json:
        from gateway.registry.views import job_view

        async def work(registry: Registry) -> Json:
            return {"jobs": [job_view(job) for job in await registry.newest_jobs(500, subject=subject)]}

        return self._with_registry(work)

    def job(self, job_id: str) -> Json:
        return self._with_job(lambda registry: registry.job(job_id))

    def cancel_job(self, job_id: str) -> Json:
        from gateway.aptitude.jobs import cancel

        return self._with_job(lambda registry: cancel(registry, job_id))

    def resume_job(self, job_id: str, changes: Json) -> Json:
        from gateway.aptitude.jobs import resume

        return self._with_job(lambda registry: resume(registry, job_id, changes))

    def run_job(self, job_id: str, show: Callable[[Json], None]) -> Json | None:
        """Run a job that no gateway has taken; None where one has. `show` gets the job's view every half second."""
        from gateway.aptitude.here import run_here
        from gateway.registry.views import job_view

        job = asyncio.run(run_here(self._settings, job_id, lambda job: show(job_view(job))))
        return None if job is None else job_view(job)

    def _with_job(self, work: Callable[[Registry], Awaitable[Job]]) -> Json:
        from gateway.registry.views import job_view

        async def viewed(registry: Registry) -> Json:
            return job_view(await work(registry))

        return self._with_registry(viewed)

    def keys(self) -> Json:
        from gateway.registry.views import key_view

        async def work(registry: Registry) -> Json:
            keys = sorted(registry.snapshot.keys.values(), key=lambda key: -key.created_at)
            return {"keys": [key_view(key) for key in keys]}

        return self._with_registry(work)

    def create_key(self, fields: Json) -> Json:
        from gateway.registry.keys import create_key, read_key
        from gateway.registry.views import key_view

        new = read_key(fields)

        async def work(registry: Registry) -> Json:
            made = await create_key(registry, new)
            return {**key_view(made.key), "key": made.secret, "warnings": list(made.warnings)}

        return self._with_registry(work)

    def revoke_key(self, key_id: str) -> Json:
        from gateway.registry.views import key_view

        async def work(registry: Registry) -> Json:
            return key_view(await registry.revoke_key(key_id))

        return self._with_registry(work)

    def _with_registry(self, work: Callable[[Registry], Awaitable[Json]]) -> Json:
        from gateway.registry.registry import opened

        async def run() -> Json:
            async with opened(self._settings) as registry:
                return await work(registry)

        return asyncio.run(run())

    def _view(self, registry: Registry, candidate: Any, warnings: tuple[str, ...] = ()) -> Json:
        from gateway.registry.views import model_view

        return model_view(candidate, registry.snapshot, warnings=warnings)


def without_none(fields: Mapping[str, Any]) -> Json:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}
