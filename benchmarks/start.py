"""How long a server takes from its start to its first answer on a large store, and what it holds in memory at rest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row, median, resident_bytes
from benchmarks.servers import ROOT, meterite
from benchmarks.stores import SECOND_US, START_US, apart, open_filled, rounds
from meterite.storage.compaction import Compactor

SERIES = 1000
TURNS = 5
IMPORTS = "import meterite.app, meterite.cli.main, meterite.cli.serving, uvicorn, uvloop, httptools, os; os._exit(0)"


def run(*, full: bool) -> list[Row]:
    readings = 100_000_000 if full else 10_000_000
    imports, beyond, firsts, rests = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        apart(_fill, name, readings // SERIES)
        for _ in range(TURNS):
            imports.append(_import_s())
            with meterite(Path(name)) as server:
                began = time.monotonic()
                answer = server.ask("GET", "/metric/M0")
                firsts.append(time.monotonic() - began)
                assert answer["current_reading"] is not None
                beyond.append(server.started_s + firsts[-1] - imports[-1])
    with tempfile.TemporaryDirectory() as name:
        apart(_fill, name, 1)
        for _ in range(TURNS):
            with meterite(Path(name)) as server:
                _write_and_rest(server)
                rests.append(resident_bytes(server.pid) / 1e6)
    return [
        Row(
            f"server start, {readings // 1_000_000} M readings, to the first answer, beyond imports",
            median(beyond),
            "s",
            1,
            note=f"{SERIES:,} series, the last 1,000 rounds at most in the journal; `GET /metric/M0` itself"
            f" {median(firsts) * 1000:.0f} ms",
        ),
        Row("imports, with the interpreter's start", median(imports), "s", note=f"median of {TURNS}"),
        Row(
            "memory of a worker at rest, 1,000 series",
            median(rests),
            "MB",
            120,
            note="resident, each series written",
        ),
    ]


def _import_s() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, cwd=ROOT)
    return time.monotonic() - began


def _fill(directory: str, steps: int) -> None:
    filled = open_filled(Path(directory), metrics=10, series=SERIES)
    compactor = Compactor(filled.store)
    for batch in rounds(filled, steps, step_us=10 * SECOND_US, each=50):
        filled.commit(batch)
        while compactor.run_once():
            pass
    compactor.close()
    filled.store.database.checkpoint(truncate=True)
    filled.store.close()


def _write_and_rest(server) -> None:
    at = START_US // SECOND_US + 86_400
    rows = [
        {"metric": f"M{n}", "labels": {"host": f"h{m}"}, "reading": float(m), "reading_at": at}
        for n in range(10)
        for m in range(SERIES // 10)
    ]
    server.ask("POST", "/readings?precision=s", rows)
    time.sleep(2.0)
