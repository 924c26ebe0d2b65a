"""What a caller may wish for: the body field `orbweaver` and the `x-orbweaver-*` headers, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidBody

PRESETS: dict[str, dict[str, float | bool]] = {
    "auto": {},
    "auto:best": {"quality": 1.0},
    "auto:balanced": {"quality": 0.7},
    "auto:cheap": {"quality": 0.2},
    "auto:fast": {"quality": 0.5, "fast": True},
}
MAX_NAMES = 100
MAX_SESSION = 256


@dataclass(frozen=True, slots=True)
class Wishes:
    """Per-request routing wishes. `quality` is None where the caller leaves it to the configuration.

    `preference`: weights of experts in a merge made for the request; they sum to 1.
    """

    quality: float | None = None
    max_cost_usd: float | None = None
    min_p: float | None = None
    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    session: str | None = None
    explain: bool = False
    fast: bool = False
    preference: tuple[tuple[str, float], ...] = ()


NOTHING = Wishes()


def parse_wishes(field: Any, headers: Mapping[str, str], preset: str = "auto") -> Wishes:
    """Merge preset, headers and body field; the body field wins.

    Args:
        field: the request's `orbweaver` value, None if absent.
        headers: lower-case names; only `x-orbweaver-*` are read.
        preset: `auto` or one of `auto:best|balanced|cheap|fast`.
    Raises:
        InvalidBody: unknown field, wrong type or value out of range, named with the fix.
    """
    if field is not None and not isinstance(field, dict):
        raise InvalidBody(
            f"`orbweaver` must be an object, not {type(field).__name__}.",
            hint='For example {"quality": 0.9}.',
            param="orbweaver",
        )
    values: dict[str, Any] = dict(PRESETS.get(preset, {}))
    for name in FIELDS:
        text = headers.get("x-orbweaver-" + name.replace("_", "-"))
        if text is not None:
            values[name] = _from_header(name, text)
    for name, value in (field or {}).items():
        if name not in FIELDS:
            raise InvalidBody(
                f"`orbweaver.{name}` is not a known wish.",
                hint=f"Known: {', '.join(FIELDS)}.",
                param=f"orbweaver.{name}",
            )
        if value is not None:
            values[name] = value
    return NOTHING if not values else Wishes(**{name: _checked(name, value) for name, value in values.items()})


def _from_header(name: str, text: str) -> Any:
    kind = FIELDS[name]
    if kind == "names":
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind == "flag":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)
    if kind == "weights":
        pairs = (part.partition("=") for part in text.split(","))
        return {name.strip(): _number(weight) for name, _, weight in pairs}
    if kind in ("share", "money"):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


FIELDS: dict[str, str] = {
    "quality": "share",
    "max_cost_usd": "money",
    "min_p": "share",
    "allow": "names",
    "deny": "names",
    "session": "text",
    "explain": "flag",
    "preference": "weights",
}


def _checked(name: str, value: Any) -> Any:
    kind = FIELDS.get(name, "flag")
    param = f"orbweaver.{name}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "share" and not (number and 0 <= value <= 1):
        raise InvalidBody(f"`{param}` must be a number from 0 to 1, not {value!r}.", param=param)
    if kind == "money" and not (number and 0 <= value < float("inf")):
        raise InvalidBody(f"`{param}` must be an amount in USD, 0 or more, not {value!r}.", param=param)
    if kind == "flag" and not isinstance(value, bool):
        raise InvalidBody(f"`{param}` must be true or false, not {value!r}.", param=param)
    if kind == "text" and not (isinstance(value, str) and 0 < len(value) <= MAX_SESSION):
        raise InvalidBody(f"`{param}` must be a text of 1 to {MAX_SESSION} characters.", param=param)
    if kind == "names":
        names = [value] if isinstance(value, str) else value
        if not (isinstance(names, list) and len(names) <= MAX_NAMES and all(isinstance(n, str) for n in names)):
            raise InvalidBody(f"`{param}` must be a list of at most {MAX_NAMES} model names.", param=param)
        return frozenset(names)
    if kind == "weights":
        return _weights(value, param)
    return float(value) if number else value


def _weights(value: Any, param: str) -> tuple[tuple[str, float], ...]:
    """Weights scaled to a sum of 1, in the order given."""
    numbers = (
        isinstance(value, dict)
        and 0 < len(value) <= MAX_NAMES
        and all(
            isinstance(each, int | float) and not isinstance(each, bool) and 0 <= each < float("inf")
            for each in value.values()
        )
    )
    total = sum(value.values()) if numbers else 0.0
    if total <= 0:
        raise InvalidBody(
            f"`{param}` must give experts weights of 0 or more, not all 0; got {str(value)[:100]}.",
            hint='For example {"arithmetic": 0.7, "dates": 0.3}.',
            param=param,
        )
    return tuple((name, weight / total) for name, weight in value.items() if weight > 0)
