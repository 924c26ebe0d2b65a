"""A gateway of its own for an evaluation: a real process on a free port with an empty state folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import OrbweaverError
from gateway.evaluation.recorded import Model
from gateway.settings import environment

END_S = 30.0
ADD_S = 600.0


@dataclass(frozen=True, slots=True)
class OwnGateway:
    """Where it listens, and the command line that talks to it."""

    url: str

    def add(self, model: Model, base_url: str, *, suite_data: Path, budget: int) -> dict[str, Any]:
        """`orbweaver models add`, waiting until the aptitude test is done. Raises OrbweaverError."""
        arguments = ["models", "add", model.name, "--base-url", base_url, "--upstream-model", model.name]
        facts = {
            "--price-in": model.price_in,
            "--price-out": model.price_out,
            "--family": model.family,
            "--params-b": model.params_total_b,
        }
        arguments += [text for name, value in facts.items() if value is not None for text in (name, str(value))]
        if model.suite is None:
            arguments += ["--no-aptitude"]
        else:
            arguments += ["--suite", model.suite, "--suite-data", str(suite_data), "--budget", str(budget), "--wait"]
        return self.command(*arguments)

    def command(self, *arguments: str) -> dict[str, Any]:
        """One command of the product, with `--json`; gives what it printed. Raises OrbweaverError."""
        line = [sys.executable, "-m", "gateway.cli.main", *arguments, "--url", self.url, "--json"]
        ended = subprocess.run(line, capture_output=True, text=True, timeout=ADD_S, check=False, env=_environment())
        if ended.returncode != 0:
            words = ended.stderr.strip().splitlines()
            raise OrbweaverError(f"`orbweaver {' '.join(arguments[:3])}` failed: {words[-1] if words else '?'}")
        found: dict[str, Any] = json.loads(ended.stdout)
        return found


@contextmanager
def own_gateway(folder: Path, *, artifact: Path | None, sections: dict[str, Any]) -> Iterator[OwnGateway]:
    """Start `orbweaver serve` with its state in `folder`, and stop it at the end. Raises OrbweaverError."""
    sections = dict(sections)
    routing = {"sticky": False, "time_price": 0.0, "abstain": False, **sections.pop("routing", {})}
    if artifact is not None:
        routing["artifact"] = str(artifact.resolve())
    config = {"discover": False, "state_dir": str(folder / "state"), "routing": routing, **sections}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "orbweaver.yaml"
    path.write_text(json.dumps(config))
    log = folder / "gateway.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli.main", "serve", "--config", str(path), "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
        )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            raise OrbweaverError(f"The gateway did not start: {_last_line(log)}")
        yield OwnGateway(json.loads(first)["address"])
    finally:
        process.terminate()
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _environment() -> dict[str, str]:
    """The caller's own without the gateway's settings: neither its registry nor its keys are used here."""
    return {
        name: value for name, value in environment().items() if not name.startswith("ORBWEAVER_") and name != "PORT"
    }


def _last_line(log: Path) -> str:
    lines: Sequence[str] = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
