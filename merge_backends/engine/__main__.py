"""`python -m merge_backends.engine`: the engine without the rest of the command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from merge_backends.engine.server import inherited, serve
from merge_backends.engine.settings import named_paths, read_settings
from merge_backends.errors import MergeError


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 after a clean end, 2 where the settings cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m merge_backends.engine", description=__doc__)
    parser.add_argument("--config", type=Path, help="engine.yaml")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=DIR", help="serve a folder; repeatable")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--fd", type=int, help="a listening socket handed down by number")
    given = parser.parse_args(arguments)
    try:
        overrides: dict[str, Any] = {
            "host": given.host,
            "port": given.port,
            "models": named_paths(given.model, "--model"),
        }
        settings = read_settings(given.config, overrides)
        serve(settings, _announce, listener=None if given.fd is None else inherited(given.fd))
    except MergeError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    return 0


def _announce(address: str) -> None:
    sys.stdout.write(json.dumps({"address": address}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
