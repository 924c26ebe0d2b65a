"""Merges kept ready: by bytes, never evicted while in use, each built once however many ask, failures remembered."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from merge_backends.errors import MemoryBudgetError, MergeError
from merge_backends.memory import spoken

Value = TypeVar("Value")


class Tier(Protocol[Value]):
    """A slower place for what is evicted from memory."""

    def load(self, key: str) -> Value | None:
        """The value, or None where there is none that can be read."""

    def save(self, key: str, value: Value) -> None:
        """Keeps a value; may drop others, or decline."""


@dataclass(slots=True)
class CacheFigures:
    """Counted since the start; bytes are those held now."""

    hits: int = 0
    misses: int = 0
    loads: int = 0
    builds: int = 0
    failures: int = 0
    evictions: int = 0
    build_s: float = 0.0
    nbytes: int = 0


@dataclass(slots=True)
class _Slot(Generic[Value]):
    value: Value
    nbytes: int
    pins: int = 0


@dataclass(slots=True)
class _Flight:
    done: threading.Event = field(default_factory=threading.Event)


class MergeCache(Generic[Value]):
    """Least recently used values, up to a budget of bytes. Safe for threads.

    Args:
        budget: bytes in memory.
        size_of: bytes of a value that are its own.
        disk: where values go too, and are looked for before they are built.
        remember_failure_s: how long a recipe that failed is answered with its error, without another try.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        budget: int,
        size_of: Callable[[Value], int],
        *,
        disk: Tier[Value] | None = None,
        remember_failure_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self.figures = CacheFigures()
        self._size_of = size_of
        self._disk = disk
        self._remember_failure_s = remember_failure_s
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot[Value]] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._failed: dict[str, tuple[float, MergeError]] = {}

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._slots

    @contextmanager
    def use(self, key: str, make: Callable[[], Value], *, expected: int = 0) -> Iterator[Value]:
        """The value, pinned for the length of the block; built by `make` where it is not there yet.

        Args:
            expected: bytes that it will take; refused before it is built where they do not fit.

        Raises:
            MergeError: what `make` raised, now or a short while ago.
            MemoryBudgetError: it does not fit beside what is in use.
        """
        slot = self._pin(key) or self._obtain(key, make, expected)
        try:
            yield slot.value
        finally:
            with self._lock:
                slot.pins -= 1
                self._evict(0)

    def _pin(self, key: str) -> _Slot[Value] | None:
        with self._lock:
            slot = self._slots.get(key)
            if slot is not None:
                slot.pins += 1
                self._slots.move_to_end(key)
                self.figures.hits += 1
            return slot

    def _obtain(self, key: str, make: Callable[[], Value], expected: int) -> _Slot[Value]:
        """One caller builds, the others wait for it and then look again."""
        while True:
            with self._lock:
                self._raise_if_failed(key)
                flight = self._flights.get(key)
                mine = flight is None and key not in self._slots
                if mine:
                    self._admit(key, expected)
                    flight = self._flights[key] = _Flight()
                    self.figures.misses += 1
            if mine:
                return self._build(key, make)
            if flight is not None:
                flight.done.wait()
            slot = self._pin(key)
            if slot is not None:
                return slot

    def _build(self, key: str, make: Callable[[], Value]) -> _Slot[Value]:
        began = self._clock()
        try:
            value = self._disk.load(key) if self._disk is not None else None
            loaded = value is not None
            value = make() if value is None else value
            slot = _Slot(value, self._size_of(value), pins=1)
            with self._lock:
                self._admit(key, slot.nbytes)
                self._slots[key] = slot
                self.figures.nbytes += slot.nbytes
                self.figures.loads += loaded
                self.figures.builds += not loaded
                self.figures.build_s += self._clock() - began
        except MergeError as error:
            with self._lock:
                self.figures.failures += 1
                if not isinstance(error, MemoryBudgetError):
                    self._failed[key] = (self._clock() + self._remember_failure_s, error)
            raise
        finally:
            with self._lock:
                self._flights.pop(key).done.set()
        if self._disk is not None and not loaded:
            self._disk.save(key, value)
        return slot

    def _admit(self, key: str, needed: int) -> None:
        """Makes room; the lock is held."""
        if not self._evict(needed):
            in_use = sum(slot.nbytes for slot in self._slots.values() if slot.pins)
            raise MemoryBudgetError(
                f"The merge {key!r} takes {spoken(needed)}; the cache holds {spoken(self.budget)}"
                f" and {spoken(in_use)} of it are in use.",
                "Ask again later, or raise the cache's budget.",
            )

    def _evict(self, needed: int) -> bool:
        """Drops the least recently used values that nobody uses until `needed` bytes fit; whether they do."""
        free = self.budget - self.figures.nbytes
        for key in [key for key, slot in self._slots.items() if not slot.pins]:
            if free >= needed:
                break
            free += self._drop(key)
        return free >= needed

    def _drop(self, key: str) -> int:
        size = self._slots.pop(key).nbytes
        self.figures.nbytes -= size
        self.figures.evictions += 1
        return size

    def _raise_if_failed(self, key: str) -> None:
        now = self._clock()
        self._failed = {name: found for name, found in self._failed.items() if found[0] > now}
        if key in self._failed:
            raise self._failed[key][1]
