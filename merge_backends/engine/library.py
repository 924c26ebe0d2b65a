"""The models that an engine serves: loaded when first asked for, once each, idle ones unloaded to keep the budget."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from merge_backends.engine.causal import CausalModel
from merge_backends.engine.encoders import Encoder, load_encoder
from merge_backends.engine.errors import EngineError, unknown_model
from merge_backends.engine.loading import TensorPool, is_encoder, is_mixture, load_causal
from merge_backends.engine.settings import EngineSettings
from merge_backends.errors import MemoryBudgetError, UnknownNameError

logger = logging.getLogger(__name__)
Kind = Literal["model", "mixture", "encoder", "merge"]
Loaded = CausalModel | Encoder


@dataclass(slots=True, eq=False)
class Shelf:
    """One name: how it is loaded, what is loaded, who uses it, and when it was last used."""

    name: str
    kind: Kind
    load: Callable[[], Loaded]
    loading: threading.Lock = field(default_factory=threading.Lock)
    loaded: Loaded | None = None
    users: int = 0
    used: float = 0.0


class Library:
    """Loaded models by name, within a budget of bytes. Thread-safe.

    Args:
        settings: declared models; a model that is given to `add` comes beside them.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._budget = int(settings.memory_gb * 2**30)
        self._pool = TensorPool()
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()
        for name in settings.models:
            self._declare(name)

    @property
    def names(self) -> list[str]:
        """All names that can be asked for, in the order of their declaration."""
        return list(self._shelves)

    def kind(self, name: str) -> Kind:
        """What the name stands for."""
        return self._shelves[name].kind

    def loaded(self, name: str) -> Loaded | None:
        """The model where it is in memory now."""
        return self._shelves[name].loaded

    @property
    def nbytes(self) -> int:
        """Bytes of the loaded weights; shared ones count for each model."""
        return sum(shelf.loaded.nbytes for shelf in list(self._shelves.values()) if shelf.loaded is not None)

    def add(self, name: str, kind: Kind, load: Callable[[], Loaded]) -> None:
        """Serve something that is not declared by a folder."""
        self._shelves[name] = Shelf(name, kind, load)

    def find(self, name: str) -> Shelf:
        """The shelf of a name.

        Raises:
            EngineError: 404, naming what is near.
        """
        shelf = self._shelves.get(name)
        if shelf is None:
            raise unknown_model(name, str(UnknownNameError("model", name, self._shelves)))
        return shelf

    @contextmanager
    def hold(self, name: str) -> Iterator[Shelf]:
        """Keep a model from being unloaded; `take` loads it. Nothing here waits."""
        shelf = self.find(name)
        with self._lock:
            shelf.users += 1
        try:
            yield shelf
        finally:
            with self._lock:
                shelf.users -= 1
                shelf.used = time.monotonic()

    def take(self, shelf: Shelf) -> Loaded:
        """The model of a held shelf; loads it where need be, which may take seconds. One thread loads, others wait.

        Raises:
            MergeError: it cannot be loaded.
            MemoryBudgetError: it does not fit beside those in use.
        """
        with shelf.loading:
            if shelf.loaded is None:
                began = time.monotonic()
                loaded = shelf.load()
                self._make_room(shelf, loaded.nbytes)
                shelf.loaded = loaded
                logger.info("%s loaded in %.2f s, %.1f MB", shelf.name, time.monotonic() - began, loaded.nbytes / 1e6)
            return shelf.loaded

    def _make_room(self, wanted: Shelf, nbytes: int) -> None:
        with self._lock:
            idle = sorted(
                (shelf for shelf in self._shelves.values() if shelf.loaded and not shelf.users and shelf is not wanted),
                key=lambda shelf: shelf.used,
            )
            while self.nbytes + nbytes > self._budget and idle:
                oldest = idle.pop(0)
                oldest.loaded = None
                logger.info("%s unloaded", oldest.name)
            if self.nbytes + nbytes > self._budget:
                raise MemoryBudgetError(
                    f"{wanted.name} needs {nbytes / 1e6:.0f} MB; {(self._budget - self.nbytes) / 1e6:.0f} MB are free.",
                    "Raise memory_gb or serve fewer models.",
                )

    def _declare(self, name: str) -> None:
        settings, model = self._settings, self._settings.models[name]
        if is_encoder(model.path):
            self.add(
                name,
                "encoder",
                lambda: load_encoder(name, model.path, allowed=settings.allowed, context_window=model.context_window),
            )
        else:
            self.add(
                name,
                "mixture" if is_mixture(model.path) else "model",
                lambda: load_causal(
                    name,
                    model.path,
                    allowed=settings.allowed,
                    base=model.base,
                    context_window=model.context_window,
                    device=settings.device,
                    dtype=settings.dtype,
                    pool=self._pool,
                ),
            )


def as_causal(name: str, loaded: Loaded) -> CausalModel:
    """A language model, or 400 for an encoder."""
    if not isinstance(loaded, CausalModel):
        raise EngineError(f"{name!r} is an encoder; ask /v1/embeddings.", code="unsupported_model", param="model")
    return loaded


def as_encoder(name: str, loaded: Loaded) -> Encoder:
    """An encoder, or 400 for a language model."""
    if not isinstance(loaded, Encoder):
        raise EngineError(
            f"{name!r} is a language model and has no embeddings.", code="unsupported_model", param="model"
        )
    return loaded
