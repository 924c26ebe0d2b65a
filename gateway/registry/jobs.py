"""Long-running work that survives a restart (aptitude tests, merges): one row for each job. Synchronous."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import orjson

from gateway.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Row

    from gateway.registry.database import Database

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL: frozenset[JobState] = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. `subject` is what it is about (a candidate's name); `progress` is the owner's own JSON.

    Times in seconds since 1970; `finished_at` is None until the state is done, failed or cancelled.
    """

    id: str
    kind: str
    subject: str
    state: JobState = "queued"
    progress: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    finished_at: float | None = None


class JobStore:
    """The jobs table as verbs. Every method raises RegistryError where the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, kind: str, subject: str, now: float, progress: dict[str, Any] | None = None) -> Job:
        """A new job in state `queued`; `progress` is what its owner needs to know."""
        from sqlalchemy import insert

        from gateway.registry.tables import jobs

        name = f"job-{secrets.token_hex(8)}"
        job = Job(name, kind, subject, progress=progress or {}, created_at=now, updated_at=now)
        with self._database.write() as connection:
            connection.execute(insert(jobs).values(_values(job)))
        return job

    def update(self, job: Job) -> None:
        """Store state, progress, error and times of a job. Raises NotFound."""
        from sqlalchemy import update

        from gateway.registry.tables import jobs

        with self._database.write() as connection:
            if connection.execute(update(jobs).where(jobs.c.id == job.id).values(_values(job))).rowcount == 0:
                raise NotFound(f"There is no job {job.id!r}.", param="id")

    def replace(self, before: Job, after: Job) -> bool:
        """Store `after` where the job still stands as in `before`; false where somebody else has changed it.

        `updated_at` is the mark: every change must move it.
        """
        from sqlalchemy import update

        from gateway.registry.tables import jobs

        unchanged = (jobs.c.id == before.id) & (jobs.c.updated_at == before.updated_at) & (jobs.c.state == before.state)
        with self._database.write() as connection:
            return bool(connection.execute(update(jobs).where(unchanged).values(_values(after))).rowcount)

    def claim(self, kind: str, now: float, lease_s: float, *, job_id: str | None = None) -> Job | None:
        """Take the oldest job of a kind that waits, or whose owner has been silent for `lease_s`; None where none is.

        Several processes may ask at once: each job goes to one of them.
        """
        from sqlalchemy import select

        from gateway.registry.tables import jobs

        waiting = (jobs.c.state == "queued") | ((jobs.c.state == "running") & (jobs.c.updated_at < now - lease_s))
        query = select(jobs).where(jobs.c.kind == kind, waiting).order_by(jobs.c.created_at, jobs.c.id).limit(5)
        if job_id is not None:
            query = query.where(jobs.c.id == job_id)
        with self._database.read() as connection:
            found = [_job(row) for row in connection.execute(query)]
        for job in found:
            mine = replace(job, state="running", error=None, updated_at=max(now, job.updated_at + 1e-3))
            if self.replace(job, mine):
                return mine
        return None

    def get(self, job_id: str) -> Job:
        """One job. Raises NotFound."""
        from sqlalchemy import select

        from gateway.registry.tables import jobs

        with self._database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
        if row is None:
            raise NotFound(f"There is no job {job_id!r}.", param="id")
        return _job(row)

    def newest(self, limit: int, *, subject: str | None = None) -> list[Job]:
        """The newest jobs, of one subject where given."""
        from sqlalchemy import select

        from gateway.registry.tables import jobs

        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id).limit(limit)
        if subject is not None:
            query = query.where(jobs.c.subject == subject)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query)]


def _values(job: Job) -> dict[str, Any]:
    values = {name: getattr(job, name) for name in Job.__dataclass_fields__}
    values["progress"] = orjson.dumps(job.progress).decode()
    return values


def _job(row: Row[Any]) -> Job:
    values = {name: getattr(row, name) for name in Job.__dataclass_fields__}
    values["progress"] = orjson.loads(row.progress)
    return Job(**values)
