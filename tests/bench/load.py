"""The load tool: raw asyncio connections that send fixed bytes and note when each piece of the answer arrives."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

WRK = shutil.which("wrk")


@dataclass(slots=True)
class Answer:
    """One answer. Times in seconds since the request was sent; `arrivals` has one for each piece of the body."""

    status: int = 0
    arrivals: list[float] = field(default_factory=list)
    events: int = 0
    total_s: float = 0.0

    @property
    def first_s(self) -> float:
        """Until the first piece of the body."""
        return self.arrivals[0] if self.arrivals else self.total_s

    @property
    def gaps(self) -> list[float]:
        """Between one piece and the next."""
        return [later - sooner for sooner, later in zip(self.arrivals, self.arrivals[1:], strict=False)]


class Client(asyncio.Protocol):
    """One keep-alive connection that has one request in flight at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answer = Answer()
        self._done: asyncio.Future[Answer] | None = None
        self._sent = 0.0
        self._head = b""
        self._length: int | None = None
        self._received = 0
        self._tail = b""
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for the end of its answer. Raises ConnectionError."""
        assert self.transport is not None
        self._answer, self._head, self._tail = Answer(), b"", b""
        self._length, self._received, self._in_body = None, 0, False
        self._done = asyncio.get_running_loop().create_future()
        self._sent = time.perf_counter()
        self.transport.write(request)
        return await self._done

    async def begin(self, request: bytes, pause_s: float) -> None:
        """Send a request and leave after `pause_s`, whatever has come by then."""
        assert self.transport is not None
        self.transport.write(request)
        await asyncio.sleep(pause_s)
        self.transport.abort()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter() - self._sent
        if not self._in_body:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = self._head[end + 4 :]
            self._read_head(self._head[:end])
        if data:
            self._answer.arrivals.append(now)
            self._answer.events += data.count(b"data: ")
            self._received += len(data)
        if self._length is None:
            self._tail = (self._tail + data)[-5:]
            ended = self._tail == b"0\r\n\r\n"
        else:
            ended = self._received >= self._length
        if ended and self._done is not None and not self._done.done():
            self._answer.total_s = now
            self._done.set_result(self._answer)

    def _read_head(self, head: bytes) -> None:
        self._in_body = True
        self._answer.status = int(head[9:12])
        found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        self._length = int(found.group(1)) if found else None


async def connect(port: int) -> Client:
    """A fresh connection."""
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def ask_in_turn(port: int, requests: Sequence[bytes], *, clients: int = 1) -> list[Answer]:
    """All answers, asked by `clients` connections at a time, each waiting for its answer before it asks again."""
    waiting = deque(requests)
    answers: list[Answer] = []

    async def work() -> None:
        client = await connect(port)
        while waiting:
            answers.append(await client.ask(waiting.popleft()))
        client.close()

    await asyncio.gather(*(work() for _ in range(clients)))
    return answers


def check(answers: Sequence[Answer], events: int | None = None) -> None:
    """A measurement of wrong answers is none. Raises RuntimeError."""
    bad = [answer.status for answer in answers if answer.status != 200]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(answers)} answers were no 200 but {sorted(set(bad))}")
    if events is not None and any(answer.events != events for answer in answers):
        raise RuntimeError(f"a stream did not have {events} events")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def throughput(port: int, body: bytes, key: str | None, *, clients: int, seconds: float) -> tuple[float, int]:
    """Requests a second and the number of requests, by `wrk`. Raises RuntimeError where an answer was no 200."""
    assert WRK is not None
    headers = ["content-type: application/json", *([f"authorization: Bearer {key}"] if key else [])]
    script = f'wrk.method = "POST"\nwrk.body = [==[{body.decode()}]==]\n'
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = [WRK, "-t1", f"-c{clients}", f"-d{seconds:g}s", "-s", str(Path(file.name))]
        for header in headers:
            command += ["-H", header]
        out = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/v1/chat/completions"], capture_output=True, text=True, check=True
        ).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    count = re.search(r"(\d+) requests in", out)
    assert rate is not None
    assert count is not None
    return float(rate.group(1)), int(count.group(1))
