"""Three processes that write one file: who waits for how long, and whether all get their turn."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import Row
from benchmarks.stores import SECOND_US, START_US, open_filled
from meterite.model.columns import Batch
from meterite.storage import database

if TYPE_CHECKING:
    from threading import Barrier

    from numpy.typing import NDArray

WRITERS = 3
READINGS = 100


def run(*, full: bool) -> list[Row]:
    seconds = 20.0 if full else 4.0
    rounds = 3 if full else 2
    kinds = {True: "the lock file", False: "SQLite's busy handler alone"}
    waits = {kind: [np.empty(0)] * WRITERS for kind in kinds}
    for _ in range(rounds):
        for kind, known in waits.items():
            found = _round(seconds, lock_file=kind)
            waits[kind] = [np.concatenate(both) for both in zip(known, found, strict=True)]
    return [row for kind, name in kinds.items() for row in _rows(name, waits[kind], rounds * seconds)]


def _round(seconds: float, *, lock_file: bool) -> list[NDArray[np.float64]]:
    """Of each writer, how long its commits took, ms."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, context.Manager() as manager:
        open_filled(Path(name), metrics=1, series=1).store.close()
        begin = manager.Barrier(WRITERS)
        with context.Pool(WRITERS) as pool:
            tasks = [pool.apply_async(_write, (name, seconds, n, begin, lock_file)) for n in range(WRITERS)]
            return [np.array(task.get(seconds + 60)) * 1000 for task in tasks]


def _rows(name: str, waits_ms: list[NDArray[np.float64]], seconds: float) -> list[Row]:
    every = np.concatenate(waits_ms)
    shares = np.array([len(waits) for waits in waits_ms]) / len(every) * 100
    alone = [f"{np.percentile(waits, 50):.1f} and {np.percentile(waits, 99):.0f}" for waits in waits_ms]
    return [
        Row(
            f"{WRITERS} writers that never pause, {name}: a commit, p50",
            float(np.percentile(every, 50)),
            "ms",
            note=f"{len(every) / seconds:,.0f} commits a second, fsync included",
        ),
        Row("… p99", float(np.percentile(every, 99)), "ms", note=f"p50 and p99 of each: {', '.join(alone)}"),
        Row("… longest", float(every.max()), "ms"),
        Row(
            "… smallest share of the commits", float(shares.min()), "%", note=f"largest {shares.max():.1f} %"
        ),
    ]


class _NoLock:
    def acquire(self) -> None:
        """BEGIN IMMEDIATE waits."""

    def release(self) -> None:
        """COMMIT did."""

    def close(self) -> None:
        """Nothing is open."""


def _write(name: str, seconds: float, number: int, begin: Barrier, lock_file: bool) -> list[float]:
    if not lock_file:
        database.BUSY_WAIT_S = 5.0  # type: ignore[misc]  # what a writer waits for the lock file
    filled = open_filled(Path(name), metrics=1, series=1)
    if not lock_file:
        filled.store.database._lock = _NoLock()  # type: ignore[assignment]  # noqa: SLF001 -- what is compared
    at_us = START_US + np.arange(READINGS, dtype=np.int64) * SECOND_US + number
    values = np.random.default_rng(number).normal(size=READINGS)
    batch = Batch(filled.series, np.zeros(READINGS, np.uint32), at_us, values)
    begin.wait(60)
    until = time.monotonic() + seconds
    waits = []
    while (began := time.monotonic()) < until:
        filled.commit(batch)
        waits.append(time.monotonic() - began)
    filled.store.close()
    return waits
