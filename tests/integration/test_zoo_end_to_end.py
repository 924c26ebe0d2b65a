"""The bundled zoo as a user meets it: one command, real weights, real engine, `auto` picks the model with the skill."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from gateway.zoo.bundle import missing_packages, read_zoo
from tests.support.serving import Serving, serving

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_packages()), reason="the engine's packages are not installed"),
]
QUESTIONS = {
    "zoo/arithmetic": ("What is 47 + 38?", "85"),
    "zoo/lists": ("Sort the numbers 5, 2, 8, 1 from small to large.", "1, 2, 5, 8"),
    "zoo/dates": ("Which weekday is 3 days after Monday?", "Thursday"),
}


def body(model: str, prompt: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}


async def ask(gateway: Serving, session: aiohttp.ClientSession, model: str, prompt: str) -> tuple[str, str]:
    """The answer, and who gave it."""
    async with session.post(f"{gateway.url}/v1/chat/completions", json=body(model, prompt)) as reply:
        answer = await reply.json()
        assert reply.status == 200, answer
        return answer["choices"][0]["message"]["content"], reply.headers["x-orbweaver-model"]


async def until_measured(gateway: Serving, session: aiohttp.ClientSession) -> None:
    """Until the encoder has been loaded and has placed the questions of the profiles."""
    async with asyncio.timeout(120):
        while True:
            async with session.post(f"{gateway.url}/v1/route", json=body("auto", "Add 20 and 30.")) as reply:
                decision = await reply.json()
            scores = {each["model"]: each["p"] for each in decision.get("candidates", ())}
            if scores.get("zoo/arithmetic", 0.0) > 0.6 > scores["zoo/dates"]:
                return
            await asyncio.sleep(0.3)


async def test_auto_sends_each_question_to_a_model_with_the_skill_and_the_answers_are_right(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, [], zoo="on", routing={"scorer": "auto"}) as gateway,
        aiohttp.ClientSession() as session,
    ):
        await until_measured(gateway, session)
        for model, (prompt, answer) in QUESTIONS.items():
            given, by = await ask(gateway, session, "auto", prompt)
            # The mixture knows all skills as well as the experts, so either may be asked.
            assert (given, by in (model, "zoo/wemoe")) == (answer, True)
        merged, by = await ask(gateway, session, "zoo/merge:arithmetic=1.0", QUESTIONS["zoo/arithmetic"][0])
        assert (merged, by) == ("85", "zoo/merge")
        preferred = {
            **body("zoo/merge", QUESTIONS["zoo/arithmetic"][0]),
            "orbweaver": {"preference": {"arithmetic": 2}},
        }
        async with session.post(f"{gateway.url}/v1/chat/completions", json=preferred) as reply:
            assert (await reply.json())["choices"][0]["message"]["content"] == "85"
        gateway.terminate()
        assert await gateway.ended() == 0


async def test_an_engine_that_is_killed_is_back_for_the_next_question_and_ends_with_the_gateway(tmp_path: Path) -> None:
    prompt, answer = QUESTIONS["zoo/arithmetic"]
    async with serving(tmp_path, [], zoo="on") as gateway, aiohttp.ClientSession() as session:
        assert (await ask(gateway, session, "zoo/arithmetic", prompt))[0] == answer
        first = engine_of(gateway.process.pid)
        os.kill(first, signal.SIGKILL)
        assert (await ask(gateway, session, "zoo/arithmetic", prompt))[0] == answer
        second = engine_of(gateway.process.pid)
        assert second != first
        await gateway.kill()
        async with asyncio.timeout(20):
            while is_alive(second):
                await asyncio.sleep(0.1)


def engine_of(gateway: int) -> int:
    """Process id of the gateway's engine."""
    (child,) = [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit()
        and f"\nPPid:\t{gateway}\n" in (folder / "status").read_text()
        and b"merge_backends.zoo.serve" in (folder / "cmdline").read_bytes()
    ]
    return child


def is_alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_every_model_of_the_bundle_has_an_answer_to_every_question() -> None:
    models = read_zoo()
    assert {model.name for model in models} >= {"zoo/base", "zoo/merge", "zoo/smile", "zoo/wemoe", *QUESTIONS}
    assert len({len(model.profile["answers"]) for model in models}) == 1
