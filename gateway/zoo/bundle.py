"""What the bundled zoo offers, read from its package's data files: candidates and their aptitude answers. No torch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.registry.records import Candidate, Deployment, Endpoint

PREFIX = "zoo/"
NEEDED = ("torch", "transformers", "safetensors")
QUESTION = "What is 47 + 38?"


@dataclass(frozen=True, slots=True)
class ZooModel:
    """One model of the zoo: its name with the prefix, size, and its graded answers as a stored profile."""

    name: str
    parameters: int
    context_window: int
    profile: Mapping[str, Any]


def read_zoo(folder: Path | None = None) -> tuple[ZooModel, ...]:
    """The models of the bundled zoo; none where this installation has no zoo.

    Args:
        folder: where `profiles.json` lies; the package's own by default.
    """
    folder = folder or _packaged()
    path = None if folder is None else folder / "profiles.json"
    if path is None or not path.is_file():
        return ()
    stored = json.loads(path.read_text("utf-8"))
    suite, items = stored["suite"], stored["items"]
    models = []
    for short, facts in stored["models"].items():
        name = f"{PREFIX}{short}"
        answers = [
            {"item": f"{suite}/{index}", "suite": suite, "text": text, "score": float(mark == "1")}
            for index, (text, mark) in enumerate(zip(items, facts["answers"], strict=True))
        ]
        models.append(ZooModel(name, facts["parameters"], facts["context_window"], {"name": name, "answers": answers}))
    return tuple(models)


def as_candidate(model: ZooModel, base_url: str) -> Candidate:
    """The candidate that clients and `auto` see; it costs nothing but the machine's own time."""
    billions = model.parameters / 1e9
    return Candidate(
        model.name,
        (Deployment(f"{model.name}#0", base_url, model.name.removeprefix(PREFIX)),),
        price_in=0.0,
        price_out=0.0,
        context_window=model.context_window,
        endpoints=frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS}),
        family="zoo",
        params_total_b=billions,
        params_active_b=billions,
        source="discovered",
    )


def missing_packages() -> list[str]:
    """What the engine needs and this environment lacks. Looks without importing."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def _packaged() -> Path | None:
    found = importlib.util.find_spec("merge_backends")
    places = (found.submodule_search_locations or []) if found is not None else []
    return next((Path(place) / "zoo" for place in places), None)
