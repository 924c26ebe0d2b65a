"""The registry of generators. A generator draws from the stream it is given and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from aptitude_tests.errors import AptitudeError
from aptitude_tests.item import Difficulty, Draft, Language
from aptitude_tests.registry import Registry

MakeDraft: TypeAlias = Callable[[random.Random, Difficulty, Language, Mapping[str, Any]], Draft]

_MODULES = (
    "arithmetic",
    "bulletin",
    "calendar_dates",
    "code_tasks",
    "constraint_writing",
    "format_keeping",
    "linear_systems",
    "logic",
    "needle",
    "ordering",
    "pictures",
    "probability",
    "records",
    "tables",
    "tool_use",
    "tracking",
    "units",
    "word_problems",
)


@dataclass(frozen=True, slots=True)
class Generator:
    """One way to make items.

    Attributes:
        scorer: the scorer whose gold answers it makes.
        make: stream, difficulty, language and the task's parameters -> the content of one item.
    """

    name: str
    summary: str
    scorer: str
    make: MakeDraft


def _load() -> None:
    for name in _MODULES:
        import_module(f"aptitude_tests.generators.{name}")


#: Entry points of the group are callables that return a `Generator`.
GENERATORS: Registry[Generator] = Registry("generator", group="orbweaver.aptitude.generators", load=_load)


def generator(name: str, *, summary: str, scorer: str) -> Callable[[MakeDraft], MakeDraft]:
    """Register a function as a generator."""

    def register(make: MakeDraft) -> MakeDraft:
        GENERATORS.add(Generator(name, summary, scorer, make))
        return make

    return register


@cache
def all_texts(name: str) -> Mapping[str, Any]:
    """Contents of `tasks/texts/NAME.yaml`: wording by language, and what is common to all."""
    import yaml

    path = Path(__file__).parent.parent / "tasks" / "texts" / f"{name}.yaml"
    loaded: Mapping[str, Any] = yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader)
    return loaded


def texts(name: str, language: Language) -> Mapping[str, Any]:
    """The wording of one generator in one language.

    Raises:
        AptitudeError: the generator does not speak the language.
    """
    found = all_texts(name)
    if language not in found:
        raise AptitudeError(
            f"the texts {name!r} have no language {language!r}",
            hint=f"They have {', '.join(key for key in found if len(key) == 2)}.",
        )
    wording: Mapping[str, Any] = found[language]
    return wording
