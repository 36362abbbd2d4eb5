"""Back from an outage: events that piled up, delivered to a local receiver by webhooks, signed, as CloudEvents.

The receiver is a process of its own that parses as little as it can. Beside the rate: how much memory of the
service grew, and what a push costs meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import uvloop

from benchmarks.measure import Row, own_cpu_s
from benchmarks.stores import ORG, SECOND_US, START_US
from meterite.model.columns import Batch
from meterite.model.metric import MetricSpec, Notify
from meterite.service import Service
from meterite.settings import Settings
from meterite.storage.interface import Append

if TYPE_CHECKING:
    from meterite.storage.interface import Store

SERIES: Final = 10_000
HANDLER: Final = "ops"
LOOK_S: Final = 1.0


def run(*, full: bool) -> list[Row]:
    count = 1_000_000 if full else 50_000
    receiver = _Receiver()
    try:
        with tempfile.TemporaryDirectory() as name:
            return uvloop.run(_measured(Path(name), receiver.port, count))
    finally:
        receiver.close()


async def _measured(directory: Path, port: int, count: int) -> list[Row]:
    service = Service(_settings(directory, port))
    service.store.open()
    service.store.outbox.register([HANDLER])
    _pile_up(service.store, count)
    service.store.close()
    service = Service(_settings(directory, port))
    memory_kib, cpu_s, began = _peak_kib(), own_cpu_s(), time.monotonic()
    await service.open()
    pushes = asyncio.create_task(_pushing(service))
    left = count
    while left:
        await asyncio.sleep(LOOK_S)
        (found,) = await asyncio.to_thread(service.store.outbox.counts)
        left = found.open + found.behind
    seconds, cpu_s = time.monotonic() - began, own_cpu_s() - cpu_s
    pushes.cancel()
    waits_ms = await pushes
    await service.close()
    how = f"{count:,} events of {SERIES:,} series, one worker, signed webhooks"
    return [
        Row("deliveries after an outage", count / seconds, "a second", 2000, at_least=True, note=how),
        Row("deliveries: CPU each, of the whole service", cpu_s / count * 1e6, "µs"),
        Row("deliveries: memory on top of the service's", (_peak_kib() - memory_kib) / 1024, "MiB", 128),
        Row("deliveries: a push meanwhile, median", float(np.median(waits_ms)), "ms"),
        Row("deliveries: a push meanwhile, p99", float(np.percentile(waits_ms, 99)), "ms"),
    ]


def _settings(directory: Path, port: int) -> Settings:
    handler = {
        "name": HANDLER,
        "kind": "webhook",
        "url": f"http://127.0.0.1:{port}/hook",
        "allow_private": True,
        "secret": "whsec_" + "b" * 40,
        "concurrency": 32,
    }
    url = f"sqlite:///{directory / 'm.db'}"
    return Settings(_env_file=None, api_tokens={"a": ORG}, database_url=url, handlers=json.dumps([handler]))


def _pile_up(store: Store, count: int) -> None:
    """So many events: each commit has all series outside their limits."""
    org_id = store.catalog.org_id(ORG)
    metric = store.catalog.create(
        ORG, MetricSpec(code="M1", name="Metric 1", max_reading=10, notify=Notify.EVERY)
    )
    labels = [(("host", f"h{n}"),) for n in range(SERIES)]
    series = np.array(sorted(store.catalog.series(org_id, metric, labels)), np.int64)
    version, _ = store.catalog.changed(0)
    index, values = np.arange(SERIES, dtype=np.uint32), np.full(SERIES, 11.0)
    for turn in range(count // SERIES):
        at_us = np.full(SERIES, START_US + turn * SECOND_US, np.int64)
        append = Append(org_id, version, Batch(series, index, at_us, values))
        store.commit([append])
        assert append.error is None


async def _pushing(service: Service) -> list[float]:
    """How long a single push takes, one after the other, ms."""
    await service.catalog.create(ORG, MetricSpec(code="M2", name="Metric 2"))
    waits_ms: list[float] = []
    try:
        while True:
            began = time.perf_counter()
            await service.recorder.record_one(ORG, "M2", 1.0, None)
            waits_ms.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        return waits_ms


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class _Receiver:
    """Answers 204 to all that comes."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        ports = context.Queue()
        self._process = context.Process(target=_serve, args=(ports,), daemon=True)
        self._process.start()
        self.port = ports.get(timeout=60)

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


class _Answering(asyncio.Protocol):
    """Looks for the end of the head and for its length, and no more."""

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
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


def _serve(ports: Any) -> None:
    async def serving() -> None:
        server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serving())
