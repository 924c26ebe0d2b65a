"""The command line that studies share: data and cache in, one JSON record out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path


def run_study(description: str | None, study: Callable[[Path, Path], object]) -> None:
    """Read `--data DIR --cache DIR --out F.json`, run `study(data, cache)` and write what it found."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("--data", "--cache", "--out"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    options.out.write_text(json.dumps(study(options.data, options.cache), indent=1), encoding="utf-8")
