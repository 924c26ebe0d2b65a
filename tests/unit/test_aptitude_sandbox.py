"""Code that a model wrote can use nothing but its own folder, for a bounded time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from aptitude_tests.sandbox import Limits, call_function


def run(source: str, *, wall_s: float = 8.0, cpu_s: int = 2) -> str:
    """The error of one call; empty where it worked."""
    (call,) = call_function(source, "solve", [[1]], Limits(wall_s=wall_s, cpu_s=cpu_s))
    return call.error or ""


def test_results_and_errors_come_back_call_by_call() -> None:
    source = "def solve(x):\n    return [10 // x]"
    calls = call_function(source, "solve", [[5], [0], [2]])
    assert [call.result for call in calls] == [[2], None, [5]]
    assert "ZeroDivisionError" in (calls[1].error or "")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import socket\ndef solve(x):\n    socket.create_connection(('127.0.0.1', 9))", "socket"),
        ("import subprocess\ndef solve(x):\n    subprocess.run(['true'])", "subprocess"),
        ("import os\ndef solve(x):\n    os.system('true')", "os.system"),
        ("import os\ndef solve(x):\n    os.fork()", "os.fork"),
        ("import ctypes\ndef solve(x):\n    ctypes.CDLL(None)", "ctypes"),
        ("def solve(x):\n    open('/etc/passwd').read()", "open"),
        ("def solve(x):\n    open('/tmp/left-behind', 'w')", "open"),
        ("import os\ndef solve(x):\n    os.listdir('/')", "os.listdir"),
        ("def solve(x):\n    bytearray(2 * 10**9)", "MemoryError"),
        ("def solve(x):\n    open('big', 'wb').write(b'x' * 10**7)", "File too large"),
        ("def solve(x:\n    return 1", "SyntaxError"),
        ("raise SystemExit", "SystemExit"),
        ("import os\nos._exit(0)", "ended early"),
        ("def other(x):\n    return 1", "KeyError"),
        ("def solve(x):\n    return object()", "TypeError"),
    ],
    ids=lambda value: value if len(value) < 20 else "",
)
def test_what_is_not_allowed_fails(source: str, error: str) -> None:
    assert error in run(source)


def test_an_endless_loop_is_ended() -> None:
    assert run("def solve(x):\n    while True:\n        pass", cpu_s=1)


def test_a_sleeper_is_ended() -> None:
    assert "time limit" in run("import time\ndef solve(x):\n    time.sleep(60)", wall_s=1.0)


def test_limits_cannot_be_raised_by_the_code() -> None:
    source = "import resource\ndef solve(x):\n    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)"
    assert "ValueError" in run(source) or "PermissionError" in run(source)


def test_no_environment_reaches_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE_KEY", "secret")
    (call,) = call_function("import os\ndef solve(x):\n    return sorted(os.environ)", "solve", [[1]])
    assert "PRIVATE_KEY" not in call.result


def test_what_the_code_prints_is_not_taken_for_its_result() -> None:
    source = "import sys\ndef solve(x):\n    print('{\"result\": 5}')\n    sys.stdout.flush()\n    return x"
    (call,) = call_function(source, "solve", [[1]])
    assert call.result == 1


def test_the_folder_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent.owner() == tmp_path.owner() and parent != Path("/"):
            os.chmod(parent, parent.stat().st_mode | 0o011)
    run("def solve(x):\n    open('left', 'w').write('x')")
    assert list(tmp_path.iterdir()) == []
