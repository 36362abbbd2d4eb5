"""A durable push of one reading: the server's CPU against a no-op route and the obvious design.

Through the fast door (``meterite serve``), as ``POST /metric/{code}`` and as a line of line protocol, and under an
uvicorn that knows nothing of it; and a line to InfluxDB 1 (Debian's package ``influxdb``), by turns.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load import Load, request, send
from benchmarks.measure import Row, median
from benchmarks.servers import TOKEN, Server, meterite, peer, uvicorn

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = 32
METRICS = 10
INFLUX_BAR = 0.7
INFLUX = (
    "env",
    "INFLUXDB_REPORTING_DISABLED=true",
    "INFLUXDB_BIND_ADDRESS=127.0.0.1:0",
    "INFLUXDB_META_DIR={directory}/meta",
    "INFLUXDB_DATA_DIR={directory}/data",
    "INFLUXDB_DATA_WAL_DIR={directory}/wal",
    "INFLUXDB_DATA_QUERY_LOG_ENABLED=false",
    "INFLUXDB_HTTP_BIND_ADDRESS=127.0.0.1:{port}",
    "INFLUXDB_HTTP_LOG_ENABLED=false",
    "INFLUXDB_MONITOR_STORE_ENABLED=false",
    "influxd",
    "run",
)


def run(*, full: bool) -> list[Row]:
    total, rounds = (40_000, 9) if full else (10_000, 5)
    requests, lines = metric_pushes(), line_pushes()
    noop: list[float] = []
    fast: list[float] = []
    fast_per_s: list[float] = []
    line: list[float] = []
    line_per_s: list[float] = []
    plain: list[float] = []
    plain_per_s: list[float] = []
    obvious_per_s: list[float] = []
    obvious: list[float] = []
    influx: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        directory = [Path(name) / part for part in ("noop", "fast", "plain", "obvious", "influx")]
        for part in directory:
            part.mkdir()
        with (
            uvicorn("benchmarks.baseline_noop:app", directory[0]) as a,
            meterite(directory[1]) as b,
            uvicorn("meterite.app:app", directory[2]) as c,
            uvicorn("benchmarks.baseline_obvious:app", directory[3]) as d,
            peer(INFLUX, directory[4], "/query?q=SHOW+DATABASES") as e,
        ):
            e.ask("POST", "/query?q=CREATE+DATABASE+b")
            for server in (b, c, d):
                create_metrics(server)
            for server in (a, b, c, d):  # what is done once a process isn't a request's cost
                _measure(server, requests, 500)
            _measure(b, lines, 500)
            _measure(e, lines, 500)
            for _ in range(rounds):
                noop.append(_measure(a, requests, total)[0])
                _into(fast, fast_per_s, _measure(b, requests, total))
                _into(line, line_per_s, _measure(b, lines, total))
                influx.append(_measure(e, lines, total)[0])
                _into(plain, plain_per_s, _measure(c, requests, total))
                _into(obvious, obvious_per_s, _measure(d, requests, total // 10))
    how = f"{CONNECTIONS} connections, median of {rounds} rounds of {total:,}"
    return [
        Row(
            "single push, fast door, CPU of the server ÷ no-op route", _ratio(fast, noop), "×", 0.6, note=how
        ),
        Row("a line to `/write`, fast door, CPU ÷ no-op route", _ratio(line, noop), "×", 0.6),
        Row("a line to `/write`, fast door, CPU ÷ InfluxDB's", _ratio(line, influx), "×", INFLUX_BAR),
        Row("single push, fast door, CPU ÷ a line's at InfluxDB", _ratio(fast, influx), "×", INFLUX_BAR),
        Row("single push, fast door, a second", median(fast_per_s), "", 15_000, at_least=True),
        Row("a line to `/write`, fast door, a second", median(line_per_s), "", 15_000, at_least=True),
        Row("single push, any server, CPU of the server ÷ no-op route", _ratio(plain, noop), "×", 1.2),
        Row(
            "single push, throughput ÷ obvious design",
            _ratio(fast_per_s, obvious_per_s),
            "×",
            5,
            at_least=True,
        ),
        Row("single push, fast door, CPU", median(fast), "µs"),
        Row("a line to `/write`, fast door, CPU", median(line), "µs"),
        Row("single push, any server, CPU", median(plain), "µs", note=f"{median(plain_per_s):,.0f} a second"),
        Row("no-op Starlette route, CPU", median(noop), "µs"),
        Row("a line to InfluxDB, CPU", median(influx), "µs"),
        Row("obvious design, CPU", median(obvious), "µs", note=f"{median(obvious_per_s):,.0f} a second"),
    ]


def metric_pushes() -> list[bytes]:
    """To each of the metrics that ``create_metrics`` makes."""
    return [
        request("POST", f"/metric/W{n % METRICS}", {"reading": round(20 + n * 0.01, 2)}, TOKEN)
        for n in range(CONNECTIONS * 10)
    ]


def line_pushes() -> list[bytes]:
    """The same as lines."""
    return [
        request(
            "POST", "/write?db=b", f"W{n % METRICS} value={20 + n * 0.01:.2f}\n".encode(), TOKEN, "text/plain"
        )
        for n in range(CONNECTIONS * 10)
    ]


def _into(cpu_us: list[float], per_s: list[float], measured: tuple[float, Load]) -> None:
    cpu_us.append(measured[0])
    per_s.append(measured[1].per_s)


def create_metrics(server: Server) -> None:
    for n in range(METRICS):
        server.ask("POST", "/metric/", {"code": f"W{n}", "name": f"Benchmark {n}"})


def _measure(server: Server, requests: Sequence[bytes], total: int) -> tuple[float, Load]:
    before = server.cpu_s()
    load = send(server.port, requests, connections=CONNECTIONS, total=total)
    return (server.cpu_s() - before) / total * 1e6, load


def _ratio(some: Sequence[float], others: Sequence[float]) -> float:
    return median([a / b for a, b in zip(some, others, strict=True)])
