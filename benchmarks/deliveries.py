"""Back from an outage: events that piled up, delivered to a local receiver by signed webhooks, as CloudEvents.

They were raised a few a commit and looked at while the receiver was away, so that all of them are pending when the
server starts. The receiver is a process of its own that parses as little as it can. Beside the rate: the memory of the
worker, and how long single pushes over HTTP take meanwhile and afterwards.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import uvloop

from benchmarks.load import request
from benchmarks.measure import Row, own_cpu_s, resident_bytes
from benchmarks.servers import ORG, TOKEN, Server, meterite
from benchmarks.stores import SECOND_US, START_US, apart
from meterite.model.columns import Batch
from meterite.model.metric import MetricSpec, Notify
from meterite.storage.interface import Append
from meterite.storage.store import SqliteStore

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    from meterite.model.event_row import EventRow

SERIES: Final = 1000
EACH: Final = 20
"""Events a commit."""
HANDLER: Final = "ops"
PUSHES_A_SECOND: Final = 50
ALONE_S: Final = 10.0
REST_S: Final = 3.0
DRAIN_S: Final = 3600.0


def run(*, full: bool) -> list[Row]:
    count = 1_000_000 if full else 100_000
    receiver = Receiver()
    try:
        with tempfile.TemporaryDirectory() as name:
            look_us = apart(_pile_up, name, count)
            with meterite(Path(name), {"HANDLERS": json.dumps([_handler(receiver.port)])}) as server:
                drain = uvloop.run(_measure(server, receiver, count))
            with closing(sqlite3.connect(Path(name) / "meterite.db")) as conn:
                (left,) = conn.execute("SELECT count(*) FROM delivery WHERE state <> 3").fetchone()
            assert not left, f"{left} were told and are not marked"
    finally:
        receiver.close()
    return [*_rows(drain, count), Row("from an event to its delivery's row, CPU", look_us, "µs")]


@dataclass(frozen=True, slots=True)
class Drain:
    """How it went; ``waits_s`` of pushes meanwhile and ``alone_s`` of those afterwards."""

    seconds: float
    cpu_s: float
    rest_bytes: int
    peak_bytes: int
    waits_s: list[float]
    alone_s: list[float]


def _rows(drain: Drain, count: int) -> list[Row]:
    how = f"{count:,} events, {EACH} a commit, of {SERIES:,} series; one worker, default options"
    on_top = (drain.peak_bytes - drain.rest_bytes) / 2**20
    rows = [
        Row("deliveries after an outage", count / drain.seconds, "a second", 2000, at_least=True, note=how),
        Row("deliveries: CPU of the worker each", drain.cpu_s / count * 1e6, "µs"),
        Row(
            "deliveries: memory of the worker, on top of what it starts with",
            on_top,
            "MiB",
            note=f"{drain.rest_bytes / 2**20:.0f} to {drain.peak_bytes / 2**20:.0f} MiB resident",
        ),
    ]
    for share in (50, 99):
        wait, alone = (float(np.percentile(waits, share)) * 1000 for waits in (drain.waits_s, drain.alone_s))
        note = f"{PUSHES_A_SECOND} a second on one connection; {alone:.1f} ms with nothing to deliver"
        rows.append(Row(f"deliveries: a push meanwhile, p{share}", wait, "ms", note=note))
    return rows


async def _measure(server: Server, receiver: Receiver, count: int) -> Drain:
    """The server was just started; what it had to deliver until it answered counts, too."""
    began, cpu_s, rest = time.monotonic() - server.started_s, 0.0, resident_bytes(server.pid)
    pushes = Pushes(server)
    pushing = asyncio.create_task(pushes.run())
    while receiver.count < count:
        assert time.monotonic() < began + DRAIN_S
        assert not pushing.done(), pushing.exception()
        await asyncio.sleep(0.05)
    seconds, cpu_s = time.monotonic() - began, server.cpu_s()
    peak, waits_s = _peak_bytes(server.pid), pushes.take()
    await asyncio.sleep(REST_S)
    pushes.take()
    await asyncio.sleep(ALONE_S)
    pushing.cancel()
    return Drain(seconds, cpu_s, rest, peak, waits_s, pushes.take())


class Pushes:
    """Single readings of a metric of their own, at a steady pace: how long each waits for its answer."""

    def __init__(self, server: Server) -> None:
        server.ask("POST", "/metric/", {"code": "P", "name": "Pushed"})
        self._port = server.port
        self._waits_s: list[float] = []

    def take(self) -> list[float]:
        waits_s, self._waits_s = self._waits_s, []
        return waits_s

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        push = request("POST", "/metric/P", {"reading": 1.0}, TOKEN)
        due = time.monotonic()
        with closing(writer):
            while True:
                began = time.perf_counter()
                writer.write(push)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self._waits_s.append(time.perf_counter() - began)
                due = max(due + 1 / PUSHES_A_SECOND, time.monotonic())
                await asyncio.sleep(due - time.monotonic())


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def _handler(port: int) -> dict[str, object]:
    return {
        "name": HANDLER,
        "kind": "webhook",
        "url": f"http://127.0.0.1:{port}/hook",
        "allow_private": True,
        "secret": "whsec_" + "b" * 40,
    }


def _pile_up(directory: str, count: int) -> float:
    """So many events of readings outside, each with its delivery; answers the CPU of making one of those, µs."""
    store = SqliteStore(Path(directory) / "meterite.db")
    store.open()
    store.outbox.register([HANDLER])
    org_id = store.catalog.org_id(ORG)
    spec = MetricSpec(code="M1", name="Metric 1", max_reading=10, notify=Notify.EVERY)
    metric = store.catalog.create(ORG, spec)
    labels = [(("host", f"h{n}"),) for n in range(SERIES)]
    series = np.array(sorted(store.catalog.series(org_id, metric, labels)), np.int64)
    version, _ = store.catalog.changed(0)
    index, values = np.arange(EACH, dtype=np.uint32), np.full(EACH, 11.0)
    for turn in range(count // EACH):
        some = series[turn * EACH % SERIES :][:EACH]
        at_us = np.full(EACH, START_US + turn * SECOND_US, np.int64)
        append = Append(org_id, version, Batch(some, index, at_us, values))
        store.commit([append])
        assert append.error is None
        if turn % 500 == 0:
            store.database.checkpoint()
    before = own_cpu_s()
    while store.outbox.fan_out(HANDLER, _all):
        store.database.checkpoint()
    used = own_cpu_s() - before
    store.close()
    return used / count * 1e6


def _all(row: EventRow) -> Any:
    return np.ones(len(row), bool)


class Receiver:
    """A process that answers 204 to all that comes, and counts."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        ports = context.Queue()
        self._count = context.Value("q", 0, lock=False)
        self._process = context.Process(target=_serve, args=(ports, self._count), daemon=True)
        self._process.start()
        self.port = ports.get(timeout=60)

    @property
    def count(self) -> int:
        return int(self._count.value)

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


class _Answering(asyncio.Protocol):
    """Looks for the end of the head and for its length, and no more."""

    def __init__(self, count: Synchronized[int]) -> None:
        self._count = count

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            whole = end + 4 + int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._data) < whole:
                return
            self._data = self._data[whole:]
            self._count.value += 1
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


def _serve(ports: Any, count: Synchronized[int]) -> None:
    async def serving() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Answering(count), "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serving())
