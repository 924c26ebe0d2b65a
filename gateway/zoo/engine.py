"""`EngineProcess`: the local engine as a child that is watched, restarted with growing pauses, and stopped with us.

We hold the listening socket and hand it down: while the engine loads or comes back, requests wait in the socket's
queue instead of being refused, and its address never changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import aiohttp

log = logging.getLogger(__name__)
State = Literal["stopped", "loading", "ready", "failed"]
BACKLOG = 512
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
MOST_FAILED_STARTS = 5
STOP_S = 5.0
LOG_TAIL = 800
MODULE = "merge_backends.zoo.serve"


def engine_command(cache: Path) -> list[str]:
    """How the engine with the bundled zoo is started; the socket's file descriptor is appended as `--fd N`."""
    return [sys.executable, "-m", MODULE, "--cache", str(cache), "--parent", str(os.getpid())]


class EngineProcess:
    """One engine. Belongs to one event loop.

    Args:
        command: starts it; `--fd N` is appended.
        log_file: takes its output; emptied at every start.
        environment: of the child.
        on_change: called on the event loop when `state` changes.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_file: Path,
        environment: Mapping[str, str],
        on_change: Callable[[State], None] = lambda state: None,
    ) -> None:
        self._command, self._log_file, self._environment = tuple(command), log_file, dict(environment)
        self._on_change = on_change
        self._socket: socket.socket | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.state: State = "stopped"

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return None if self._child is None or self._child.returncode is not None else self._child.pid

    def start(self) -> str:
        """Begin to start it; gives the base URL, where requests may be sent at once."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
        self._socket = listener
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="zoo engine")
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    async def close(self) -> None:
        """Stop it: politely, then not."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await self._stop_child()
        self._drop_socket()
        self._set("stopped")

    async def _watch(self) -> None:
        pause, failed_starts = FIRST_PAUSE_S, 0
        while True:
            self._set("loading")
            ready = asyncio.create_task(self._until_ready())
            try:
                code = await self._run_once()
            finally:
                ready.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ready
            if self.state == "ready":
                pause, failed_starts = FIRST_PAUSE_S, 0
            else:
                failed_starts += 1
            log.error("The zoo's engine ended with code %s: %s", code, self._last_words())
            if failed_starts >= MOST_FAILED_STARTS:
                log.error("The zoo's engine did not start %d times in a row and is left alone.", failed_starts)
                self._drop_socket()
                self._set("failed")
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _run_once(self) -> int:
        assert self._socket is not None
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = self._socket.fileno()
        with self._log_file.open("wb") as output:
            # A session of its own: Ctrl-C reaches us alone, and we end it once our streams have drained.
            self._child = await asyncio.create_subprocess_exec(
                *self._command,
                "--fd",
                str(descriptor),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        return await self._child.wait()

    async def _until_ready(self) -> None:
        """Ask until it answers; the question itself waits in the socket's queue."""
        assert self._socket is not None
        url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/healthz"
        async with aiohttp.ClientSession(trust_env=False) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with session.get(url, timeout=aiohttp.ClientTimeout(total=300)) as reply:
                        if reply.status == 200:
                            self._set("ready")
                            return
                await asyncio.sleep(0.1)

    async def _stop_child(self) -> None:
        child = self._child
        if child is None or child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _last_words(self) -> str:
        try:
            return self._log_file.read_text("utf-8", errors="replace")[-LOG_TAIL:].strip() or "it said nothing"
        except OSError:
            return "its log cannot be read"

    def _set(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._on_change(state)
