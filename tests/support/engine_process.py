"""A real engine in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass
class EngineProcess:
    """A running engine."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def health(self) -> dict[str, Any]:
        """GET /healthz."""
        with urllib.request.urlopen(f"{self.url}/healthz", timeout=20) as answer:
            return dict(json.load(answer))

    def wait_until_idle(self, seconds: float) -> float:
        """Seconds until no answer is in a batch; fails the test after `seconds`."""
        began = time.monotonic()
        while self.health()["running"]:
            assert time.monotonic() - began < seconds, "answers are still running"
            time.sleep(0.01)
        return time.monotonic() - began


@contextlib.contextmanager
def engine_process(settings: Mapping[str, Any]) -> Iterator[EngineProcess]:
    """An engine with these settings, ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as place:
        config, log = Path(place) / "engine.yaml", Path(place) / "log"
        config.write_text(yaml.safe_dump(dict(settings)))
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "merge_backends.engine", "--config", str(config)],
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, log.read_text()
            yield EngineProcess(json.loads(line)["address"], process, log)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
