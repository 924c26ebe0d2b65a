"""What a skill draws: a question with its one right answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["easy", "full"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a skill.

    Attributes:
        family: the kind of question within the skill, for statistics.
        prompt: plain English, as a user would type it.
        answer: the only text that counts as right.
    """

    family: str
    prompt: str
    answer: str

    def is_answered_by(self, reply: str) -> bool:
        """Whether a reply is the answer, but for white space around it and a full stop at its end."""
        return reply.strip().rstrip(".") == self.answer


Draw: TypeAlias = Callable[[random.Random, Level], Question]
