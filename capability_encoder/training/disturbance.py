"""Does the choice survive typos, wrappers, agent reminders and pasted context? All texts here are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from capability_encoder.scorer import CapabilityScorer, Pool

_WRAPPERS = (
    "Answer the following question as best you can.\n\n{}",
    "Please answer the following question. Think step by step.\n\n{}",
    "You are an expert. Question: {}\n\nAnswer:",
    "Hello! I need some help with this one.\n\n{}\n\nThanks in advance!",
)
_REMINDERS = (
    "<system-reminder>\nThe task list is empty. Do not mention this.\n</system-reminder>\n\n{}",
    "{}\n\n<system-reminder>Files changed on disk since they were last read.</system-reminder>",
    "[System reminder: 40 % of the context window is used.]\n\n{}",
)
_SUBJECTS = ("The valve", "Pump four", "The spare sensor", "A technician", "The second shift", "The cooling loop")
_EVENTS = (
    "was inspected and nothing unusual was found",
    "reported a pressure of {number} kPa at noon",
    "was moved to bay {number} for the week",
    "is due for service in {number} days",
    "was noted in the log under entry {number}",
)
_SENTENCES = 330
"""About 4,000 tokens of the sentences above."""
_TYPO_RATE = 0.03


def with_typos(text: str, rng: np.random.Generator) -> str:
    """Swap, drop or double about 3 % of the letters."""
    letters = list(text)
    for place in np.flatnonzero(rng.random(len(letters)) < _TYPO_RATE):
        if not letters[place].isalpha():
            continue
        kind = rng.integers(3)
        following = place + 1
        if kind == 0 and following < len(letters) and len(letters[following]) == 1 and letters[following].isalpha():
            letters[place], letters[following] = letters[following], letters[place]
        else:
            letters[place] = "" if kind == 1 else letters[place] * 2
    return "".join(letters)


def with_wrapper(text: str, rng: np.random.Generator) -> str:
    """Politeness or an instruction around the ask."""
    return _WRAPPERS[rng.integers(len(_WRAPPERS))].format(text)


def with_reminder(text: str, rng: np.random.Generator) -> str:
    """An agent harness's reminder before or after the ask."""
    return _REMINDERS[rng.integers(len(_REMINDERS))].format(text)


def with_context(text: str, rng: np.random.Generator) -> str:
    """About 4,000 tokens of a maintenance log, before or after the ask."""
    sentences = [
        f"{_SUBJECTS[rng.integers(len(_SUBJECTS))]} "
        f"{_EVENTS[rng.integers(len(_EVENTS))].format(number=rng.integers(2, 900))}."
        for _ in range(_SENTENCES)
    ]
    log = "\n\n".join(" ".join(sentences[start : start + 6]) for start in range(0, _SENTENCES, 6))
    return f"{log}\n\n{text}" if rng.random() < 0.5 else f"{text}\n\n{log}"


KINDS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "typos": with_typos,
    "wrappers": with_wrapper,
    "agent reminders": with_reminder,
    "4,000 tokens of pasted context": with_context,
}


def changed_choices(
    scorer: CapabilityScorer, asks: Sequence[str], pools: Sequence[Pool], *, seed: int
) -> dict[str, list[float]]:
    """Share of prompts whose choice changes, by kind of disturbance, for each pool."""
    plain = scorer.embedder.embed(asks)
    before = [scorer.score_many(plain, pool).p.argmax(axis=1) for pool in pools]
    shares = {}
    for place, (kind, disturb) in enumerate(KINDS.items()):
        rng = np.random.default_rng((seed, place))
        vectors = scorer.embedder.embed([disturb(ask, rng) for ask in asks])
        shares[kind] = [
            float((scorer.score_many(vectors, pool).p.argmax(axis=1) != was).mean())
            for pool, was in zip(pools, before, strict=True)
        ]
    return shares
