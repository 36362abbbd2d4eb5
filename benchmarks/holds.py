"""For how long maintenance keeps writers out where much is to be done at once: a large log, readings of many months."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.measure import Row, median
from benchmarks.stores import SECOND_US, START_US, Filled, open_filled
from meterite.model.columns import Batch
from meterite.storage.compaction import Compactor
from meterite.storage.work import EVERYTHING

BAR_MS = 50
ROUNDS = 3
COMMIT = 60_000
MONTH_US = 30 * 86_400 * SECOND_US


def run(*, full: bool) -> list[Row]:
    mib = 900 if full else 200
    return [*_large_log(mib), *(_many_months(months) for months in ((600, 3000) if full else (600,)))]


def _batch(filled: Filled, start_us: int, count: int, step_us: int = SECOND_US) -> Batch:
    at_us = start_us + np.arange(count, dtype=np.int64) * step_us
    return Batch(
        filled.series[:1], np.zeros(count, np.uint32), at_us, np.random.default_rng(1).normal(size=count)
    )


def _large_log(mib: int) -> list[Row]:
    """A reader holds the log and leaves; then it is moved, while somebody commits."""
    with tempfile.TemporaryDirectory() as name:
        filled = open_filled(Path(name), metrics=1, series=1)
        database = filled.store.database
        helds, tooks, waits = [], [], []
        start_us = START_US
        for _ in range(ROUNDS):
            with closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT seq FROM clock").fetchone()
                while database.wal_bytes_left() < mib << 20:
                    filled.commit(_batch(filled, start_us, COMMIT))
                    start_us += COMMIT * SECOND_US
            with _Committing(filled) as committing:
                began = time.monotonic()
                helds.append(database.checkpoint())
                tooks.append(time.monotonic() - began)
            waits.append(committing.longest_s)
        filled.store.close()
    note = f"worst of {ROUNDS}; it took {median(tooks):.2f} s; the longest commit meanwhile {max(waits) * 1000:.0f} ms"
    what = f"writer's lock held by the checkpoint of a log of {mib} MiB"
    return [Row(what, max(helds) * 1000, "ms", BAR_MS, note=note)]


class _Committing:
    """Somebody who commits all the time."""

    def __init__(self, filled: Filled) -> None:
        self._filled = filled
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._commit)
        self.longest_s = 0.0

    def _commit(self) -> None:
        start_us = START_US
        while not self._ended.is_set():
            began = time.monotonic()
            self._filled.commit(_batch(self._filled, start_us, 10))
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            start_us += 10 * SECOND_US

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _many_months(months: int) -> Row:
    """One request with a reading a month; compacted twice, so that there are runs to merge, too."""
    with tempfile.TemporaryDirectory() as name:
        filled = open_filled(Path(name), metrics=1, series=1)
        compactor = Compactor(filled.store, EVERYTHING)
        began = time.monotonic()
        for _ in range(2):
            filled.commit(_batch(filled, START_US - months // 2 * MONTH_US, months, MONTH_US))
            while compactor.run_once():
                pass
        done, took = compactor.done, time.monotonic() - began
        compactor.close()
        filled.store.close()
    what = f"writer's lock held by the compaction of a request over {months:,} months"
    note = f"{done.merges:,} merges among it; {took:.1f} s"
    return Row(what, done.longest_hold_s * 1000, "ms", BAR_MS, note=note)
