"""Messages to be turned into JSON: orders with corrections, bookings under a schema."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language


@generator("order_record", summary="an order as a JSON object", scorer="json")
def order_record(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One to four lines; medium ones are corrected, hard ones also lose a line."""
    wording = texts("records", language)
    count = {"easy": 1, "medium": 2, "hard": 4}[difficulty]
    person, city = rng.choice(wording["people"]), rng.choice(wording["cities"])
    lines = [
        {"item": good, "quantity": rng.randint(2, 40), "unit_price": rng.randint(20, 900) / rng.choice((1, 2, 4))}
        for good in rng.sample(wording["goods"], count)
    ]
    reference = f"{rng.choice('ABCDEFGH')}{rng.choice('KLMNPQR')}-{rng.randint(1000, 9999)}"
    express = rng.random() < 0.5
    said = wording["join"].join(
        wording["line"].format(n=line["quantity"], good=line["item"], price=f"{line['unit_price']:.2f}")
        for line in lines
    )
    parts = [wording["greeting"].format(person=person, city=city), said[0].upper() + said[1:] + "."]
    extra = [wording["reference"].format(reference=reference), wording["express"][express]]
    rng.shuffle(extra)
    parts += extra
    if difficulty != "easy":
        changed = rng.choice(lines)
        changed["quantity"] += rng.randint(1, 9)
        parts.append(wording["correction"].format(n=changed["quantity"], good=changed["item"]))
    if difficulty == "hard":
        dropped = rng.choice(lines)
        lines = [line for line in lines if line is not dropped]
        parts.append(wording["cancel"].format(good=dropped["item"]))
    value = {"customer": person, "city": city, "reference": reference, "express": express, "lines": lines}
    return Draft(f"{wording['order_ask']}\n\n{' '.join(parts)}", {"value": value})


@generator("booking_record", summary="a booking as JSON under a schema", scorer="json")
def booking_record(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One flat booking, then one with a computed departure, then a list with nested stays."""
    wording = texts("records", language)
    count = 3 if difficulty == "hard" else 1
    told, bookings = [], []
    for person in rng.sample(wording["people"], count):
        note, code = rng.choice(wording["notes"])
        start = datetime.date(2031, 1, 1) + datetime.timedelta(days=rng.randrange(1000))
        nights, rooms, breakfast = rng.randint(1, 12), rng.randint(1, 4), rng.random() < 0.5
        city = rng.choice(wording["cities"])
        told.append(
            wording["booking"].format(
                person=person,
                rooms=rooms,
                city=city,
                start=start.isoformat(),
                nights=nights,
                breakfast=wording["yes" if breakfast else "no"],
                note=note,
            )
        )
        stay: dict[str, Any] = {"city": city, "arrival": start.isoformat()}
        if difficulty == "easy":
            stay["nights"] = nights
        else:
            stay["departure"] = (start + datetime.timedelta(days=nights)).isoformat()
        details = {"rooms": rooms, "breakfast": breakfast, "note": code}
        nested = (
            {"guest": person, "stay": stay, **details} if difficulty == "hard" else {"guest": person, **stay, **details}
        )
        bookings.append(nested)
    value: Any = {"bookings": bookings, "total_rooms": sum(b["rooms"] for b in bookings)} if count > 1 else bookings[0]
    schema = _schema_of(value)
    shown = json.dumps(schema, ensure_ascii=False)
    return Draft(f"{wording['booking_ask']}\n\n{shown}\n\n" + "\n".join(told), {"value": value, "schema": schema})


def _schema_of(value: Any, key: str = "") -> dict[str, Any]:
    """A closed schema of a booking value."""
    if key == "note":
        return {"enum": ["cot", "dog", "late", None]}
    if key in ("arrival", "departure"):
        return {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "description": f"day of {key}"}
    if isinstance(value, dict):
        parts = {name: _schema_of(part, name) for name, part in value.items()}
        return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}
    if isinstance(value, list):
        return {"type": "array", "items": _schema_of(value[0])}
    if isinstance(value, bool):
        return {"type": "boolean"}
    return {"type": "integer", "minimum": 1} if isinstance(value, int) else {"type": "string"}
