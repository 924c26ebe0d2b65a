"""Asks zoo models questions, greedily and in batches, and counts the answers that are exactly right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from merge_backends.zoo.skills import SKILLS, Question, draw_questions
from merge_backends.zoo.tokenizer import mark_ids

LONGEST_ANSWER = 26  # a little more than the longest right one
_ROWS = 128


def answer_all(model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str]) -> list[str]:
    """The likeliest answer to each prompt; questions of equal length are asked together, so none is padded."""
    user, end, assistant, _ = mark_ids(tokenizer)
    asked = [[user, *tokenizer.encode(prompt).ids, end, assistant] for prompt in prompts]
    groups: dict[int, list[int]] = {}
    for index, ids in enumerate(asked):
        groups.setdefault(len(ids), []).append(index)
    answers = [""] * len(prompts)
    for members in groups.values():
        for at in range(0, len(members), _ROWS):
            rows = members[at : at + _ROWS]
            written = _write(model, torch.tensor([asked[index] for index in rows]), end)
            for index, ids in zip(rows, written.tolist(), strict=True):
                answers[index] = tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)
    return answers


def _write(model: nn.Module, ids: Tensor, end: int) -> Tensor:
    """Generated tokens `(rows, steps)` after the prompts `(rows, length)`; what follows the end mark means nothing."""
    past, written = None, []
    is_open = torch.ones(len(ids), dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(LONGEST_ANSWER):
            output = model(input_ids=ids, past_key_values=past, use_cache=True)
            past = output.past_key_values
            ids = output.logits[:, -1].argmax(-1, keepdim=True)
            written.append(ids)
            is_open &= ids[:, 0] != end
            if not is_open.any():
                break
    return torch.cat(written, dim=1)


def fresh_questions(seed: int, count: int) -> list[tuple[str, Question]]:
    """`count` full-size questions of each skill, with the skill's name."""
    return [(skill, question) for skill in SKILLS for question in draw_questions(skill, seed=seed, count=count)]


def grade(model: nn.Module, tokenizer: Tokenizer, questions: Sequence[tuple[str, Question]]) -> list[bool]:
    """Whether each question is answered exactly right."""
    answers = answer_all(model, tokenizer, [question.prompt for _, question in questions])
    return [question.is_answered_by(answer) for (_, question), answer in zip(questions, answers, strict=True)]


def shares_right(questions: Sequence[tuple[str, Question]], right: Sequence[bool]) -> dict[str, float]:
    """Share of right answers by skill."""
    found: dict[str, list[bool]] = {}
    for (skill, _), is_right in zip(questions, right, strict=True):
        found.setdefault(skill, []).append(is_right)
    return {skill: sum(each) / len(each) for skill, each in found.items()}


def measure(model: nn.Module, tokenizer: Tokenizer, *, seed: int, count: int) -> dict[str, float]:
    """Share of exactly right answers on `count` fresh full-size questions of each skill."""
    questions = fresh_questions(seed, count)
    return shares_right(questions, grade(model, tokenizer, questions))
