"""Line protocol: what decoding costs a reading, and the whole way through ``POST /write``, compaction included.

1,000 series in each request of 5,000 lines: one field a line, and ten. Decoding is measured in this process, the way of
the requests as in ``post_readings``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.load import request, send
from benchmarks.measure import Row, median, own_cpu_s
from benchmarks.post_readings import rest
from benchmarks.servers import TOKEN, meterite
from benchmarks.stores import START_US
from meterite.wire.line_protocol import decode_line_protocol

LINES = 5000
HOSTS = 1000
CONNECTIONS = 4
STEP_NS = 10 * 10**9
READINGS_MAX = 1_000_000


def run(*, full: bool) -> list[Row]:
    count, turns = (400, 5) if full else (100, 3)
    rows: list[Row] = []
    for what, fields in (("one field a line", 1), ("ten fields a line", 10)):
        decoding = median([_decoded(fields) for _ in range(7)])
        requests = max(1, count // fields)
        before, after = zip(*[_sent(fields, requests) for _ in range(turns)], strict=True)
        size = len(_body(np.random.default_rng(1), 0, fields)) // LINES
        readings = requests * LINES * fields / 1e6
        how = f"{HOSTS} hosts, lines of {size} bytes; median of {turns} servers, {readings:g} M readings each"
        rest_of_it = (
            f"{median(after):.2f} µs until the server rests; decoding is {decoding / median(before):.0%}"
        )
        rows += [
            Row(
                f"line protocol, {what}: CPU to decode a reading",
                decoding,
                "µs",
                note="plain Python, median of 7",
            ),
            Row(
                f"`POST /write`, {what}: CPU a reading",
                median(before),
                "µs",
                note=f"{how}; {rest_of_it}",
            ),
        ]
    return rows


def _decoded(fields: int) -> float:
    body = _body(np.random.default_rng(1), 0, fields)
    began = own_cpu_s()
    rounds = 0
    while own_cpu_s() - began < 0.3:
        decode_line_protocol(body, precision="ns", readings_max=READINGS_MAX)
        rounds += 1
    return (own_cpu_s() - began) / (rounds * LINES * fields) * 1e6


def _sent(fields: int, count: int) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    place = f"/write?x-auth-token={TOKEN}"
    requests = [request("POST", place, _body(rng, n, fields), TOKEN, "text/plain") for n in range(count)]
    with tempfile.TemporaryDirectory() as name, meterite(Path(name)) as server:
        for n in range(fields):
            server.ask("POST", "/metric/", {"code": f"cpu_{_field(n)}", "name": _field(n)})
        before = server.cpu_s()
        send(server.port, requests, connections=CONNECTIONS, total=count)
        answered = server.cpu_s() - before
        rested = rest(server) - before
    readings = count * LINES * fields
    return answered / readings * 1e6, rested / readings * 1e6


def _field(n: int) -> str:
    return f"usage_{n}"


def _body(rng: np.random.Generator, turn: int, fields: int) -> bytes:
    """Two-decimal values; each host's times go on from request to request."""
    each = LINES // HOSTS
    values = np.round(50 + 10 * rng.standard_normal((LINES, fields)), 2).tolist()
    lines = []
    for n in range(LINES):
        host = n % HOSTS
        at_ns = START_US * 1000 + (turn * each + n // HOSTS) * STEP_NS
        row = ",".join(f"{_field(k)}={value}" for k, value in enumerate(values[n]))
        lines.append(f"cpu,host=host-{host:04},rack=r{host % 7},region=eu-west {row} {at_ns}")
    return "\n".join(lines).encode()
