"""schemathesis over our own OpenAPI description: whatever is sent, the gateway has no fault of its own to report."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.serving import candidate, serving

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "4")


@pytest.mark.timeout(600)
async def test_no_request_that_the_description_allows_or_forbids_ends_in_a_server_error(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        models = [candidate(name, upstream.base_url, price_in=1, price_out=1) for name in ("small", "large")]
        async with serving(tmp_path, models) as gateway:
            program = Path(sys.executable).with_name("schemathesis")
            fuzz = await asyncio.create_subprocess_exec(
                *(str(program), "run", f"{gateway.url}/openapi.json", "--checks", "not_a_server_error", "--no-color"),
                *("--max-examples", EXAMPLES, "--generation-deterministic", "--phases", "coverage,fuzzing"),
                *("--request-timeout", "20"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=tmp_path,
            )
            output, _ = await fuzz.communicate()
            assert gateway.process.returncode is None, "the gateway must live on"
    words = output.decode(errors="replace")
    assert fuzz.returncode == 0, words[-6000:]
    assert " passed" in words
