"""How much memory a merge may take and will take: asked before anything is allocated."""

from __future__ import annotations

import re
from pathlib import Path

from merge_backends.errors import MemoryBudgetError, RecipeError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str) -> int:
    """`512MiB`, `2 GB`, `1000000` as bytes.

    Raises:
        RecipeError: for anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if found is None:
        raise RecipeError(f"{text!r} is no amount of memory.", "Give one like 512MiB or 2GB.")
    return int(float(found.group(1)) * _UNITS[found.group(2) or ""])


def spoken(count: int) -> str:
    """Bytes as people read them."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def available() -> int | None:
    """Bytes that the machine can give now; None where it does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def require(needed: int, budget: int | None) -> None:
    """Raises MemoryBudgetError where the need is over the budget (None: what the machine has available)."""
    limit = budget if budget is not None else available()
    if limit is not None and needed > limit:
        what = "the memory budget of" if budget is not None else "the available"
        raise MemoryBudgetError(
            f"The merge needs about {spoken(needed)} of memory, more than {what} {spoken(limit)}.",
            "Raise the budget, merge fewer models at once, or use a method that works tensor by tensor.",
        )
