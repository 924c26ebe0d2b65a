"""Sends prompts with the official OpenAI client and keeps what came back, headers included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.errors import ConfigError
from gateway.evaluation.recorded import Prompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONCURRENCY = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and its end. `model` answered with `text`; or `error` says why not (`code`, or the exception)."""

    prompt_id: str
    model: str | None
    decision: str | None
    p: float | None
    text: str | None
    error: str | None
    seconds: float


async def ask_all(
    url: str,
    prompts: Sequence[Prompt],
    *,
    quality: float,
    stream: bool = False,
    timeout_s: float = 60.0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Asked]:
    """Every prompt once, `model="auto"`, with `CONCURRENCY` side by side and no retry by the client."""
    try:
        from openai import AsyncOpenAI
    except ModuleNotFoundError:
        raise ConfigError(
            "This command needs the official client.", hint='pip install "orbweaver-gateway[providers]"'
        ) from None
    done = 0
    gate = asyncio.Semaphore(CONCURRENCY)

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=timeout_s) as client:

        async def one(prompt: Prompt) -> Asked:
            nonlocal done
            async with gate:
                asked = await _ask(client, prompt, quality, stream)
            done += 1
            progress(done)
            return asked

        return list(await asyncio.gather(*(one(prompt) for prompt in prompts)))


async def _ask(client: AsyncOpenAI, prompt: Prompt, quality: float, stream: bool) -> Asked:
    import openai

    began = time.perf_counter()
    headers: dict[str, str] = {}
    text = error = None
    try:
        body: dict[str, Any] = {
            "model": "auto",
            "messages": [{"role": "user", "content": prompt.text}],
            "extra_body": {"orbweaver": {"quality": quality}},
        }
        if stream:
            async with client.chat.completions.with_streaming_response.create(stream=True, **body) as raw:
                headers = dict(raw.headers)
                pieces = []
                async for chunk in await raw.parse():
                    pieces += [choice.delta.content or "" for choice in chunk.choices]
                text = "".join(pieces)
        else:
            whole = await client.chat.completions.with_raw_response.create(**body)
            headers = dict(whole.headers)
            text = whole.parse().choices[0].message.content or ""
    except openai.APIStatusError as refused:
        headers = dict(refused.response.headers)
        error = str(refused.code or refused.status_code)
    except openai.APIError as failed:
        error = str(getattr(failed, "code", None) or type(failed).__name__)
    p = headers.get("x-orbweaver-p")
    return Asked(
        prompt_id=prompt.id,
        model=headers.get("x-orbweaver-model"),
        decision=headers.get("x-orbweaver-decision-id"),
        p=None if p is None else float(p),
        text=text if error is None else None,
        error=error,
        seconds=time.perf_counter() - began,
    )
