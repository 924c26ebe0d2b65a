"""Answers kept for good, one row per (model, take, item hash, template version), so that no call is made twice.

A take is one measurement of a model: measuring anew opens a fresh one. `SqliteAnswers` writes in a thread of its own;
an answer is on disk before it counts, so a killed process loses only calls that were still under way.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aptitude_tests.errors import AptitudeError
from aptitude_tests.item import ToolCall, Verdict
from aptitude_tests.source import Completion

Result = TypeVar("Result")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    model TEXT NOT NULL, take TEXT NOT NULL, item TEXT NOT NULL, template INTEGER NOT NULL,
    completion TEXT NOT NULL, verdict TEXT NOT NULL, cost_usd REAL,
    PRIMARY KEY (model, take, item, template)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Which answers belong together: the model's identity, the take, the version of the template."""

    model: str
    take: str
    template: int


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """One answer with its verdict and what it cost."""

    completion: Completion
    verdict: Verdict
    cost_usd: float | None = None


class AnswerStore(Protocol):
    """Where answers are kept."""

    async def load(self, measurement: Measurement) -> Mapping[str, StoredAnswer]:
        """All answers of a measurement by item hash."""
        ...

    async def put(self, measurement: Measurement, item_hash: str, answer: StoredAnswer) -> None:
        """Keep an answer; it is safe when this returns."""
        ...


class MemoryAnswers:
    """Keeps answers as long as the process lives."""

    def __init__(self) -> None:
        self._answers: dict[Measurement, dict[str, StoredAnswer]] = {}

    async def load(self, measurement: Measurement) -> Mapping[str, StoredAnswer]:
        return dict(self._answers.get(measurement, {}))

    async def put(self, measurement: Measurement, item_hash: str, answer: StoredAnswer) -> None:
        self._answers.setdefault(measurement, {})[item_hash] = answer


class SqliteAnswers:
    """Keeps answers in one SQLite file, which several processes may share. Close it at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")

    async def load(self, measurement: Measurement) -> Mapping[str, StoredAnswer]:
        """Raises AptitudeError where the file cannot be used."""
        return await self._run(lambda connection: _load(connection, measurement))

    async def put(self, measurement: Measurement, item_hash: str, answer: StoredAnswer) -> None:
        """Raises AptitudeError where the file cannot be written."""
        await self._run(lambda connection: _put(connection, measurement, item_hash, answer))

    async def close(self) -> None:
        """Close the file and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            return work(self._connection or self._open())
        except (sqlite3.Error, OSError) as error:
            raise AptitudeError(
                f"the store of answers {str(self._path)!r} cannot be used: {error}.",
                hint="Check the folder, its owner and the free space; move a broken file away to start anew.",
            ) from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self._path, timeout=10.0, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        # The write-ahead log survives the end of the process; only a power cut could take the last answers.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_SCHEMA)
        self._connection = connection
        return connection


def _load(connection: sqlite3.Connection, measurement: Measurement) -> dict[str, StoredAnswer]:
    rows = connection.execute(
        "SELECT item, completion, verdict, cost_usd FROM answers WHERE model = ? AND take = ? AND template = ?",
        (measurement.model, measurement.take, measurement.template),
    )
    return {item: StoredAnswer(_completion(one), Verdict(**json.loads(two)), cost) for item, one, two, cost in rows}


def _put(connection: sqlite3.Connection, measurement: Measurement, item_hash: str, answer: StoredAnswer) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            measurement.model,
            measurement.take,
            item_hash,
            measurement.template,
            json.dumps(asdict(answer.completion), ensure_ascii=False),
            json.dumps(asdict(answer.verdict), ensure_ascii=False),
            answer.cost_usd,
        ),
    )


def _completion(text: str) -> Completion:
    record: dict[str, Any] = json.loads(text)
    record["tool_calls"] = tuple(ToolCall(**call) for call in record["tool_calls"])
    return Completion(**record)
