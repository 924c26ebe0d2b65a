"""`make bench`: runs every measurement, prints one table and writes one JSON. `BENCH=full` measures longer.

Names on the command line choose: `python -m tests.bench overhead stream`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import time
from pathlib import Path

from tests.bench.processes import litellm_proxy_problem
from tests.bench.report import Figure, Options, commit, machine, table, write

NAMES = (
    "start",
    "overhead",
    "stream",
    "auto",
    "memory",
    "encoder",
    "extraction",
    "aptitude",
    "zoo",
    "mixtures",
    "router_check",
    "merge",
    "engine",
)


def main() -> int:
    """Exit status 0 where everything could be measured, whether or not a bar was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure ({', '.join(NAMES)}); all if none")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of the JSON files")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no measurement {unknown[0]!r}; there are: {', '.join(NAMES)}")
    options = Options(full=os.environ.get("BENCH") == "full")
    on = machine()
    figures: list[Figure] = []
    notes = [note for note in [litellm_proxy_problem()] if note]
    failed = False
    for name in given.names or NAMES:
        if importlib.util.find_spec(f"tests.bench.bench_{name}") is None:
            notes.append(f"There is no measurement of {name} in this checkout.")
            continue
        began = time.monotonic()
        sys.stderr.write(f"measuring {name} ... ")
        sys.stderr.flush()
        try:
            figures += importlib.import_module(f"tests.bench.bench_{name}").run(options)
            sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
        except (RuntimeError, OSError, AssertionError) as error:
            failed = True
            notes.append(f"{name} could not be measured: {error}")
            sys.stderr.write(f"failed: {error}\n")
    path = write(given.out, options, figures, notes, machine=on)
    sys.stdout.write(f"\n{on['cpu']}, {on['cores']} cores, python {on['python']}, commit {commit()}, ")
    sys.stdout.write(f"load {on['load_before']:.1f} before\n\n{table(figures)}\n")
    for note in notes:
        sys.stdout.write(f"Note: {note}\n")
    sys.stdout.write(f"Written to {path}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
