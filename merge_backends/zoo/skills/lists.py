"""Lists of numbers and words: sorted, turned round, searched, cleaned."""

from __future__ import annotations

import random

from merge_backends.zoo.skills.draft import Level, Question

WORDS = tuple(
    "apple bread cake dill eggs fish grape honey iris jelly kiwi lime mint nuts olive peach rice sage".split()
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_PHRASES = {
    "ascending": ("Sort the numbers {x} from small to large.", "Sort this list in ascending order: {x}."),
    "descending": ("Sort the numbers {x} from large to small.", "Sort this list in descending order: {x}."),
    "largest": ("What is the largest number in the list {x}?", "Which number in this list is the largest: {x}?"),
    "smallest": ("What is the smallest number in the list {x}?", "Which number in this list is the smallest: {x}?"),
    "turned": ("Reverse the list {x}.", "Write this list in the opposite order: {x}."),
    "nth": ("What is the {n} item of the list {x}?", "Give the {n} item of this list: {x}."),
    "count": ("How many items are in the list {x}?", "Count the items of this list: {x}."),
    "unique": ("Remove the repeated items from the list {x}.", "Write this list without repeated items: {x}."),
    "alphabet": ("Sort the words {x} in alphabetical order.", "Put this list of words in alphabetical order: {x}."),
}


def draw(rng: random.Random, level: Level) -> Question:
    """Three to five numbers of one digit, or three words; easy lists have two or three, numbers up to 20."""
    family = rng.choice(tuple(_PHRASES))
    easy = level == "easy"
    size = rng.randint(2, 3) if easy else rng.randint(3, 5)
    top = 20 if easy else 9
    if family == "alphabet" or (family in ("turned", "nth") and rng.random() < 0.3):
        items = rng.sample(WORDS, min(size, 3))
    else:
        items = [str(number) for number in rng.sample(range(1, top + 1), size)]
    n = rng.randrange(min(len(items), 5))
    if family == "unique":
        repeated = items[: -1 if easy else -2] or items
        items = repeated + rng.sample(repeated, min(len(repeated), 1 if easy else 2))
        rng.shuffle(items)
    prompt = rng.choice(_PHRASES[family]).format(x=", ".join(items), n=_ORDINALS[n])
    return Question(family, prompt, _answer(family, items, n))


def _answer(family: str, items: list[str], n: int) -> str:
    match family:
        case "ascending":
            return ", ".join(sorted(items, key=int))
        case "descending":
            return ", ".join(sorted(items, key=int, reverse=True))
        case "largest":
            return max(items, key=int)
        case "smallest":
            return min(items, key=int)
        case "turned":
            return ", ".join(reversed(items))
        case "nth":
            return items[n]
        case "count":
            return str(len(items))
        case "unique":
            return ", ".join(dict.fromkeys(items))
        case _:
            return ", ".join(sorted(items))
