"""`python -m merge_backends.zoo.serve`: the engine with the bundled zoo, as the child of a gateway.

It ends when its parent ends, however that happened.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from merge_backends.engine.server import inherited, serve
from merge_backends.engine.settings import EngineSettings, MergeFamily, ModelSettings
from merge_backends.errors import MergeError

CONTEXT_WINDOW = 256
DRAIN_S = 3
LOOK_S = 1.0
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 after a clean end, 2 where the zoo cannot be served."""
    parser = argparse.ArgumentParser(prog="python -m merge_backends.zoo.serve", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the expanded checkpoints")
    parser.add_argument("--fd", type=int, help="a listening socket handed down by number")
    parser.add_argument("--parent", type=int, help="end when this process is no longer the parent")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        die_with(given.parent)
    try:
        listener = None if given.fd is None else inherited(given.fd)
        serve(zoo_settings(given.cache), lambda address: None, listener=listener)
    except MergeError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    return 0


def zoo_settings(cache: Path) -> EngineSettings:
    """Settings of an engine that serves the zoo, its mixtures, and merges of its experts on request.

    Raises:
        CheckpointError: the bundled weights are damaged.
    """
    from merge_backends.zoo.expand import expand, read_manifest

    folders = expand(cache)
    base = folders["base"]
    models = {
        name: ModelSettings(
            path=folder, context_window=CONTEXT_WINDOW, base=base if (folder / "mixture.json").is_file() else None
        )
        for name, folder in folders.items()
    }
    experts = {name: folders[name] for name in read_manifest()["experts"]}
    return EngineSettings(
        models=models,
        merges={"zoo": MergeFamily(base=base, experts=experts)},
        drain_s=DRAIN_S,
        preload=True,
    )


def die_with(parent: int) -> None:
    """Arrange for our end when the parent ends: by the kernel on Linux, by looking elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(parent,), name="parent watch", daemon=True).start()


def _watch(parent: int) -> None:
    # The kernel's signal goes by the thread that started us and may come too early or, set too late, never.
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
