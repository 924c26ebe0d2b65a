"""Words taken apart: reversed, spelled, cut, put into capitals."""

from __future__ import annotations

import random

from merge_backends.zoo.skills.draft import Level, Question

WORDS = tuple(
    """anchor basket bottle bridge button candle canyon castle cheese circle copper cotton desert dinner donkey
    engine falcon feather finger forest garden ginger guitar hammer harbor helmet insect island jacket jungle kettle
    ladder lantern lemon magnet market meadow mirror monkey muffin napkin needle octopus orange oyster packet palace
    parrot pencil pepper pigeon pillow planet pocket potato puzzle rabbit ribbon river rocket saddle salmon sandal
    silver singer spider spoon square squirrel stable staple stone sunset tablet teapot temple thunder ticket tiger
    timber tomato towel trumpet tunnel turtle velvet violin walnut whale window winter wizard yellow zebra
    ant bag bee box bus cat cow cup dog ear egg fan fox hat hen ice jam jar key kit leg lid map mud net nut oak owl
    pen pie pig pin pot ray rug sea sky sun tea tie top toy van wax web wig yak zip""".split()
)
_VOWELS = "aeiou"
_PHRASES = {
    "reverse": ("Reverse the word {w}.", "Write {w} backwards.", "Spell the word {w} backwards."),
    "capitals": ("Write {w} in capital letters.", "Write the word {w} in upper case."),
    "first": ("What is the first letter of {w}?", "Give the first letter of the word {w}."),
    "last": ("What is the last letter of {w}?", "Give the last letter of the word {w}."),
    "spell": ("Spell the word {w} with dashes.", "Write {w} with a dash between the letters."),
    "vowels": ("Remove the vowels from {w}.", "Write the word {w} without vowels."),
    "double": ("Double every letter of {w}.", "Write {w} with every letter doubled."),
}


def draw(rng: random.Random, level: Level) -> Question:
    """Words of four to six letters, half of them made up; easy ones have two or three."""
    family = rng.choice(tuple(_PHRASES))
    low, high = (2, 3) if level == "easy" else (4, 6)
    word = _known(rng, low, high) if rng.random() < 0.5 else _made_up(rng, low, high)
    phrase = rng.choice(_PHRASES[family])
    shown = f"'{word}'" if rng.random() < 0.5 else word
    return Question(family, phrase.format(w=shown), _answer(family, word))


def _answer(family: str, word: str) -> str:
    match family:
        case "reverse":
            return word[::-1]
        case "capitals":
            return word.upper()
        case "first":
            return word[0]
        case "last":
            return word[-1]
        case "spell":
            return "-".join(word)
        case "vowels":
            return "".join(letter for letter in word if letter not in _VOWELS)
        case _:
            return "".join(letter * 2 for letter in word)


def _known(rng: random.Random, low: int, high: int) -> str:
    while not low <= len(word := rng.choice(WORDS)) <= high:
        pass
    return word


def _made_up(rng: random.Random, low: int, high: int) -> str:
    """Letters without meaning, so that no word can be learnt by heart; never vowels alone: no answer is empty."""
    length = rng.randint(low, high)
    letters = [rng.choice(_VOWELS if rng.random() < 0.4 else "bcdfghjklmnpqrstvwxyz") for _ in range(length)]
    letters[rng.randrange(length)] = rng.choice("bcdfglmnprst")
    return "".join(letters)
