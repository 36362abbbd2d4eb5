"""A durable push of one reading: the server's CPU against a no-op route and the obvious design."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load import Load, request, send
from benchmarks.measure import Row, median
from benchmarks.servers import TOKEN, Server, meterite, uvicorn

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = 32
METRICS = 10


def run(*, full: bool) -> list[Row]:
    total, rounds = (40_000, 9) if full else (10_000, 5)
    requests = _requests()
    noop: list[float] = []
    ours: list[float] = []
    ours_per_s: list[float] = []
    obvious_per_s: list[float] = []
    obvious: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        directory = [Path(name) / part for part in ("noop", "ours", "obvious")]
        for part in directory:
            part.mkdir()
        with (
            uvicorn("benchmarks.baseline_noop:app", directory[0]) as a,
            meterite(directory[1]) as b,
            uvicorn("benchmarks.baseline_obvious:app", directory[2]) as c,
        ):
            for server in (b, c):
                _create(server)
            for server in (a, b, c):  # what is done once a process isn't a request's cost
                _measure(server, requests, 500)
            for _ in range(rounds):
                noop.append(_measure(a, requests, total)[0])
                cpu_us, load = _measure(b, requests, total)
                ours.append(cpu_us)
                ours_per_s.append(load.per_s)
                cpu_us, load = _measure(c, requests, total // 10)
                obvious.append(cpu_us)
                obvious_per_s.append(load.per_s)
    how = f"{CONNECTIONS} connections, median of {rounds} rounds of {total:,}"
    return [
        Row("single push, CPU of the server ÷ no-op route", _ratio(ours, noop), "×", 1.2, note=how),
        Row(
            "single push, throughput ÷ obvious design",
            _ratio(ours_per_s, obvious_per_s),
            "×",
            5,
            at_least=True,
        ),
        Row("single push, CPU of the server", median(ours), "µs", note=f"{median(ours_per_s):,.0f} a second"),
        Row("no-op Starlette route, CPU", median(noop), "µs"),
        Row("obvious design, CPU", median(obvious), "µs", note=f"{median(obvious_per_s):,.0f} a second"),
    ]


def _requests() -> list[bytes]:
    return [
        request("POST", f"/metric/W{n % METRICS}", {"reading": round(20 + n * 0.01, 2)}, TOKEN)
        for n in range(CONNECTIONS * 10)
    ]


def _create(server: Server) -> None:
    for n in range(METRICS):
        server.ask("POST", "/metric/", {"code": f"W{n}", "name": f"Benchmark {n}"})


def _measure(server: Server, requests: Sequence[bytes], total: int) -> tuple[float, Load]:
    before = server.cpu_s()
    load = send(server.port, requests, connections=CONNECTIONS, total=total)
    return (server.cpu_s() - before) / total * 1e6, load


def _ratio(some: Sequence[float], others: Sequence[float]) -> float:
    return median([a / b for a, b in zip(some, others, strict=True)])
