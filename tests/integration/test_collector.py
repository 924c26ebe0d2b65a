"""What start-up made is out of garbage collections by the time that requests are accepted, with one process too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gateway.collector import THRESHOLDS

SERVE = """
import gc, json, os, signal
from gateway.server import serve
from gateway.settings import load_settings

def announce(address, notes):
    print(json.dumps({"frozen": gc.get_freeze_count(), "threshold": gc.get_threshold()}), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

serve(load_settings(), config_path=None, announce=announce)
"""


def test_one_process_spares_the_collector(tmp_path: Path) -> None:
    wanted = {"ORBWEAVER_STATE_DIR": str(tmp_path), "ORBWEAVER_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", SERVE], env=os.environ | wanted, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout.splitlines()[-1])
    assert seen["frozen"] > 50_000
    assert tuple(seen["threshold"]) == THRESHOLDS
