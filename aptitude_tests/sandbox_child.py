"""Runs inside the sandbox, as a script of its own: calls one function of untrusted source on given inputs.

Reads one JSON object from standard input, writes one JSON line per call to the file descriptor it had as standard
output. The expected results are not here: the caller compares, so that the source cannot read them.
"""

import builtins
import json
import os
import resource
import sys
from typing import Any

DENIED_EVENTS = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.kill",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.putenv",
    "ctypes.",
    "pty.",
    "signal.",
    "urllib.",
    "shutil.",
)


def limit_resources(cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Hard limits on this process; they cannot be raised again."""
    for name, value in (
        ("RLIMIT_CPU", cpu_s),
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_FSIZE", file_bytes),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 32),
        ("RLIMIT_NPROC", 1),
        ("RLIMIT_STACK", 64 * 2**20),
    ):
        limit = getattr(resource, name, None)
        if limit is not None:
            try:
                resource.setrlimit(limit, (value, value))
            except (ValueError, OSError):
                resource.setrlimit(limit, (min(value, resource.getrlimit(limit)[1]),) * 2)


def guard_calls(folder: str) -> None:
    """A second wall behind the kernel's: no sockets, no programs, files only in the folder and Python's library."""
    library = tuple({os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix), os.path.dirname(os.__file__)})

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(DENIED_EVENTS):
            raise PermissionError(f"{event} is not allowed here")
        if event in ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir"):
            name = arguments[0]
            if isinstance(name, int) or name is None:
                return
            path = os.path.realpath(os.fsdecode(name))
            own = path == folder or path.startswith(folder + os.sep)
            mode = arguments[1] if event == "open" and len(arguments) > 1 else "r"
            flags = arguments[2] if event == "open" and len(arguments) > 2 and isinstance(arguments[2], int) else 0
            reading = event in ("open", "os.listdir", "os.scandir") and not (
                (isinstance(mode, str) and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR)
            )
            if not own and not (reading and path.startswith(library)):
                raise PermissionError(f"{event} of {path!r} is not allowed here")

    sys.addaudithook(refuse)


def main() -> None:
    """Read the job, close the doors, make the calls."""
    job = json.loads(sys.stdin.buffer.read())
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    limit_resources(job["cpu_s"], job["memory_bytes"], job["file_bytes"])
    guard_calls(os.path.realpath(os.getcwd()))

    def say(record: dict[str, Any]) -> None:
        out.write(json.dumps(record).encode() + b"\n")

    space: dict[str, Any] = {"__name__": "answer", "__builtins__": builtins}
    try:
        exec(compile(job["source"], "answer.py", "exec"), space)  # noqa: S102 - running it is what the sandbox is for
        function = space[job["function"]]
    except BaseException as error:  # whatever the code raises, `SystemExit` too, is its answer
        say({"error": f"{type(error).__name__}: {error}"[:200]})
        return
    for arguments in job["inputs"]:
        try:
            say({"result": function(*arguments)})
        except BaseException as error:
            say({"error": f"{type(error).__name__}: {error}"[:200]})


main()
