"""``POST /readings``: CPU of the server a reading, from the first request to the last answer, compaction included.

Columns come as one series of 5,000 readings a request and as 200 series of 25; rows as 5,000 objects over 200 series,
in JSON, in NDJSON and in CSV. What decoding takes of it is measured in this process, on one of the bodies.
Compaction runs by itself beside the requests; after the last answer the measuring goes on until the server rests, and
the figure with what it did then is reported beside the other.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.load import request, send
from benchmarks.measure import Row, median, own_cpu_s
from benchmarks.servers import TOKEN, Server, meterite
from benchmarks.stores import START_US
from meterite.wire.formats import CSV, JSON, NDJSON, readings_decoder

if TYPE_CHECKING:
    from collections.abc import Callable

READINGS = 5000
CONNECTIONS = 4
METRICS = 200
STEP_S = 10


def run(*, full: bool) -> list[Row]:
    count, turns = (1600, 7) if full else (400, 5)
    rows: list[Row] = []
    for what, make, media, bar in (
        ("columns, 1 × 5,000 a request", _one_series, JSON, 0.9),
        ("columns, 200 × 25 a request", _many_series, JSON, 0.9),
        ("rows of JSON, 5,000 a request", _rows, JSON, 2.0),
        ("NDJSON, 5,000 a request", _ndjson, NDJSON, None),
        ("CSV, 5,000 a request", _csv, CSV, None),
    ):
        before, after = zip(*[_measure(make, media, count) for _ in range(turns)], strict=True)
        decoding = _decoding(make, media)
        how = f"integer times; median of {turns} servers, {count * READINGS / 1e6:g} M readings each"
        rest = f"{median(after):.2f} µs until the server rests"
        share = f"decoding is {decoding:.2f} µs ({decoding / median(before):.0%})"
        note = f"{how}; {rest}; {share}"
        rows.append(Row(f"`POST /readings`, {what}: CPU a reading", median(before), "µs", bar, note=note))
    return rows


def _decoding(make: Callable[[np.random.Generator, int], object], media: str) -> float:
    made = make(np.random.default_rng(1), 0)
    body = made if isinstance(made, bytes) else json.dumps(made).encode()
    decode, figures = readings_decoder(media), []
    for _ in range(7):
        before, rounds = own_cpu_s(), 0
        while own_cpu_s() - before < 0.1:
            decode(body, precision="s", readings_max=READINGS)
            rounds += 1
        figures.append((own_cpu_s() - before) / (rounds * READINGS) * 1e6)
    return median(figures)


def _measure(
    make: Callable[[np.random.Generator, int], object], media: str, count: int
) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    requests = [request("POST", "/readings?precision=s", make(rng, n), TOKEN, media) for n in range(count)]
    with tempfile.TemporaryDirectory() as name, meterite(Path(name)) as server:
        for n in range(METRICS):
            server.ask("POST", "/metric/", {"code": f"M{n}", "name": f"Metric {n}"})
        before = server.cpu_s()
        send(server.port, requests, connections=CONNECTIONS, total=count)
        answered = server.cpu_s() - before
        rested = rest(server) - before
    return answered / (count * READINGS) * 1e6, rested / (count * READINGS) * 1e6


def rest(server: Server) -> float:
    """The server's CPU once a second passes in which it does next to nothing."""
    used = server.cpu_s()
    for _ in range(60):
        time.sleep(1.0)
        now = server.cpu_s()
        if now - used < 0.05:
            return now
        used = now
    return used


def _times(first: int, count: int) -> list[int]:
    start = START_US // 1_000_000
    return list(range(start + first * STEP_S, start + (first + count) * STEP_S, STEP_S))


def _values(rng: np.random.Generator, count: int) -> list[float]:
    values: list[float] = np.round(20 + np.cumsum(0.05 * rng.standard_normal(count)), 2).tolist()
    return values


def _one_series(rng: np.random.Generator, n: int) -> object:
    turn, metric = divmod(n, METRICS)
    return {
        "metric": f"M{metric}",
        "reading_at": _times(turn * READINGS, READINGS),
        "reading": _values(rng, READINGS),
    }


def _many_series(rng: np.random.Generator, n: int) -> object:
    each = READINGS // METRICS
    times = _times(n * each, each)
    return [{"metric": f"M{m}", "reading_at": times, "reading": _values(rng, each)} for m in range(METRICS)]


def _rows(rng: np.random.Generator, n: int) -> list[dict[str, object]]:
    each = READINGS // METRICS
    times = _times(n * each, each)
    values = _values(rng, READINGS)
    return [
        {"metric": f"M{m}", "reading": values[m * each + k], "reading_at": at}
        for k, at in enumerate(times)
        for m in range(METRICS)
    ]


def _ndjson(rng: np.random.Generator, n: int) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in _rows(rng, n))


def _csv(rng: np.random.Generator, n: int) -> bytes:
    lines = [f"{row['metric']},{row['reading']},{row['reading_at']}" for row in _rows(rng, n)]
    return "\n".join(["metric,reading,reading_at", *lines]).encode()
