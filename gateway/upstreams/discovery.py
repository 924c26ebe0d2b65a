"""With no candidate configured: finds provider keys in the environment and OpenAI-compatible servers on loopback.

Nothing but loopback is called, all of it in parallel and within a second.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import orjson

from gateway.registry.records import Candidate, Deployment, Endpoint
from gateway.upstreams.catalogue import PROVIDERS, candidates_of

if TYPE_CHECKING:
    import aiohttp

BUDGET_S = 1.0
MAX_LIST_BYTES = 2**20
MAX_MODELS = 50
ADD_FIRST = "Add a model: orbweaver models add NAME --base-url http://HOST:PORT/v1 --upstream-model ID"
CONTEXT_FIELDS = ("max_model_len", "context_length", "max_context_length", "context_window")


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A kind of server and the port it usually listens on."""

    name: str
    port: int


LOCAL_SERVERS = (
    LocalServer("Ollama", 11434),
    LocalServer("vLLM", 8000),
    LocalServer("LM Studio", 1234),
    LocalServer("llama.cpp", 8081),
    LocalServer("llama.cpp", 8080),
    LocalServer("SGLang", 30000),
    LocalServer("Jan", 1337),
)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found: candidates, and notes for the operator, one line each."""

    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]


async def discover(
    environment: Mapping[str, str],
    *,
    own_port: int | None,
    servers: Sequence[LocalServer] = LOCAL_SERVERS,
    budget_s: float = BUDGET_S,
) -> Discovery:
    """Candidates from provider keys and local servers; never raises, never takes longer than `budget_s`.

    Args:
        own_port: where this gateway itself listens; it is not asked.
    """
    candidates: dict[str, Candidate] = {}
    notes = []
    for provider in PROVIDERS:
        variable = next((name for name in provider.variables if environment.get(name, "").strip()), None)
        if variable is not None and provider.dialect != "openai" and find_spec("litellm") is None:
            fix = 'pip install "orbweaver-gateway[providers]"'
            notes.append(f"Found {variable}, but {provider.name} needs litellm: {fix}.")
        elif variable is not None:
            found = candidates_of(provider, variable)
            candidates |= {candidate.name: candidate for candidate in found}
            notes.append(f"Found {variable}: {_listed(found)} of {provider.name} (list prices; check them).")
    others = [server for server in servers if server.port != own_port]
    for server, models in zip(others, await _ask_all(others, budget_s), strict=True):
        found = _local_candidates(server, models, candidates)
        if found:
            candidates |= {candidate.name: candidate for candidate in found}
            notes.append(f"Found {server.name} at http://127.0.0.1:{server.port}: {_listed(found)}.")
    if not candidates:
        notes.append("No model is configured, no provider key is set and no local server answers.")
    notes.append(f"{ADD_FIRST}." if not candidates else f"{ADD_FIRST}; that replaces what was found.")
    return Discovery(tuple(candidates.values()), tuple(notes))


async def list_models(base_url: str, *, headers: Mapping[str, str] | None = None, limit_s: float = 5.0) -> list[Any]:
    """The `data` of `GET base_url/models`; empty where the server does not answer that in time."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=limit_s)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False, headers=headers) as session:
        return await _models(session, f"{base_url.rstrip('/')}/models")


async def _ask_all(servers: Sequence[LocalServer], budget_s: float) -> list[list[Any]]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=budget_s * 0.9)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        urls = [f"http://127.0.0.1:{server.port}/v1/models" for server in servers]
        return list(await asyncio.gather(*(_models(session, url) for url in urls)))


async def _models(session: aiohttp.ClientSession, url: str) -> list[Any]:
    """The models a server lists. Anything but a list in OpenAI's form counts as no answer."""
    import aiohttp

    try:
        async with session.get(url, allow_redirects=False) as reply:
            if reply.status != 200:
                return []
            # A page that happens to live on the port may be endless; a list of models is small.
            body = await reply.content.readexactly(MAX_LIST_BYTES)
    except asyncio.IncompleteReadError as end:
        body = end.partial
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return []
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    models = data.get("data") if isinstance(data, dict) else None
    return [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []


def _local_candidates(
    server: LocalServer, models: Iterable[Mapping[str, Any]], taken: Mapping[str, Candidate]
) -> list[Candidate]:
    """Models of a local server, free of charge. Another gateway is left alone: two could call each other for ever."""
    listed = [model for model in models if isinstance(model.get("id"), str)]
    if any(model["id"] == "auto" or model["id"].startswith("auto:") for model in listed):
        return []
    found: dict[str, Candidate] = {}
    for model in listed[:MAX_MODELS]:
        name = _usable_name(model["id"])
        if not name:
            continue
        if name in taken or name in found:
            name = f"{_usable_name(server.name.lower())}/{name}"[:128]
        place = Deployment(f"{name}#0", f"http://127.0.0.1:{server.port}/v1", model["id"])
        embeds = "embed" in name.lower()
        found[name] = Candidate(
            name,
            (place,),
            price_in=0.0,
            price_out=0.0,
            context_window=_context_window(model),
            endpoints=frozenset({Endpoint.EMBEDDINGS} if embeds else {Endpoint.CHAT, Endpoint.COMPLETIONS}),
            source="discovered",
        )
    return list(found.values())


def _usable_name(model_id: str) -> str:
    """A candidate's name from a server's model id; a path to a file becomes the file's name."""
    name = model_id.rsplit("/", 1)[-1] if model_id.startswith(("/", ".")) or "\\" in model_id else model_id
    return re.sub(r"[^A-Za-z0-9._:/@+-]+", "-", name).strip("-._:/@+")[:128]


def _context_window(model: Mapping[str, Any]) -> int | None:
    meta = model.get("meta")
    found = [model.get(field) for field in CONTEXT_FIELDS]
    found += [meta.get("n_ctx"), meta.get("n_ctx_train")] if isinstance(meta, dict) else []
    return next((value for value in found if isinstance(value, int) and 0 < value < 10**9), None)


def _listed(candidates: Sequence[Candidate]) -> str:
    names = [candidate.name for candidate in candidates]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
