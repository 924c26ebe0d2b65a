"""One registry for all that is chosen by name here: generators and scorers. Packages outside join by entry point."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, Protocol, TypeVar


class Named(Protocol):
    """An entry of a registry."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """Entries by name.

    Args:
        kind: what an entry is called in messages.
        group: entry-point group; each entry point is a callable that returns one entry.
        load: imports the modules that register the entries of this package, run at the first look-up.
    """

    def __init__(self, kind: str, *, group: str, load: Callable[[], None] | None = None) -> None:
        self.kind = kind
        self.group = group
        self._load = load
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> Entry:
        """Register `entry`.

        Raises:
            ValueError: the name is taken.
        """
        if entry.name in self._entries:
            raise ValueError(f"the {self.kind} {entry.name!r} is registered twice")
        self._entries[entry.name] = entry
        return entry

    def get(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            LookupError: there is none; near matches are named.
        """
        self._load_own()
        if name not in self._entries:
            for point in entry_points(group=self.group, name=name):
                return self.add(point.load()())
            near = difflib.get_close_matches(name, self._entries, n=3, cutoff=0.4)
            raise LookupError(
                f"unknown {self.kind} {name!r}; "
                + (f"did you mean {' or '.join(repr(match) for match in near)}?" if near else f"known are {self}")
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry]:
        self._load_own()
        return iter([self._entries[name] for name in sorted(self._entries)])

    def __str__(self) -> str:
        return ", ".join(entry.name for entry in self)

    def _load_own(self) -> None:
        load, self._load = self._load, None
        if load is not None:
            load()
