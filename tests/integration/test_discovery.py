"""Discovery: provider keys from the environment, servers on loopback, all within a second and nothing else called."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import orjson
import pytest

from gateway.registry.addresses import Address, NetworkRules
from gateway.registry.records import Candidate, Endpoint
from gateway.registry.validation import check_candidate
from gateway.upstreams.catalogue import PROVIDERS, Provider, candidates_of
from gateway.upstreams.discovery import LocalServer, discover
from tests.support.scripted_upstream import ScriptedUpstream

NOBODY: dict[str, str] = {}


def server_at(upstream: ScriptedUpstream, name: str = "Ollama") -> LocalServer:
    port = urlsplit(upstream.base_url).port
    assert port is not None
    return LocalServer(name, port)


async def found_behind(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> tuple[Candidate, ...]:
    """What discovery finds where a raw TCP server answers."""
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return (await discover(NOBODY, own_port=None, servers=[LocalServer("strange", port)])).candidates


def answering(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> Callable[..., Awaitable[None]]:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    return answer


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request and hang until the caller gives up."""
    while await reader.read(1000):
        pass
    writer.close()


async def test_a_local_server_becomes_free_candidates() -> None:
    async with ScriptedUpstream() as upstream:
        found = await discover(NOBODY, own_port=None, servers=[server_at(upstream)])
    (only,) = found.candidates
    assert (only.name, only.source, only.price_out) == ("scripted-1", "discovered", 0.0)
    assert only.deployments[0].base_url == upstream.base_url
    assert any("Found Ollama" in note and "scripted-1" in note for note in found.notes)


async def test_our_own_port_is_never_asked() -> None:
    async with ScriptedUpstream() as upstream:
        server = server_at(upstream)
        found = await discover(NOBODY, own_port=server.port, servers=[server])
    assert found.candidates == ()


async def test_the_same_model_on_two_servers_keeps_both_apart() -> None:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        servers = [server_at(first), server_at(second, "LM Studio")]
        found = await discover(NOBODY, own_port=None, servers=servers)
    assert [each.name for each in found.candidates] == ["scripted-1", "lm-studio/scripted-1"]


@pytest.mark.parametrize(
    ("listed", "names", "window"),
    [
        ([{"id": "auto"}, {"id": "small"}], [], None),
        ([{"id": "/models/llama-3.gguf", "meta": {"n_ctx_train": 8192}}], ["llama-3.gguf"], 8192),
        ([{"id": "qwen3", "max_model_len": 32768}], ["qwen3"], 32768),
        ([{"id": "a b(c)"}], ["a-b-c"], None),
        ([{"id": 7}, {"name": "x"}, "y", {"id": "///"}], [], None),
    ],
    ids=["another gateway", "a file", "vLLM", "awkward name", "not models"],
)
async def test_what_a_server_lists_is_read_with_care(
    listed: list[object], names: list[str], window: int | None
) -> None:

    found = await found_behind(answering(orjson.dumps({"data": listed})))
    assert [each.name for each in found] == names
    assert [each.context_window for each in found] == [window] * len(names)


async def test_an_embedding_model_is_not_offered_for_chat() -> None:
    found = await found_behind(answering(b'{"data": [{"id": "nomic-embed-text:latest"}]}'))
    assert found[0].endpoints == frozenset({Endpoint.EMBEDDINGS})


@pytest.mark.parametrize(
    "answer",
    [
        answering(b"<html>hello</html>"),
        answering(b'{"data": "x"}'),
        answering(b"[1, 2]"),
        answering(b"x" * 3_000_000),
        answering(b"{}", b"HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\n"),
        answering(b'{"data": [{"id": "x"}]}', b"HTTP/1.1 401 Unauthorized\r\n"),
        answering(b"no HTTP", b""),
    ],
    ids=["html", "wrong type", "a list", "endless", "redirect", "error status", "no http"],
)
async def test_anything_else_on_the_port_counts_as_nobody(answer: Callable[..., Awaitable[None]]) -> None:
    assert await found_behind(answer) == ()


async def test_a_server_that_hangs_costs_at_most_a_second() -> None:
    async with ScriptedUpstream() as upstream:
        hanging = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        stuck = LocalServer("stuck", hanging.sockets[0].getsockname()[1])
        began = time.monotonic()
        found = await discover(NOBODY, own_port=None, servers=[stuck, server_at(upstream)], budget_s=0.5)
        took = time.monotonic() - began
        hanging.close()
    assert [each.name for each in found.candidates] == ["scripted-1"]
    assert took < 3.0


async def test_a_provider_key_brings_models_and_is_never_repeated() -> None:
    found = await discover({"OPENAI_API_KEY": "sk-secret", "GROQ_API_KEY": " "}, own_port=None, servers=[])
    assert {each.deployments[0].api_key_env for each in found.candidates} == {"OPENAI_API_KEY"}
    assert "sk-secret" not in repr(found)


async def test_nothing_found_says_how_to_add_the_first_model() -> None:
    found = await discover(NOBODY, own_port=None, servers=[])
    assert found.candidates == ()
    assert any("orbweaver models add" in note for note in found.notes)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
async def test_every_provider_of_the_catalogue_would_pass_registration(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nowhere(host: str) -> list[Address]:
        raise OSError(host)

    monkeypatch.setenv(provider.variables[0], "x")
    for candidate in candidates_of(provider, provider.variables[0]):
        warnings = await check_candidate(candidate, NetworkRules(), nowhere)
        assert all("resolved" in warning for warning in warnings)


def test_names_in_the_catalogue_are_unique() -> None:
    names = [each.name for provider in PROVIDERS for each in candidates_of(provider, "X")]
    assert len(names) == len(set(names))
