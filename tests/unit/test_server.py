"""The server's process: what it sets before numpy and faiss are loaded."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from gateway.server import _one_thread_per_product
_one_thread_per_product()
import faiss, numpy
from threadpoolctl import threadpool_info
print(sorted({library["num_threads"] for library in threadpool_info()}))
"""


def threads(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_small_products_run_on_one_thread_unless_the_operator_says_otherwise() -> None:
    assert threads() == "[1]"
    assert threads(OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2") == "[2]"
