"""Starts the replaying upstream for each pool and runs `orbweaver eval` on it; reports go to reports/."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as parquet

TOP = Path(__file__).parents[2]
SHARED = TOP.parent / "shared"
POOLS = ("mmlu_pro_pool", "gsm_crux_math_pool", "routerbench_pool")
START_S = 120.0


def main() -> int:
    """Exit status: how many pools had a problem."""
    cli = argparse.ArgumentParser(prog="make eval", description=__doc__)
    cli.add_argument("--data", type=Path, default=SHARED / "data" / "routing")
    cli.add_argument("--replay", type=Path, default=SHARED / "tools" / "replay_upstream.py")
    cli.add_argument("--out", type=Path, default=TOP / "reports")
    cli.add_argument("--pools", default=",".join(POOLS))
    cli.add_argument("--limit", type=int, help="at most so many prompts of each pool")
    cli.add_argument("--budget", type=int, default=200, help="aptitude calls for each model")
    cli.add_argument("--artifact", type=Path, help="default: one trained now without dev and test prompts")
    given = cli.parse_args()
    if not (given.data / "responses.parquet").is_file() or not given.replay.is_file():
        sys.stderr.write(f"make eval needs recorded answers: {given.data} and {given.replay} are not both there.\n")
        return 2
    artifact = given.artifact or _held_out(given.data)
    failed = 0
    for pool in given.pools.split(","):
        sys.stderr.write(f"== {pool}\n")
        with (
            _upstream(given, pool) as clean,
            _upstream(given, pool, "--fail-rate", "0.02", "--hang-rate", "0.01") as bad,
        ):
            line = [
                "eval",
                "--upstream",
                clean,
                "--faulty-upstream",
                bad,
                "--models",
                ",".join(models_of(given.data, pool)),
            ]
            line += ["--data", str(given.data), "--out", str(given.out / f"{pool}.json"), "--artifact", str(artifact)]
            line += ["--budget", str(given.budget), *([] if given.limit is None else ["--limit", str(given.limit)])]
            failed += subprocess.run([*_orbweaver(), *line], check=False).returncode != 0
    return failed


def models_of(data: Path, pool: str) -> list[str]:
    """The models of a replay pool."""
    rows = parquet.read_table(data / "responses.parquet", columns=["pool", "model"]).to_pylist()
    return sorted({row["model"] for row in rows if row["pool"] == pool})


def _held_out(data: Path) -> Path:
    """An encoder that has seen neither dev nor test prompts nor the unseen models; trained where it is missing."""
    folder = TOP / ".cache" / "eval" / "held-out"
    if not (folder / "manifest.json").is_file():
        sys.stderr.write("training an encoder without dev and test prompts (a few minutes)\n")
        line = ["encoder", "train", "--data", str(data), "--out", str(folder), "--hold-out"]
        subprocess.run([*_orbweaver(), *line], check=True)
    return folder


def _orbweaver() -> list[str]:
    return [sys.executable, "-m", "gateway.cli.main"]


@contextmanager
def _upstream(given: argparse.Namespace, pool: str, *faults: str) -> Iterator[str]:
    """The replaying upstream on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, str(given.replay), "--port", str(port), "--pool", pool, "--data", str(given.data), *faults]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        _wait(f"http://127.0.0.1:{port}/stats", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the replaying upstream does not answer at {url}")


if __name__ == "__main__":
    raise SystemExit(main())
