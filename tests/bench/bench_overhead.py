"""What the gateway adds to a unary request: CPU, latency with one client, throughput with sixteen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import uvloop

from tests.bench.canned import chat_body, http_request
from tests.bench.load import WRK, ask_in_turn, check, percentile, throughput
from tests.bench.processes import PRIOR, Server, bare_relay, gateway, mock_upstream
from tests.bench.report import Figure, Options

CLIENTS = 16


@dataclass
class Measured:
    """One server's samples over all rounds. Latencies in seconds."""

    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu_one: list[float] = field(default_factory=list)
    cpu_many: list[float] = field(default_factory=list)

    def at(self, share: float) -> float:
        """Latency percentile in milliseconds."""
        return percentile(self.latencies, share) * 1e3


def run(options: Options) -> list[Figure]:
    """Rounds over direct, relay and gateway in turn, so that a disturbance of the machine hits all three."""
    rounds, count = options.scaled(4, 8), options.scaled(1000, 3000)
    seconds = float(options.scaled(3, 8))
    with mock_upstream() as upstream, bare_relay(upstream) as relay, gateway(upstream, routing=PRIOR) as own:
        found = {server.name: Measured() for server in (upstream, relay, own)}
        for server in (relay, own):
            uvloop.run(ask_in_turn(server.port, [_request(server)] * 300, clients=CLIENTS))
        for _ in range(rounds):
            for server in (upstream, relay, own):
                _one_client(server, found[server.name], count)
            for server in (upstream, relay, own):
                _many_clients(server, found[server.name], seconds)
    return _figures(found["direct"], found["bare relay"], found["gateway"])


def _request(server: Server) -> bytes:
    return http_request("/v1/chat/completions", _body(server), key=server.key, port=server.port)


def _body(server: Server) -> bytes:
    return chat_body("small" if server.name == "gateway" else "mock-1")


def _one_client(server: Server, into: Measured, count: int) -> None:
    before = server.cpu_s()
    answers = uvloop.run(ask_in_turn(server.port, [_request(server)] * count))
    into.cpu_one.append((server.cpu_s() - before) / count * 1e3)
    check(answers)
    into.latencies += [answer.total_s for answer in answers]


def _many_clients(server: Server, into: Measured, seconds: float) -> None:
    before = server.cpu_s()
    if WRK is not None:
        rate, count = throughput(server.port, _body(server), server.key, clients=CLIENTS, seconds=seconds)
    else:
        rate, count = _own_tool(server, seconds)
    into.rates.append(rate)
    into.cpu_many.append((server.cpu_s() - before) / count * 1e3)


def _own_tool(server: Server, seconds: float) -> tuple[float, int]:
    import time

    count = int(seconds * 600)
    began = time.perf_counter()
    check(uvloop.run(ask_in_turn(server.port, [_request(server)] * count, clients=CLIENTS)))
    return count / (time.perf_counter() - began), count


def _figures(direct: Measured, relay: Measured, own: Measured) -> list[Figure]:
    tool = "wrk" if WRK is not None else "own load tool"

    def added(share: float, bar: float | None = None) -> Figure:
        base = direct.at(share)
        return Figure(
            f"added latency p{share * 100:.0f}, 1 client",
            own.at(share) - base,
            "ms",
            bar,
            relay=relay.at(share) - base,
            direct=base,
        )

    def cpu(name: str, of: Callable[[Measured], list[float]]) -> Figure:
        values = of(own)
        spread = f"{min(values):.2f} to {max(values):.2f} in {len(values)} rounds"
        return Figure(name, median(values), "ms", 1.2, relay=median(of(relay)), note=spread)

    return [
        cpu("CPU per request, 1 client", lambda one: one.cpu_one),
        cpu(f"CPU per request, {CLIENTS} clients", lambda one: one.cpu_many),
        added(0.5, 1.5),
        added(0.95),
        added(0.99),
        Figure(
            f"requests per second, {CLIENTS} clients",
            median(own.rates),
            "1/s",
            700,
            relay=median(relay.rates),
            direct=median(direct.rates),
            more_is_better=True,
            note=f"{tool}; {min(own.rates):.0f} to {max(own.rates):.0f}",
        ),
    ]
