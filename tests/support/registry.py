"""Builders for registry tests: settings on a fresh database, candidates, and waiting for what others changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.registry.records import Candidate, Deployment
from gateway.settings import Settings


def settings_in(folder: Path, **changes: Any) -> Settings:
    """Settings whose registry lies in `folder`."""
    return Settings.model_validate({"state_dir": folder, **changes})


def candidate(name: str = "small", base_url: str = "http://127.0.0.1:9100/v1", **changes: Any) -> Candidate:
    """A candidate with one deployment."""
    return Candidate(name, (Deployment(f"{name}#0", base_url, f"{name}-1"),), **changes)


def declared(name: str = "small", **changes: Any) -> dict[str, Any]:
    """A candidate as it stands in a config file."""
    return {"name": name, "base_url": "http://127.0.0.1:9100/v1", **changes}


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until the condition holds; fails the test where it does not."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
