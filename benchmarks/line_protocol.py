"""Line protocol: what decoding costs a reading, and the whole way through ``POST /write``, beside VictoriaMetrics.

1,000 series in each request of 5,000 lines: one field a line, and ten. Decoding is measured in this process, compiled
and plain by turns. Both servers get the same bodies, each in a process of its own that is new each turn, by turns; a
first part of the requests, in which series are new, isn't measured. Both go on to be measured until they rest; ours is
then compacted to its last tier, which it would be when the month is over, in a process of its own.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.load import request, send
from benchmarks.measure import Row, median, own_cpu_s
from benchmarks.post_readings import rest
from benchmarks.servers import TOKEN, Server, meterite, peer
from benchmarks.stores import apart
from meterite.storage.compaction import Compactor
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING
from meterite.wire import compiled, line_protocol
from meterite.wire.names import Names

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from meterite.api.ingest import Decode

LINES: Final = 5000
HOSTS: Final = 1000
CONNECTIONS: Final = 4
WARM: Final = 10
STEP_NS: Final = 10 * 10**9
AGO_S: Final = 7 * 86_400  # within what VictoriaMetrics keeps
READINGS_MAX: Final = 1_000_000
BAR: Final = 0.5
TURNS_DECODING: Final = 7
OURS: Final = "Meterite"
THEIRS: Final = "VictoriaMetrics"
_VICTORIA: Final = (
    "victoria-metrics",
    "-storageDataPath={directory}/data",
    "-httpListenAddr=127.0.0.1:{port}",
)


def run(*, full: bool) -> list[Row]:
    count, turns = (800, 5) if full else (200, 3)
    rows: list[Row] = []
    for what, fields in (("one field a line", 1), ("ten fields a line", 10)):
        rows += _decoding(what, fields)
        rows += _whole(what, fields, max(20, count // fields), turns)
    return rows


def _decoding(what: str, fields: int) -> list[Row]:
    body, names = _body(np.random.default_rng(1), 0, fields), Names()
    decoders: dict[str, Decode] = {
        "compiled": lambda body, readings_max: compiled.decode_line_protocol(
            body, precision="ns", readings_max=readings_max
        ),
        "plain": lambda body, readings_max: line_protocol.decode_line_protocol(
            body, precision="ns", readings_max=readings_max, names=names
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(TURNS_DECODING):
        for name, decode in decoders.items():
            found[name].append(_decoded(decode, body) / (LINES * fields) * 1e6)
    how = f"median of {TURNS_DECODING} by turns, lines of {len(body) // LINES} bytes"
    if not compiled.COMPILED:
        how += "; no extension is built, so all is plain"
    return [
        Row(f"line protocol, {what}: CPU to decode a reading, {name}", median(each), "µs", note=how)
        for name, each in found.items()
    ]


def _decoded(decode: Decode, body: bytes) -> float:
    began, rounds = own_cpu_s(), 0
    while own_cpu_s() - began < 0.2:
        decode(body, readings_max=READINGS_MAX)
        rounds += 1
    return (own_cpu_s() - began) / rounds


def _whole(what: str, fields: int, count: int, turns: int) -> list[Row]:
    rng = np.random.default_rng(1)
    bodies = [_body(rng, n, fields) for n in range(WARM + count)]
    found: dict[str, list[tuple[float, float, float]]] = {OURS: [], THEIRS: []}
    for _ in range(turns):
        for name, figures in found.items():
            figures.append(_sent(name, bodies))
    readings = count * LINES * fields / 1e6
    (ours, rested, last), (theirs, theirs_rested, _) = (
        map(median, zip(*each, strict=True)) for each in found.values()
    )
    how = f"{HOSTS:,} hosts, median of {turns} servers by turns, {readings:g} M readings each"
    return [
        Row(
            f"`POST /write`, {what}: CPU ÷ VictoriaMetrics', up to the answer",
            ours / theirs,
            "×",
            BAR,
            note=how,
        ),
        Row(
            f"`POST /write`, {what}: CPU a reading",
            ours / readings,
            "µs",
            note=f"{rested / readings:.2f} µs until the server rests",
        ),
        Row("the same, VictoriaMetrics", theirs / readings, "µs", note="not durable when it answers"),
        Row(
            f"`POST /write`, {what}: CPU to the last tier ÷ VictoriaMetrics' until it rests",
            last / theirs_rested,
            "×",
            1.0,
            note=f"{last / readings:.2f} to {theirs_rested / readings:.2f} µs a reading",
        ),
    ]


def _server(name: str, directory: Path) -> AbstractContextManager[Server]:
    return meterite(directory) if name == OURS else peer(_VICTORIA, directory, "/health")


def _sent(name: str, bodies: list[bytes]) -> tuple[float, float, float]:
    """The CPU up to the last answer, until the server rests, and, of ours, with all compacted to the last tier."""
    place = f"/write?x-auth-token={TOKEN}" if name == OURS else "/write"
    requests = [request("POST", place, body, TOKEN, "text/plain") for body in bodies]
    with tempfile.TemporaryDirectory() as directory:
        with _server(name, Path(directory)) as server:
            send(server.port, requests[:WARM], connections=1, total=WARM)
            before = server.cpu_s()
            send(server.port, requests[WARM:], connections=CONNECTIONS, total=len(requests) - WARM)
            answered = server.cpu_s() - before
            rested = rest(server) - before
        more = apart(_to_the_last_tier, directory) if name == OURS else 0.0
        return answered, rested, rested + more


def _to_the_last_tier(directory: str) -> float:
    """The CPU of what compaction has still to do."""
    store = SqliteStore(Path(directory) / "meterite.db")
    store.open()
    compactor = Compactor(store, EVERYTHING)
    before = own_cpu_s()
    while compactor.run_once():
        pass
    used = own_cpu_s() - before
    compactor.close()
    store.close()
    return used


def _body(rng: np.random.Generator, turn: int, fields: int) -> bytes:
    """Two-decimal values; each host's times go on from request to request."""
    each = LINES // HOSTS
    start_ns = (int(time.time()) // 3600 * 3600 - AGO_S) * 10**9
    values = np.round(50 + 10 * rng.standard_normal((LINES, fields)), 2).tolist()
    lines = []
    for n in range(LINES):
        host = n % HOSTS
        at_ns = start_ns + (turn * each + n // HOSTS) * STEP_NS
        row = ",".join(f"usage_{k}={value}" for k, value in enumerate(values[n]))
        lines.append(f"cpu,host=host-{host:04},rack=r{host % 7},region=eu-west {row} {at_ns}")
    return "\n".join(lines).encode()
