"""Tool calls: which function, with which arguments, one or several or none."""

from __future__ import annotations

import datetime
import random
from collections.abc import Mapping
from typing import Any

from aptitude_tests.generators.registry import generator, texts
from aptitude_tests.item import Difficulty, Draft, Language

_CODES = ("USD", "EUR", "JPY", "GBP", "CHF", "BRL", "INR", "ZAR")


def _tool(name: str, description: str, optional: tuple[str, ...] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    required = [key for key in properties if key not in optional]
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_CITY = {"type": "string", "description": "Name of the city, as the user writes it."}
_DATE = {"type": "string", "description": "Day as YYYY-MM-DD."}
_TIME = {"type": "string", "description": "Time of day as HH:MM, 24 hours."}
_COUNT = {"type": "integer"}
TOOLS: dict[str, dict[str, Any]] = {
    "weather": _tool(
        "get_weather_forecast",
        "Weather forecast of a city for a number of days.",
        city=_CITY,
        days=_COUNT,
        unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
    ),
    "currency": _tool(
        "convert_currency",
        "Convert an amount of money between two currencies.",
        amount={"type": "number"},
        source={"type": "string", "description": "ISO 4217 code."},
        target={"type": "string", "description": "ISO 4217 code."},
    ),
    "reminder": _tool(
        "create_reminder",
        "Remind a person of something.",
        person={"type": "string", "description": "Name, as the user writes it."},
        date=_DATE,
        time=_TIME,
    ),
    "room": _tool(
        "book_room",
        "Book a meeting room.",
        ("catering",),
        seats=_COUNT,
        date=_DATE,
        start=_TIME,
        minutes=_COUNT,
        projector={"type": "boolean"},
        catering={"type": "boolean", "description": "Only where the user asks for it."},
    ),
}
_DECOYS = (
    _tool("get_current_weather", "Weather in a city at this moment only.", city=_CITY),
    _tool("cancel_room", "Cancel the booking of a meeting room.", booking={"type": "string"}),
    _tool("list_currencies", "All currency codes that can be converted."),
    _tool("delete_reminder", "Delete a reminder of a person.", person={"type": "string"}, date=_DATE),
)


@generator("tool_use", summary="calls of the tools on offer", scorer="tool_call")
def tool_use(rng: random.Random, difficulty: Difficulty, language: Language, params: Mapping[str, Any]) -> Draft:
    """One call of two tools; then one of six, or none; then two calls at once among eight."""
    wording = texts("tool_use", language)
    kinds = rng.sample(sorted(TOOLS), 2)
    asks = [_ask(rng, kind, wording) for kind in kinds]
    if difficulty == "easy":
        tools, question, calls = [TOOLS[kind] for kind in kinds], asks[0][0], [asks[0][1]]
    elif difficulty == "medium":
        tools = [*TOOLS.values(), *rng.sample(_DECOYS, 2)]
        question, calls = asks[0][0], [asks[0][1]]
        if rng.random() < 0.4:
            city, person = rng.choice(wording["cities"]), rng.choice(wording["people"])
            question, calls = rng.choice(wording["none"]).format(city=city, person=person), []
    else:
        tools = [*TOOLS.values(), *_DECOYS]
        question = wording["both"].format(first=asks[0][0], second=asks[1][0])
        calls = [call for _, call in asks]
    rng.shuffle(tools)
    return Draft(question, {"calls": calls}, tools=tuple(tools))


def _ask(rng: random.Random, kind: str, wording: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A request in words and the call that answers it."""
    date = (datetime.date(2030, 1, 1) + datetime.timedelta(days=rng.randrange(900))).isoformat()
    time = f"{rng.randint(8, 17):02d}:{rng.choice(('00', '15', '30', '45'))}"
    if kind == "weather":
        city, days, unit = rng.choice(wording["cities"]), rng.randint(2, 9), rng.choice(("celsius", "fahrenheit"))
        values: dict[str, Any] = {"city": city, "days": days, "unit": unit}
        text = wording[kind].format(city=city, days=days, unit=wording["units"][unit])
    elif kind == "currency":
        source, target = rng.sample(_CODES, 2)
        values = {"amount": rng.randint(5, 9000), "source": source, "target": target}
        text = wording[kind].format(**values)
    elif kind == "reminder":
        values = {"person": rng.choice(wording["people"]), "date": date, "time": time}
        text = wording[kind].format(subject=rng.choice(wording["subjects"]), **values)
    else:
        seats, minutes = rng.randint(3, 30), rng.choice((30, 45, 60, 90))
        values = {"seats": seats, "date": date, "start": time, "minutes": minutes, "projector": True}
        text = wording[kind].format(seats=seats, date=date, time=time, minutes=minutes)
    return text, {"name": TOOLS[kind]["function"]["name"], "arguments": values}
