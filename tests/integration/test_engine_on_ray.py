"""The engine under a real Ray Serve on this machine, by the shipped config. Needs the extra `ray`."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

ray = pytest.importorskip("ray", reason="ray is not installed")

CONFIG = Path(__file__).parents[2] / "deploy" / "ray" / "engine.yaml"
PORT = int(os.environ.get("ORBWEAVER_TEST_RAY_PORT", "18291"))
BASE = f"http://127.0.0.1:{PORT}"
START_S = 120.0
# Ray warns of its own internals; they are not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from ray import serve
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(CONFIG.read_text())
    config["http_options"] |= {"host": "127.0.0.1", "port": PORT}
    config["applications"][0]["args"]["zoo"] = str(tmp_path_factory.mktemp("zoo"))
    # A Unix socket's path is at most 108 bytes, so Ray's files cannot lie in the test's own folder.
    ray.init(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
    try:
        client = serve_start(http_options=config["http_options"])
        client.deploy_apps(ServeDeploySchema.model_validate(config))
        _until_running(serve)
        yield BASE
    finally:
        serve.shutdown()
        ray.shutdown()


def _until_running(serve: Any) -> None:
    deadline = time.monotonic() + START_S
    while (state := serve.status().applications["orbweaver-engine"]).status != "RUNNING":
        assert time.monotonic() < deadline, state
        assert state.status != "DEPLOY_FAILED", state
        time.sleep(0.2)


def question(**fields: Any) -> dict[str, Any]:
    return {"model": "arithmetic", "messages": [{"role": "user", "content": "What is 47 + 38?"}], **fields}


async def test_the_zoo_answers_unary_and_streamed_the_same(engine: str) -> None:
    async with aiohttp.ClientSession(engine) as session:
        async with session.get("/v1/models") as answer:
            assert "arithmetic" in {model["id"] for model in (await answer.json())["data"]}
        async with session.post("/v1/chat/completions", json=question(temperature=0)) as answer:
            whole = (await answer.json())["choices"][0]["message"]["content"]
        async with session.post("/v1/chat/completions", json=question(temperature=0, stream=True)) as answer:
            events = [line[6:] for line in (await answer.text()).splitlines() if line.startswith("data: {")]
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events]
    assert whole.strip() == "85"
    assert "".join(pieces) == whole


async def test_an_unknown_model_is_404_in_the_words_of_openai(engine: str) -> None:
    async with (
        aiohttp.ClientSession(engine) as session,
        session.post("/v1/chat/completions", json=question(model="nobody")) as answer,
    ):
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "model_not_found"


async def test_forty_at_once_are_all_answered(engine: str) -> None:
    async with aiohttp.ClientSession(engine) as session:

        async def ask() -> int:
            async with session.post("/v1/chat/completions", json=question()) as answer:
                await answer.read()
                return answer.status

        assert await asyncio.gather(*(ask() for _ in range(40))) == [200] * 40
