"""Text exposition: what decoding costs a reading, the whole way of an import, and a push beside Debian's Pushgateway.

An import is 1,000 series in 5,000 lines with times; a push is one gauge, or five as a client library writes them, of
one of 320 groups, over 32 connections, to two servers by turns: the Pushgateway answers from memory, here it is on
disk.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.load import request, send
from benchmarks.measure import Row, median, own_cpu_s
from benchmarks.servers import TOKEN, Server, meterite, peer
from benchmarks.stores import START_US
from meterite.wire.exposition import decode_exposition
from meterite.wire.names import Names

LINES: Final = 5000
SERIES: Final = 1000
CONNECTIONS: Final = 32
GROUPS: Final = 320
CODE: Final = "http_requests_total"
BAR: Final = 0.2
_ONE: Final = b"some_metric 3.14\n"
_FIVE: Final = b"".join(
    b"# HELP job_%b What the job says of itself.\n# TYPE job_%b gauge\njob_%b %d\n" % (name, name, name, n)
    for n, name in enumerate((b"last_success", b"seconds", b"rows", b"bytes", b"errors"))
)
PUSHGATEWAY: Final = ("prometheus-pushgateway", "--web.listen-address=127.0.0.1:{port}")


def run(*, full: bool) -> list[Row]:
    count, turns, pushes = (400, 5, 20_000) if full else (100, 3, 4_000)
    bodies = [_body(np.random.default_rng(1), n) for n in range(count)]
    decoding = median([_decoded(bodies[0]) for _ in range(7)])
    whole = median([_imported(bodies) for _ in range(turns)])
    how = f"{CONNECTIONS} connections, {GROUPS} groups, median of {turns + 2} rounds of {pushes:,} by turns"
    return [
        Row(
            "text exposition: CPU to decode a reading",
            decoding,
            "µs",
            note="plain Python, names known, median of 7",
        ),
        Row(
            "`POST /api/v1/import/prometheus`: CPU a reading",
            whole,
            "µs",
            note=f"{SERIES:,} series, median of {turns} servers, {count * LINES / 1e6:g} M readings each; "
            f"decoding is {decoding / whole:.0%}",
        ),
        *_pushes("one gauge", _ONE, pushes, turns + 2, how),
        *_pushes("five gauges, described", _FIVE, pushes, turns + 2, how),
    ]


def _pushes(what: str, body: bytes, total: int, rounds: int, how: str) -> list[Row]:
    theirs, ours = _pushed(body, total, rounds)
    ratio = median([a / b for a, b in zip(ours, theirs, strict=True)])
    return [
        Row(f"text exposition push of {what}: CPU ÷ Pushgateway's", ratio, "×", BAR, note=how),
        Row(f"text exposition push of {what}, CPU", median(ours), "µs"),
        Row("Pushgateway, the same, CPU", median(theirs), "µs", note="not on disk when it answers"),
    ]


def _body(rng: np.random.Generator, turn: int) -> bytes:
    values = np.round(50 + 10 * rng.standard_normal(LINES), 2).tolist()
    return "\n".join(
        f'{CODE}{{code="200",instance="host-{n % SERIES}:9100",job="node",method="post"}} {value}'
        f" {START_US // 1000 + (turn * (LINES // SERIES) + n // SERIES) * 10_000}"
        for n, value in enumerate(values)
    ).encode()


def _decoded(body: bytes) -> float:
    began, rounds, names = own_cpu_s(), 0, Names()
    while own_cpu_s() - began < 0.3:
        decode_exposition(body, readings_max=LINES, names=names)
        rounds += 1
    return (own_cpu_s() - began) / (rounds * LINES) * 1e6


def _imported(bodies: list[bytes]) -> float:
    requests = [request("POST", "/api/v1/import/prometheus", body, TOKEN, "text/plain") for body in bodies]
    with tempfile.TemporaryDirectory() as name, meterite(Path(name)) as server:
        server.ask("POST", "/metric/", {"code": CODE, "name": "n"})
        before = server.cpu_s()
        send(server.port, requests, connections=4, total=len(requests))
        return (server.cpu_s() - before) / (len(requests) * LINES) * 1e6


def _pushed(body: bytes, total: int, rounds: int) -> tuple[list[float], list[float]]:
    """µs a push at the Pushgateway, and here."""
    requests = text_pushes(body)
    found: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        places = [Path(name) / part for part in ("theirs", "ours")]
        for place in places:
            place.mkdir()
        servers = (
            stack.enter_context(peer(PUSHGATEWAY, places[0], "/-/ready")),
            stack.enter_context(meterite(places[1])),
        )
        for server in servers:
            _push(server, requests, GROUPS)
        for _ in range(rounds):
            for server, figures in zip(servers, found, strict=True):
                figures.append(_push(server, requests, total))
    return found


def text_pushes(body: bytes = _ONE) -> list[bytes]:
    """One to each group."""
    return [
        request("POST", f"/metrics/job/j/instance/i{n}", body, TOKEN, "text/plain") for n in range(GROUPS)
    ]


def _push(server: Server, requests: list[bytes], total: int) -> float:
    before = server.cpu_s()
    send(server.port, requests, connections=CONNECTIONS, total=total)
    return (server.cpu_s() - before) / total * 1e6
