"""The models that an engine serves: loaded when first asked for, once each, idle ones unloaded to keep the budget."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from merge_backends.checkpoint import inside
from merge_backends.engine.causal import CausalModel
from merge_backends.engine.encoders import Encoder, load_encoder
from merge_backends.engine.errors import EngineError, invalid, unknown_model
from merge_backends.engine.families import ExpertFamily, Family, pareto_families
from merge_backends.engine.loading import TensorPool, is_encoder, is_mixture, load_causal
from merge_backends.engine.merges import Merges
from merge_backends.engine.settings import EngineSettings, MergeFamily
from merge_backends.errors import MemoryBudgetError, RecipeError, UnknownNameError

logger = logging.getLogger(__name__)
Kind = Literal["model", "mixture", "encoder", "recipe"]
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

    Raises:
        CheckpointError: a declared folder does not exist or lies outside the allowed ones.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._budget = int(settings.memory_gb * 2**30)
        self._pool = TensorPool()
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()
        for name in settings.models:
            self._declare(name)
        self.merges = Merges(self._families(), budget=int(settings.merges_gb * 2**30))
        for name, recipe in settings.recipes.items():
            self.add(name, "recipe", partial(self._build, name, recipe))

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
    def hold(self, name: str, preference: Mapping[str, float] | None = None) -> Iterator[Held]:
        """A model that is not unloaded before the end of the block. Nothing here waits; `Held.take` may.

        Raises:
            EngineError: there is no such model.
            RecipeError: weights of a merge that are not offered.
        """
        merge = self.merges.resolve(name, preference)
        if merge is None and preference is not None:
            raise invalid("orbweaver.preference", f"{name!r} is one model and reads no preference.")
        if merge is not None:
            held = Held(self, merge, None)
        else:
            shelf = self.find(name)
            with self._lock:
                shelf.users += 1
            held = Held(self, name, shelf)
        try:
            yield held
        finally:
            held.close()

    def leave(self, shelf: Shelf) -> None:
        """One user less."""
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
        allowed, model = self._settings.allowed, self._settings.models[name]
        inside(model.path, allowed)
        if is_encoder(model.path):
            self.add(
                name,
                "encoder",
                lambda: load_encoder(name, model.path, allowed=allowed, context_window=model.context_window),
            )
        else:
            self.add(
                name,
                "mixture" if is_mixture(model.path) else "model",
                lambda: self._load(name, model.path, base=model.base, context_window=model.context_window),
            )

    def _families(self) -> dict[str, Family]:
        """The declared ones, and one for each declared model that is a Pareto mixture."""
        declared: dict[str, Family] = {
            name: ExpertFamily(name, each, partial(self._load_base, name, each), self._settings.allowed)
            for name, each in self._settings.merges.items()
        }
        mixtures = {name: self._settings.models[name].path for name in self.names if self.kind(name) == "mixture"}
        found = pareto_families(mixtures, lambda name: as_causal(name, self.take(self.find(name))))
        both = sorted(declared.keys() & found.keys())
        if both:
            raise RecipeError(f"{both[0]!r} is a Pareto mixture and a merge family.", "Rename one of the two.")
        return declared | found

    def _load_base(self, name: str, family: MergeFamily) -> CausalModel:
        return self._load(f"{name}/base", family.base, context_window=family.context_window)

    def _load(
        self, name: str, path: Path, *, base: Path | None = None, context_window: int | None = None
    ) -> CausalModel:
        settings = self._settings
        return load_causal(
            name,
            path,
            allowed=settings.allowed,
            base=base,
            context_window=context_window,
            device=settings.device,
            dtype=settings.dtype,
            pool=self._pool,
        )

    def _build(self, name: str, recipe: Path) -> CausalModel:
        """The model of a recipe; what was built from the same recipe and models before is used again."""
        from merge_backends.build import Options, build_all, content_key
        from merge_backends.recipe import load_recipes

        documents = load_recipes(recipe)
        allowed, folder = self._settings.allowed, self._settings.built
        target = folder / content_key(documents, root=recipe.parent, allowed=allowed)
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            build_all(documents, target, root=recipe.parent, options=Options(allowed=allowed))
        settings = self._settings
        return load_causal(name, target, device=settings.device, dtype=settings.dtype, pool=self._pool)


class Held:
    """A model that somebody uses: a shelf's, or a merge that is pinned once it was taken."""

    def __init__(self, library: Library, name: str, shelf: Shelf | None) -> None:
        self.name = name
        self._library = library
        self._shelf = shelf
        self._pins = ExitStack()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def ready(self) -> Loaded | None:
        """The model where nothing has to be loaded or built."""
        return None if self._shelf is None else self._shelf.loaded

    def take(self) -> Loaded:
        """The model; may take seconds, so not on an event loop.

        Raises:
            MergeError: it cannot be loaded or built.
        """
        if self._shelf is not None:
            return self._library.take(self._shelf)
        pin = self._library.merges.use(self.name)
        merged = pin.__enter__()
        with self._lock:
            if self._closed:  # whoever asked has left meanwhile
                pin.__exit__(None, None, None)
            else:
                self._pins.push(pin)
        return merged.model

    def close(self) -> None:
        """Not used any more."""
        with self._lock:
            self._closed = True
        self._pins.close()
        if self._shelf is not None:
            self._library.leave(self._shelf)


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
