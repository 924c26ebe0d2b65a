"""What the gateway adds to a stream of 84 events: time to the first token, CPU, and stalls between events."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

import uvloop

from tests.bench.canned import EVENTS, PAUSE_S, chat_body, http_request
from tests.bench.load import ask_in_turn, check, percentile
from tests.bench.processes import PRIOR, Server, bare_relay, gateway, mock_upstream
from tests.bench.report import Figure, Options

MODELS = {"burst": ("small", "mock-1"), "paced": ("paced", "mock-paced")}
PACED_CLIENTS = 8


@dataclass
class Measured:
    """One server's samples. Times in seconds, CPU in milliseconds a stream."""

    first: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    cpu_burst: list[float] = field(default_factory=list)
    cpu_paced: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


def run(options: Options) -> list[Figure]:
    """Two kinds: all events in one burst (as the figures of issue and peers are), and one event every 5 ms."""
    rounds, bursts, paced = options.scaled(4, 8), options.scaled(400, 1000), options.scaled(48, 160)
    with mock_upstream() as upstream, bare_relay(upstream) as relay, gateway(upstream, routing=PRIOR) as own:
        servers = (upstream, relay, own)
        found = {server.name: Measured() for server in servers}
        for server in servers:
            _burst(server, Measured(), 50)
        for _ in range(rounds):
            for server in servers:
                _burst(server, found[server.name], bursts)
            for server in servers:
                _paced(server, found[server.name], paced)
    return _figures(found["direct"], found["bare relay"], found["gateway"])


def _request(server: Server, kind: str) -> bytes:
    ours, theirs = MODELS[kind]
    body = chat_body(ours if server.name == "gateway" else theirs, stream=True)
    return http_request("/v1/chat/completions", body, key=server.key, port=server.port)


def _burst(server: Server, into: Measured, count: int) -> None:
    before = server.cpu_s()
    answers = uvloop.run(ask_in_turn(server.port, [_request(server, "burst")] * count))
    into.cpu_burst.append((server.cpu_s() - before) / count * 1e3)
    check(answers, EVENTS)
    into.first += [answer.first_s for answer in answers]
    into.total += [answer.total_s for answer in answers]


def _paced(server: Server, into: Measured, count: int) -> None:
    before = server.cpu_s()
    answers = uvloop.run(ask_in_turn(server.port, [_request(server, "paced")] * count, clients=PACED_CLIENTS))
    into.cpu_paced.append((server.cpu_s() - before) / count * 1e3)
    check(answers, EVENTS)
    into.gaps += [gap for answer in answers for gap in answer.gaps]


def _figures(direct: Measured, relay: Measured, own: Measured) -> list[Figure]:
    def added(name: str, share: float, bar: float | None, values: str = "first") -> Figure:
        base = percentile(getattr(direct, values), share)
        ours, theirs = (percentile(getattr(one, values), share) - base for one in (own, relay))
        return Figure(name, ours * 1e3, "ms", bar, relay=theirs * 1e3, direct=base * 1e3)

    def gap(share: float) -> Figure:
        ours, theirs, base = (percentile(one.gaps, share) * 1e3 for one in (own, relay, direct))
        note = f"upstream pauses {PAUSE_S * 1e3:g} ms, {PACED_CLIENTS} streams at a time"
        return Figure(f"gap between events p{share * 100:.0f}", ours, "ms", None, theirs, base, note=note)

    return [
        added("added time to first token p50", 0.5, 2.0),
        added("added time to first token p95", 0.95, None),
        added("added time of a whole stream p50", 0.5, None, "total"),
        Figure("CPU per 84-event stream, sent at once", median(own.cpu_burst), "ms", 3.0, median(relay.cpu_burst)),
        Figure(
            "CPU per 84-event stream, event by event",
            median(own.cpu_paced),
            "ms",
            None,
            median(relay.cpu_paced),
            note="84 reads and 84 writes; no bar, the relay is the measure",
        ),
        gap(0.5),
        gap(0.99),
    ]
