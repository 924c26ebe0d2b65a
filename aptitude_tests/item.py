"""Frozen values of the aptitude tests: what is asked (`Item`, `Task`, `Suite`), what came back (`Reply`), how it did
(`Verdict`). No I/O; every other module of the package speaks in these.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

Language: TypeAlias = Literal["en", "zh", "es", "de", "fr", "ar"]
Modality: TypeAlias = Literal["text", "image"]
Difficulty: TypeAlias = Literal["easy", "medium", "hard"]
#: Why a verdict came out as it did. `no_answer`, `refused` and `empty` go with `score=None`.
Reason: TypeAlias = Literal["right", "wrong", "wrong_format", "no_answer", "refused", "empty"]

LANGUAGES: tuple[Language, ...] = ("en", "zh", "es", "de", "fr", "ar")
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
LETTERS = "ABCDEFGHIJ"
SHOTS = 20


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as sent to the model.

    `digest` is over the drawn pixels, not the file, so that another zlib does not make it another item.
    """

    data_url: str
    digest: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What a generator makes: the content of one item, before it has a place in a task."""

    question: str
    gold: Any
    options: tuple[str, ...] = ()
    images: tuple[Picture, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Item:
    """One question with its gold answer.

    Attributes:
        id: unique over all suites and seeds; the item of `capability_encoder.profile.Answer`.
        task: name of the task; `shot` counts from 0 within it.
        question: what is asked, without options and without the format instruction.
        scorer: name in the registry of scorers; it alone knows the shape of `gold` (any JSON value).
        options: texts of a choice question; its `gold` is a letter.
        tools: function definitions in the OpenAI shape.
        instruction: the one-line format instruction, where the scorer's own does not fit; empty for none.
    """

    id: str
    task: str
    shot: int
    question: str
    gold: Any
    scorer: str
    language: Language = "en"
    difficulty: Difficulty = "medium"
    options: tuple[str, ...] = ()
    images: tuple[Picture, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    instruction: str | None = None

    @cached_property
    def hash(self) -> str:
        """32 hex digits over all that the model sees and all that grades it; the id, task and shot are not in it."""
        content = {
            "question": self.question,
            "gold": self.gold,
            "scorer": self.scorer,
            "language": self.language,
            "options": self.options,
            "images": [picture.digest for picture in self.images],
            "tools": self.tools,
            "instruction": self.instruction,
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Task:
    """One ability that is measured, as declared in its file.

    Attributes:
        summary: one sentence that says what is asked.
        keywords: five, the words of Model-SAT's capability instruction.
        generator: name in the registry of generators with its `params`; None for written-out items.
        instruction: the format instruction of its items, where the scorer's own does not fit.
    """

    name: str
    version: int
    summary: str
    keywords: tuple[str, str, str, str, str]
    language: Language
    domain: str
    modality: Modality
    scorer: str
    generator: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    instruction: str | None = None


@dataclass(frozen=True)
class Suite:
    """Tasks and their items, ready to be asked.

    Attributes:
        seed: the parallel form; the same seed gives the same items.
        statistics: item id -> what is known of it from other models (`p_seen`, `item_total_r`); empty for new items.
        warnings: what the user should know, one sentence each.
    """

    name: str
    version: int
    summary: str
    seed: int
    tasks: tuple[Task, ...]
    items: tuple[Item, ...]
    statistics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @cached_property
    def task_of(self) -> dict[str, str]:
        """Item id -> task name, as `capability_instruction` takes it."""
        return {item.id: item.task for item in self.items}

    @cached_property
    def hash(self) -> str:
        """32 hex digits over the content of all items in order."""
        return hashlib.sha256("".join(item.hash for item in self.items).encode()).hexdigest()[:32]

    def items_of(self, task: str) -> tuple[Item, ...]:
        """The items of one task, by shot."""
        return tuple(item for item in self.items if item.task == task)

    def count_by(self, attribute: Literal["language", "domain", "modality", "scorer"]) -> dict[str, int]:
        """How many tasks there are for each language, domain, modality or scorer, most first."""
        return dict(Counter(str(getattr(task, attribute)) for task in self.tasks).most_common())


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call of the reply; `arguments` is the JSON text as the model wrote it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered: its text and its tool calls."""

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one reply did.

    Attributes:
        score: 0..1, 1 = right; None where the reply holds no answer (a format failure, which is not "wrong").
        extracted: the answer as it was understood, None where there is none.
        reason: a closed word for statistics.
        detail: one short sentence for people, for instance which test of the code failed.
    """

    score: float | None
    extracted: str | None
    reason: Reason
    detail: str = ""
