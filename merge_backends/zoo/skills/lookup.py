"""Facts given in the question, to be found and copied: price lists, telephone lists, orders, forms."""

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
    """Two entries to look through; easy ones have one or two."""
    family = rng.choice(("price", "extension", "owner", "order", "form"))
    size = rng.randint(1, 2) if level == "easy" else 2
    match family:
        case "price":
            things = rng.sample(THINGS, size)
            prices = rng.sample(range(2, 100), size)
            at = rng.randrange(size)
            listed = ", ".join(f"{thing} {price}" for thing, price in zip(things, prices, strict=True))
            ask = rng.choice(("What is the price of {}?", "How much does the {} cost?", "Find the price of {}."))
            return Question(family, f"Price list: {listed}. {ask.format(things[at])}", str(prices[at]))
        case "extension" | "owner":
            names = rng.sample(NAMES, size)
            numbers = rng.sample(range(100, 1000), size)
            at = rng.randrange(size)
            listed = ", ".join(f"{name} {number}" for name, number in zip(names, numbers, strict=True))
            if family == "extension":
                ask, answer = rng.choice(("What is the number of {}?", "Find the phone number of {}.")), numbers[at]
                return Question(family, f"Phone list: {listed}. {ask.format(names[at])}", str(answer))
            ask = rng.choice(("Who has the number {}?", "Whose phone number is {}?"))
            return Question(family, f"Phone list: {listed}. {ask.format(numbers[at])}", names[at])
        case "order":
            return _order(rng, level)
        case _:
            return _form(rng, level)


def _order(rng: random.Random, level: Level) -> Question:
    name, thing, place = rng.choice(NAMES), rng.choice(THINGS), rng.choice(PLACES)
    count, price = rng.randint(2, 99), rng.randint(100, 999)
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
        ("room", str(rng.randint(100, 999))),
        ("code", "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(4))),
    ]
    rng.shuffle(fields)
    fields = fields[: rng.randint(1, 2) if level == "easy" else 2]
    key, value = rng.choice(fields)
    listed = "; ".join(f"{field}: {content}" for field, content in fields)
    ask = rng.choice(("What is the {} in this form?", "Extract the {} from this form.", "Read the {} from this form."))
    return Question("form", f"{ask.format(key)} {listed}", value)
