"""Runs code that a model wrote: own process, own empty folder, no environment, no network, bounded in all it uses.

The kernel's walls are the strongest the machine permits: another user where we are root, and new user, network,
process and IPC namespaces through `unshare`. Behind them stand resource limits and an audit hook in the child, which
alone hold where namespaces are not permitted: an audit hook is a hindrance, not a wall, so `isolation()` says which.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

_CHILD = Path(__file__).with_name("sandbox_child.py")
_NOBODY = 65534
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--ipc", "--fork", "--kill-child")
_MAX_OUTPUT = 2 * 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use. `wall_s` covers the start of Python too."""

    wall_s: float = 8.0
    cpu_s: int = 4
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 2**20


@dataclass(frozen=True, slots=True)
class Call:
    """Outcome of one call: a JSON value, or the error in one line."""

    result: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Isolation:
    level: Literal["namespaces", "limits"]
    prefix: tuple[str, ...]
    user: int | None


def isolation() -> Literal["namespaces", "limits"]:
    """What keeps the code in: kernel namespaces, or resource limits and an audit hook only."""
    return _strongest_isolation().level


def call_function(
    source: str, function: str, inputs: Sequence[Sequence[Any]], limits: Limits | None = None
) -> list[Call]:
    """Call `function` of the untrusted `source` once per entry of `inputs` (JSON values, positional arguments).

    Returns:
        one outcome per input; those after a crash or a limit carry its error. Blocks; run it in a thread.
    """
    limits = limits or Limits()
    job = {"source": source, "function": function, "inputs": inputs} | {
        name: getattr(limits, name) for name in ("cpu_s", "memory_bytes", "file_bytes")
    }
    ended, lines = _run_child(json.dumps(job).encode(), limits.wall_s)
    calls = [call for call in map(_read_line, lines) if call is not None][: len(inputs)]
    if len(calls) == 1 and calls[0].error is not None:
        ended = calls.pop().error or ended
    return calls + [Call(error=ended)] * (len(inputs) - len(calls))


def _read_line(line: bytes) -> Call | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    error = record.get("error")
    return Call(result=record.get("result"), error=None if error is None else str(error))


def _run_child(job: bytes, wall_s: float) -> tuple[str, list[bytes]]:
    """How the run ended, in words, and the lines it wrote. The whole process group is killed at the end."""
    walls = _strongest_isolation()
    with tempfile.TemporaryDirectory(prefix="orbweaver-code-") as folder:
        home = Path(folder, "work")
        home.mkdir()
        script = Path(folder, "child.py")
        shutil.copyfile(_CHILD, script)
        if walls.user is not None:
            for path in (Path(folder), home, script):
                os.chown(path, walls.user, walls.user)
        output = Path(folder, "output")
        with output.open("wb") as sink:
            process = _spawn(walls, script, home, sink)
            try:
                process.communicate(job, timeout=wall_s)
                ended = f"the code ended early (status {process.returncode})"
            except subprocess.TimeoutExpired:
                ended = f"time limit of {wall_s:g} s"
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.wait()
                if process.stdin:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()
        with output.open("rb") as written:
            return ended, written.read(_MAX_OUTPUT).splitlines()


def _spawn(walls: _Isolation, script: Path, folder: Path, sink: Any) -> subprocess.Popen[bytes]:
    command = [*walls.prefix, _python(), "-I", "-S", "-B", "-X", "utf8", str(script)]
    identity: dict[str, Any] = {}
    if walls.user is not None:
        identity = {"user": walls.user, "group": walls.user, "extra_groups": []}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=sink,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={},
        start_new_session=True,
        close_fds=True,
        **identity,
    )


def _python() -> str:
    """The interpreter behind the virtual environment, which other users can run."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@lru_cache(maxsize=1)
def _strongest_isolation() -> _Isolation:
    """The first set of walls under which a trivial program runs; asked once per process."""
    unshare = shutil.which(_UNSHARE[0])
    prefix = (unshare, *_UNSHARE[1:]) if unshare else None
    users = (_NOBODY, None) if os.geteuid() == 0 else (None,)
    choices = [_Isolation("namespaces", prefix, user) for user in users] if prefix else []
    choices += [_Isolation("limits", (), user) for user in users]
    for walls in choices[:-1]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                if walls.user is not None:
                    os.chown(folder, walls.user, walls.user)
                script = Path(folder, "probe.py")
                script.write_text("raise SystemExit(7)")
                script.chmod(0o644)
                process = _spawn(walls, script, Path(folder), subprocess.DEVNULL)
                process.communicate(timeout=10)
            if process.returncode == 7:
                return walls
        except (OSError, subprocess.SubprocessError):
            continue
    return choices[-1]
