"""What is known of a model: facts and aptitude answers (`CapabilityProfile`), and their rendering as text.

Shared vocabulary of the encoder, the aptitude tests and the gateway. No I/O, no numpy.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple


class ProfileError(ValueError):
    """A profile cannot be used; the message names the field and the fix."""


class UnknownItemsError(ProfileError):
    """Answers refer to items that are in no item bank and whose text was not given."""

    def __init__(self, items: Sequence[str]) -> None:
        self.items = tuple(items)
        shown = ", ".join(repr(item) for item in self.items[:3])
        more = f" and {len(self.items) - 3} more" if len(self.items) > 3 else ""
        super().__init__(
            f"unknown aptitude items {shown}{more}: give their prompt texts, or use items of a known suite "
            "(`orbweaver aptitude suites` lists them)"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One graded answer of a model. `item` is a prompt id of the item bank, `score` is in 0..1, 1 = right.

    `text` is the item as it was asked, for items of no bank: an encoder places it by its embedding.
    """

    item: str
    score: float
    suite: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if not self.item:
            raise ProfileError("an answer needs the id of its item")
        if isinstance(self.score, bool) or not math.isfinite(self.score) or not 0.0 <= self.score <= 1.0:
            raise ProfileError(
                f"score {self.score!r} of item {self.item!r} is not in 0..1; leave ungraded answers out of the profile"
            )


_ANSWER_FIELDS = tuple(field.name for field in fields(Answer))


@dataclass(frozen=True, slots=True)
class CapabilityProfile:
    """What is known of one model; every field but the name may be missing.

    Attributes:
        name: the candidate's name at the gateway.
        family: maker's series, as `llama-3`.
        params_total_b, params_active_b: billions of parameters, all and per token.
        price_in, price_out: USD per million tokens.
        release_date: `YYYY-MM` or `YYYY-MM-DD`.
        answers: graded aptitude answers; an item answered twice counts twice.
        known_as: name under which the encoder saw this very model in training, if the user vouches for it.
    """

    name: str
    family: str | None = None
    params_total_b: float | None = None
    params_active_b: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    release_date: str | None = None
    answers: tuple[Answer, ...] = ()
    known_as: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ProfileError("a profile needs a model name")
        for field in ("params_total_b", "params_active_b", "price_in", "price_out"):
            value = getattr(self, field)
            if value is not None and (not math.isfinite(value) or value < 0):
                raise ProfileError(
                    f"{field}={value!r} of model {self.name!r} is not a number >= 0; leave it out if unknown"
                )
        if self.release_date is not None and not re.fullmatch(r"\d{4}(-\d{2}){1,2}", self.release_date):
            raise ProfileError(
                f"release_date={self.release_date!r} of model {self.name!r} is not YYYY-MM or YYYY-MM-DD"
            )

    @property
    def fingerprint(self) -> str:
        """Hash over everything but the name: profiles that agree in it have the same posterior."""
        record = self.as_record()
        del record["name"]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]

    def as_record(self) -> dict[str, Any]:
        """Plain values, ready for JSON; missing facts are left out."""
        record: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "answers" and getattr(self, field.name) is not None
        }
        if self.answers:
            record["answers"] = [
                {name: value for name in _ANSWER_FIELDS if (value := getattr(answer, name)) is not None}
                for answer in self.answers
            ]
        return record

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back to an equal profile."""
        return json.dumps(self.as_record(), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> CapabilityProfile:
        """Read what `to_json` wrote.

        Raises:
            ProfileError: not JSON, an unknown field, or a value outside its range.
        """
        try:
            record = json.loads(text)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ProfileError(f"the profile is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ProfileError(f"the profile is a JSON {type(record).__name__}, expected an object")
        return cls.from_record(record)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> CapabilityProfile:
        """Build from plain values; raises `ProfileError` as `from_json` does."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(record) - known)
        if unknown:
            raise ProfileError(f"unknown profile field {unknown[0]!r}; known are {', '.join(sorted(known))}")
        answers = record.get("answers", ())
        try:
            built = tuple(Answer(e["item"], e["score"], e.get("suite"), e.get("text")) for e in answers)
            return cls(**{**record, "answers": built})
        except (TypeError, KeyError, AttributeError) as error:
            raise ProfileError(
                f"the profile of {record.get('name')!r} has a field of the wrong shape: {error}"
            ) from error


class MatchedAnswers(NamedTuple):
    """Answers split by where their item's vector comes from: rows of the bank, or texts to embed."""

    bank_rows: tuple[int, ...]
    bank_scores: tuple[float, ...]
    texts: tuple[str, ...]
    text_scores: tuple[float, ...]


def match_answers(
    answers: Iterable[Answer], bank: Mapping[str, int], texts: Mapping[str, str] | None = None
) -> MatchedAnswers:
    """Find each answer's item in the bank (`prompt id -> row`), else its text: the given one, or the answer's own.

    Raises:
        UnknownItemsError: for items that are in neither; no answer is ever dropped silently.
    """
    rows, row_scores, found_texts, text_scores, unknown = [], [], [], [], []
    for answer in answers:
        if answer.item in bank:
            rows.append(bank[answer.item])
            row_scores.append(answer.score)
        elif (text := (texts or {}).get(answer.item, answer.text)) is not None:
            found_texts.append(text)
            text_scores.append(answer.score)
        else:
            unknown.append(answer.item)
    if unknown:
        raise UnknownItemsError(unknown)
    return MatchedAnswers(tuple(rows), tuple(row_scores), tuple(found_texts), tuple(text_scores))


def capability_instruction(
    profile: CapabilityProfile, task_of: Mapping[str, str], *, order: Sequence[str] | None = None, notes: str = ""
) -> str:
    """The model's capability as text, c_m of Model-SAT (section 1.1 of the paper): accuracy per core task.

    Args:
        task_of: item id -> name of its core task; items of no task are left out.
        order: task names in the order to write them (shuffled in training and at test time); default: by name.
        notes: expert notes appended as they are, for instance the languages a model knows.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for answer in profile.answers:
        if answer.item in task_of:
            scores[task_of[answer.item]].append(answer.score)
    tasks = sorted(scores) if order is None else [task for task in order if task in scores]
    clauses = [f'accuracy {100 * sum(scores[task]) / len(scores[task]):.1f}% on the task of "{task}"' for task in tasks]
    text = f"The model achieves {', '.join(clauses)}." if clauses else "No aptitude answer of the model is known."
    facts = []
    if profile.params_total_b is not None:
        facts.append(f"{profile.params_total_b:g} billion parameters")
    if profile.family is not None:
        facts.append(f"family {profile.family}")
    return " ".join(part for part in (text, f"It has {', '.join(facts)}." if facts else "", notes) if part)
