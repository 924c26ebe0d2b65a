"""SQL of the ledger: decisions, usage and feedback. Synchronous; `ledger.py` calls it from its own threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gateway.registry.database import Database

Period = Literal["day", "month", "total"]
DAY_PATTERN = r"^\d{4}-\d{2}-\d{2}$"
UsageKey = tuple[str, str, str]  # key id ('' without one), model, UTC day
COUNTS = ("requests", "errors", "prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "baseline_cost_usd")


@dataclass(slots=True)
class Batch:
    """What one transaction stores. `number` grows by one for each batch of a writer; `mark` counts records up to it."""

    number: int
    mark: int
    decisions: Sequence[Mapping[str, Any]] = ()
    usage: Mapping[UsageKey, Sequence[float]] = field(default_factory=dict)


class LedgerStore:
    """The ledger's tables as verbs. Every method raises RegistryError where the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, batch: Batch, writer: str, now: float) -> None:
        """Store a batch; one that is there already (its confirmation was lost) is left as it is."""
        from sqlalchemy import select

        from gateway.registry.tables import ledger_writers

        with self._database.write() as connection:
            mine = select(ledger_writers.c.batch).where(ledger_writers.c.writer == writer)
            if (connection.execute(mine).scalar() or 0) >= batch.number:
                return
            inserts = _inserts(connection)
            connection.execute(inserts.writer, {"writer": writer, "batch": batch.number, "at": now})
            _insert(connection, "decisions", batch.decisions)
            # In one order everywhere, so that two gateways cannot wait for each other's rows.
            usage = [
                {"key_id": key_id, "model": model, "day": day, **dict(zip(COUNTS, counts, strict=True))}
                for (key_id, model, day), counts in sorted(batch.usage.items())
            ]
            _insert(connection, "usage", usage)

    def trim(self, keep: int, now: float) -> None:
        """Forget all but the newest `keep` decisions, and writers that have been silent for a week."""
        from sqlalchemy import delete, select

        from gateway.registry.tables import decisions, ledger_writers

        with self._database.write() as connection:
            oldest = connection.execute(
                select(decisions.c.at).order_by(decisions.c.at.desc()).offset(keep).limit(1)
            ).scalar()
            if oldest is not None:
                connection.execute(delete(decisions).where(decisions.c.at <= oldest))
            connection.execute(delete(ledger_writers).where(ledger_writers.c.at < now - 7 * 86400))

    def recent(
        self, limit: int, since: float | None, before: float | None, filters: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Decisions, newest first. `filters` by column: model, key_id, rule, outcome, requested."""
        from sqlalchemy import select

        from gateway.registry.tables import decisions

        query = select(decisions.c.body).order_by(decisions.c.at.desc(), decisions.c.id).limit(limit)
        if since is not None:
            query = query.where(decisions.c.at > since)
        if before is not None:
            query = query.where(decisions.c.at < before)
        for name, value in filters.items():
            query = query.where(decisions.c[name] == value)
        with self._database.read() as connection:
            return [orjson.loads(body) for body in connection.execute(query).scalars()]

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """One decision with its feedback (None until there is some); None if the decision is not there."""
        from sqlalchemy import select

        from gateway.registry.tables import decisions, feedback

        with self._database.read() as connection:
            body = connection.execute(select(decisions.c.body).where(decisions.c.id == decision_id)).scalar()
            if body is None:
                return None
            given = connection.execute(
                select(feedback.c.score, feedback.c.at).where(feedback.c.decision_id == decision_id)
            ).first()
        found: dict[str, Any] = orjson.loads(body)
        found["feedback"] = None if given is None else {"score": given.score, "at": given.at}
        return found

    def add_feedback(self, decision_id: str, score: float, now: float) -> None:
        """Keep the score of a decision; a second one replaces the first."""
        with self._database.write() as connection:
            row = {"decision_id": decision_id, "score": score, "at": now}
            connection.execute(_inserts(connection).feedback, row)

    def spent(self, key_id: str, since_day: str) -> float:
        """USD that a key spent on and after a UTC day."""
        from sqlalchemy import func, select

        from gateway.registry.tables import usage

        query = select(func.sum(usage.c.cost_usd)).where(usage.c.key_id == key_id, usage.c.day >= since_day)
        with self._database.read() as connection:
            return float(connection.execute(query).scalar() or 0.0)

    def usage(
        self, period: Period, *, since_day: str, key_id: str | None, model: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Sums by key, model and period (`period` is the day, the month or "total"), newest period first."""
        from sqlalchemy import func, literal, select

        from gateway.registry.tables import usage

        when = {"day": usage.c.day, "month": func.substr(usage.c.day, 1, 7), "total": literal("total")}[period]
        query = select(
            usage.c.key_id,
            usage.c.model,
            when.label("period"),
            *(func.sum(usage.c[name]).label(name) for name in COUNTS),
        ).where(usage.c.day >= since_day)
        if key_id is not None:
            query = query.where(usage.c.key_id == key_id)
        if model is not None:
            query = query.where(usage.c.model == model)
        groups = [usage.c.key_id, usage.c.model] + ([] if period == "total" else [when])
        query = query.group_by(*groups).order_by(
            *([] if period == "total" else [when.desc()]), usage.c.key_id, usage.c.model
        )
        with self._database.read() as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
        money = {"cost_usd", "baseline_cost_usd"}
        return [
            {name: float(v) if name in money else int(v) if name in COUNTS else v for name, v in row.items()}
            for row in rows
        ]


@dataclass(frozen=True, slots=True)
class Inserts:
    """INSERTs in the words of one database: a second batch number or score replaces the first."""

    writer: Any
    feedback: Any


def _inserts(connection: Connection) -> Inserts:
    return _inserts_of(connection.dialect.name)


@lru_cache(maxsize=2)
def _inserts_of(dialect: str) -> Inserts:
    """Built once: each is hundreds of objects in cycles, which a batch every few milliseconds left to the collector."""
    from sqlalchemy.dialects import postgresql, sqlite

    from gateway.registry.tables import feedback, ledger_writers

    insert = (sqlite if dialect == "sqlite" else postgresql).insert
    writer, score = insert(ledger_writers), insert(feedback)
    return Inserts(
        writer=writer.on_conflict_do_update(
            index_elements=["writer"], set_={"batch": writer.excluded.batch, "at": writer.excluded.at}
        ),
        feedback=score.on_conflict_do_update(
            index_elements=["decision_id"], set_={"score": score.excluded.score, "at": score.excluded.at}
        ),
    )


def _insert(connection: Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Many rows with few statements: 256 in one, then 16, then 1.

    Python's drivers give up the interpreter at every statement, and beside a busy event loop it takes a millisecond to
    get it back: row by row, decisions were stored at half the rate at which they were taken.
    """
    start = 0
    for size in (256, 16, 1):
        while len(rows) - start >= size:
            words, names = _insert_of(connection.dialect.name, table, size)
            taken = rows[start : start + size]
            connection.exec_driver_sql(words, tuple(row[name] for row in taken for name in names))
            start += size


@lru_cache(maxsize=12)
def _insert_of(dialect: str, table: str, rows: int) -> tuple[str, tuple[str, ...]]:
    """The driver's own words for one statement, kept because compiling it costs more than storing the rows."""
    from gateway.registry.tables import metadata

    names = tuple(metadata.tables[table].columns.keys())
    row = f"({', '.join(['?' if dialect == 'sqlite' else '%s'] * len(names))})"
    added = ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in COUNTS)
    conflict = {"decisions": "DO NOTHING", "usage": f"(key_id, model, day) DO UPDATE SET {added}"}[table]
    values = ", ".join([row] * rows)
    # Of names alone, all from our own tables; every value is a parameter.
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES {values} ON CONFLICT {conflict}", names  # noqa: S608
