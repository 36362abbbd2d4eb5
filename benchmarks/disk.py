"""Bytes on disk of the same line protocol in Meterite and VictoriaMetrics, after each has compacted all it can.

Both get the same bodies at ``POST /write``. Then VictoriaMetrics merges its parts, and Meterite runs its ``compact``.
What is counted is what the store's files hold: of VictoriaMetrics its data and the index of names, not its cache; of
Meterite the database, which has the names in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.load import request, send
from benchmarks.measure import Row, file_bytes
from benchmarks.servers import ROOT, TOKEN, meterite, peer

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIES: Final = 1000
STEP_MS: Final = 10_000
EACH: Final = 10
JITTERS: Final = (0, 150)
MERGE_S: Final = 60
_VICTORIA: Final = (
    "victoria-metrics",
    "-storageDataPath={directory}/data",
    "-httpListenAddr=127.0.0.1:{port}",
    "-retentionPeriod=10y",
)


def run(*, full: bool) -> list[Row]:
    steps = 4000 if full else 1000
    rows: list[Row] = []
    for jitter in JITTERS:
        requests = [
            request("POST", "/write?precision=ms", body, TOKEN, "text/plain")
            for body in _bodies(steps, jitter)
        ]
        ours = _ours(requests) / (SERIES * steps)
        theirs = _victoria(requests) / (SERIES * steps)
        what = (
            f"on disk a reading, compacted, times ±{jitter} ms" if jitter else "on disk a reading, compacted"
        )
        how = f"{SERIES:,} series × {steps:,}, two-decimal walks at 10 s; VictoriaMetrics {theirs:.2f} B"
        bar = round((0.9 if jitter else 0.6) * theirs, 2)
        rows.append(Row(what, ours, "B", bar, note=how))
    return rows


def _bodies(steps: int, jitter_ms: int) -> Iterator[bytes]:
    """The last days' readings, ten rounds of all series a body."""
    rng = np.random.default_rng(1)
    first_ms = int(time.time()) // 86_400 * 86_400_000 - 3 * 86_400_000
    walk = np.round(20 + np.cumsum(0.05 * rng.standard_normal((steps, SERIES)), axis=0), 2)
    for step in range(0, steps, EACH):
        at_ms = first_ms + np.repeat(np.arange(step, step + EACH), SERIES) * STEP_MS
        if jitter_ms:
            at_ms = at_ms + rng.integers(-jitter_ms, jitter_ms + 1, EACH * SERIES)
        values = walk[step : step + EACH].ravel().tolist()
        lines = [
            f"weather,host=h{n % SERIES} temperature={value} {at}"
            for n, (value, at) in enumerate(zip(values, at_ms.tolist(), strict=True))
        ]
        yield "\n".join(lines).encode()


def _ours(requests: list[bytes]) -> int:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with meterite(directory) as server:
            send(server.port, requests, connections=1, total=len(requests))
        database = directory / "meterite.db"
        subprocess.run(
            [sys.executable, "-m", "meterite", "compact"],
            cwd=directory,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT / "src"),
                "database_url": f"sqlite:///{database}",
                "api_tokens": f'{{"{TOKEN}": "org_01"}}',
            },
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return file_bytes(database)


def _victoria(requests: list[bytes]) -> int:
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        with peer(_VICTORIA, Path(name), "/health") as server:
            send(server.port, requests, connections=1, total=len(requests))
            for place in ("force_flush", "force_merge"):
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}/internal/{place}").close()
            return _settled(data)


def _settled(data: Path) -> int:
    """Once the size has stood still for five seconds: merging goes on behind the answer."""
    size, since = _bytes_below(data), time.monotonic()
    until = since + MERGE_S
    while time.monotonic() < until and time.monotonic() - since < 5:
        time.sleep(0.5)
        now = _bytes_below(data)
        if now != size:
            size, since = now, time.monotonic()
    return size


def _bytes_below(data: Path) -> int:
    parts = (data / "data", data / "indexdb")
    return sum(path.stat().st_size for part in parts for path in part.rglob("*") if path.is_file())
