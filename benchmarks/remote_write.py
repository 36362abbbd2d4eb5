"""Prometheus' remote write 1.0: CPU of the server a reading up to the answer, beside two peers.

Prometheus' own receiver, VictoriaMetrics and Meterite get the same bodies over one connection, each in a process of
its own that is new each turn, by turns. A first part of the requests, in which series are new, isn't measured. What
decoding takes is measured on the same bodies in this process.
"""

from __future__ import annotations

import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cramjam import snappy

from benchmarks.load import request, send
from benchmarks.measure import Row, median, own_cpu_s
from benchmarks.servers import TOKEN, Server, meterite, peer
from meterite.wire.compiled import decode_remote_write
from meterite.wire.names import Names
from meterite.wire.remote_write import MESSAGE_1

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

METRICS: Final = 50
WARM: Final = 20
CODING: Final = (
    "application/x-protobuf\r\nContent-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0"
)
_PROMETHEUS: Final = (
    "prometheus",
    "--config.file={directory}/prometheus.yml",
    "--storage.tsdb.path={directory}/data",
    "--web.enable-remote-write-receiver",
    "--web.listen-address=127.0.0.1:{port}",
)
_VICTORIA: Final = (
    "victoria-metrics",
    "-storageDataPath={directory}/data",
    "-httpListenAddr=127.0.0.1:{port}",
)


def run(*, full: bool) -> list[Row]:
    turns = 7 if full else 3
    rows: list[Row] = []
    for series, samples, count in ((1000, 1, 600), (500, 10, 200)):
        bodies = [_body(series, samples, n) for n in range(WARM + count)]
        found: dict[str, list[float]] = {name: [] for name in _SERVERS}
        for _ in range(turns):
            for name, figures in found.items():
                figures.append(_measure(name, bodies) / (count * series * samples) * 1e6)
        what = f"remote write, {series:,} series × {samples}: CPU a reading"
        how = f"median of {turns} servers by turns, {count * series * samples / 1e6:g} M readings each"
        decoding = _decoding(bodies) / (count * series * samples) * 1e6
        ours, prometheus, victoria = (median(found[name]) for name in _SERVERS)
        bar = min(prometheus / 2, victoria)
        rows.append(
            Row(
                what, ours, "µs", round(bar, 2), note=f"{how}; {decoding:.2f} µs of it unpacking and decoding"
            )
        )
        rows.append(Row("the same, Prometheus' receiver", prometheus, "µs"))
        rows.append(Row("the same, VictoriaMetrics", victoria, "µs", note="not durable when it answers"))
    return rows


def _ours(directory: Path) -> AbstractContextManager[Server]:
    return meterite(directory)


def _prometheus(directory: Path) -> AbstractContextManager[Server]:
    (directory / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
    return peer(_PROMETHEUS, directory, "/-/ready")


def _victoria(directory: Path) -> AbstractContextManager[Server]:
    return peer(_VICTORIA, directory, "/health")


_SERVERS: Final[dict[str, Callable[[Path], AbstractContextManager[Server]]]] = {
    "meterite": _ours,
    "prometheus": _prometheus,
    "victoria-metrics": _victoria,
}


def _measure(name: str, bodies: list[bytes]) -> float:
    requests = [request("POST", "/api/v1/write", body, TOKEN, CODING) for body in bodies]
    with tempfile.TemporaryDirectory() as directory, _SERVERS[name](Path(directory)) as server:
        if name == "meterite":
            for n in range(METRICS):
                server.ask("POST", "/metric/", {"code": _code(n), "name": _code(n)})
        send(server.port, requests[:WARM], connections=1, total=WARM)
        before = server.cpu_s()
        send(server.port, requests[WARM:], connections=1, total=len(requests) - WARM)
        return server.cpu_s() - before


def _decoding(bodies: list[bytes]) -> float:
    names, before = Names(), 0.0
    for n, body in enumerate(bodies):
        if n == WARM:
            before = own_cpu_s()
        decode_remote_write(
            bytes(snappy.decompress_raw(body)), message=MESSAGE_1, names=names, readings_max=1_000_000
        )
    return own_cpu_s() - before


def _code(series: int) -> str:
    return f"node_cpu_seconds_total_{series % METRICS}"


def _body(series: int, samples: int, number: int) -> bytes:
    """Times go on from request to request, a second a sample: Prometheus takes nothing out of order."""
    first_ms = (int(time.time()) // 3600 - 1) * 3_600_000 + number * samples * 1000
    return bytes(
        snappy.compress_raw(b"".join(field(1, _series(n, samples, first_ms, number)) for n in range(series)))
    )


def _series(number: int, samples: int, first_ms: int, turn: int) -> bytes:
    labels = {
        "__name__": _code(number),
        "cpu": str(number % 16),
        "instance": f"host-{number}.example.com:9100",
        "job": "node",
        "mode": "user",
    }
    parts = [field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in labels.items()]
    for n in range(samples):
        value = round(20 + number % 7 + (turn * samples + n) * 0.25, 2)
        parts.append(field(2, sample(value, first_ms + n * 1000)))
    return b"".join(parts)


def sample(value: float, at_ms: int) -> bytes:
    """A sample."""
    return b"\x09" + struct.pack("<d", value) + b"\x10" + varint(at_ms)


def field(number: int, data: bytes) -> bytes:
    """A field of protobuf that is delimited by its length."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
