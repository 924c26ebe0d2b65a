"""Facts given in the question, to be found and copied: orders and forms."""

from __future__ import annotations

import random

from merge_backends.zoo.skills.draft import Level, Question

NAMES = tuple(
    """Anna Boris Carla David Elena Felix Greta Hugo Ines Jonas Karin Lukas Maria Nils Olga Pavel Rosa Simon Tara
    Victor Wanda Xenia Yusuf Zoe Amir Bella Cesar Diana Emil Fatima""".split()
)
THINGS = tuple(
    """lamp chair clock brush spade plate cable drill frame scarf broom ruler tray vase mug pan rope tent belt glove
    pear plum fig leek corn beans melon mango onion""".split()
)
PLACES = tuple(
    "Oslo Paris Rome Lima Quito Cairo Delhi Seoul Tokyo Bern Vienna Prague Dublin Lisbon Accra Hanoi".split()
)


def draw(rng: random.Random, level: Level) -> Question:
    """Orders of five facts and forms of four fields; easy ones have three facts, or one field or two."""
    return rng.choice((_order, _form))(rng, level)


def _order(rng: random.Random, level: Level) -> Question:
    name, thing, place = rng.choice(NAMES), rng.choice(THINGS), rng.choice(PLACES)
    count, price = rng.randint(2, 9), rng.randint(10, 99)
    if level == "easy":
        ask, answer = rng.choice((("Who ordered?", name), ("Which city?", place)))
        return Question("order", f"{name} from {place} ordered a {thing}. {ask}", answer)
    asks = (
        ("Who placed the order?", name),
        ("Which city does the customer live in?", place),
        ("How much was paid for the order?", str(price)),
        ("How many pieces were ordered?", str(count)),
        ("Which product was ordered?", thing),
    )
    ask, answer = rng.choice(asks)
    text = rng.choice(
        (
            f"{name} from {place} ordered {count} pieces of {thing} and paid {price} dollars.",
            f"Order: {count} pieces of {thing} for {price} dollars, sent to {name} in {place}.",
        )
    )
    return Question("order", f"{text} {ask}", answer)


def _form(rng: random.Random, level: Level) -> Question:
    fields = [
        ("name", rng.choice(NAMES)),
        ("city", rng.choice(PLACES)),
        ("age", str(rng.randint(18, 99))),
        ("room", str(rng.randint(10, 99))),
    ]
    if level == "easy":
        fields = rng.sample(fields, rng.randint(1, 2))
    key, value = rng.choice(fields)
    listed = "; ".join(f"{field}: {content}" for field, content in fields)
    ask = rng.choice(("What is the {} in this form?", "Extract the {} from this form.", "Read the {} from this form."))
    return Question("form", f"{ask.format(key)} {listed}", value)
