"""A push by who ends the connection after it, as curl and Python's Pushgateway client do: the server's CPU.

By turns: a line of line protocol here and to InfluxDB 1, ``POST /metric/{code}``, and one gauge of text here and to a
Pushgateway (both Debian's packages), which answers from memory.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.exposition import PUSHGATEWAY, text_pushes
from benchmarks.load import ending, send
from benchmarks.measure import Row, median
from benchmarks.servers import Server, meterite, peer
from benchmarks.single_push import CONNECTIONS, INFLUX, create_metrics, line_pushes, metric_pushes


def run(*, full: bool) -> list[Row]:
    total, rounds = (20_000, 9) if full else (4_000, 5)
    lines, metrics, texts = ending(line_pushes()), ending(metric_pushes()), ending(text_pushes())
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        places = [Path(name) / part for part in ("ours", "influx", "pushgateway")]
        for place in places:
            place.mkdir()
        ours = stack.enter_context(meterite(places[0]))
        influx = stack.enter_context(peer(INFLUX, places[1], "/query?q=SHOW+DATABASES"))
        gateway = stack.enter_context(peer(PUSHGATEWAY, places[2], "/-/ready"))
        create_metrics(ours)
        influx.ask("POST", "/query?q=CREATE+DATABASE+b")
        turns = ((ours, lines), (influx, lines), (ours, metrics), (ours, texts), (gateway, texts))
        for server, requests in turns:
            _measure(server, requests, 640)
        found = [[_measure(server, requests, total) for server, requests in turns] for _ in range(rounds)]
    line, line_influx, metric, text, text_gateway = (list(each) for each in zip(*found, strict=True))
    how = f"a connection a push, {CONNECTIONS} at a time, median of {rounds} rounds of {total:,} by turns"
    return [
        Row(
            "a line to `/write`, a connection each, CPU ÷ InfluxDB's",
            _ratio(line, line_influx),
            "×",
            note=how,
        ),
        Row("a line to `/write`, a connection each, CPU", median(line), "µs"),
        Row("single push, a connection each, CPU", median(metric), "µs"),
        Row("text push, a connection each, CPU ÷ Pushgateway's", _ratio(text, text_gateway), "×", 0.2),
        Row("text push, a connection each, CPU", median(text), "µs"),
    ]


def _measure(server: Server, requests: list[bytes], total: int) -> float:
    before = server.cpu_s()
    send(server.port, requests, connections=CONNECTIONS, total=total)
    return (server.cpu_s() - before) / total * 1e6


def _ratio(some: list[float], others: list[float]) -> float:
    return median([a / b for a, b in zip(some, others, strict=True)])
