"""Reading back: one series of many, a year by days, the mean over everything; always from a store just opened.

"Cold" means: no directory and no row group in memory, the file's pages dropped from the system's cache where it lets
us. Statements are compiled and labels known, as in a process that has answered anything before; what the very first
question costs is told beside it. Other numbers of series are compared with 1,000 in the same run.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import Row, figure, median, own_cpu_s
from benchmarks.stores import DAY_US, ORG, SECOND_US, START_US, apart, catalog_on, open_filled, rounds
from meterite.lanes import Lanes
from meterite.query.steps import Steps
from meterite.query.summarizer import Summarizer
from meterite.storage.compaction import Compactor
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meterite.query.summary import Summary

TURNS = 7
YEAR_SERIES = 10_000
YEAR_STEP_S = 600


def run(*, full: bool) -> list[Row]:
    readings = 4_000_000
    found = {}
    for series in (100, 1000, 100_000):
        with tempfile.TemporaryDirectory() as name:
            apart(_fill, name, series, readings // series)
            found[series] = apart(_read, name, series, readings)
    rows = [
        Row(
            "one series, a day out of 4 M readings, cold",
            found[100].day_ms,
            "ms",
            10,
            note=f"100 series at 10 s, 8,640 readings; {found[100].warm_ms:.2g} ms with the row group in memory;"
            f" a process's first question {found[100].first_ms:.2g} ms more",
        ),
        Row(
            "mean over everything, one core",
            found[1000].per_s / 1e6,
            "M readings/s",
            20,
            at_least=True,
            note=f"4 M readings, 1,000 series of one metric, CPU time, median of {TURNS}, nothing in memory",
        ),
    ]
    for series in (100, 100_000):
        mean = found[1000].per_s / found[series].per_s
        day = found[series].day_ms / found[1000].day_ms
        rows += [
            Row(f"mean over everything, {series:,} series ÷ 1,000", mean, "×", 3, note="CPU time"),
            Row(
                f"one series, a day, {series:,} series ÷ 1,000",
                day,
                "×",
                3,
                note=f"{figure(found[series].day_ms)} ms to {figure(found[1000].day_ms)} ms;"
                f" a process's first question {figure(found[series].first_ms)} ms more",
            ),
        ]
    return rows + _year(full=full)


@dataclass(frozen=True, slots=True)
class Found:
    first_ms: float
    day_ms: float
    warm_ms: float
    per_s: float


def _fill(directory: str, series: int, steps: int) -> None:
    filled = open_filled(Path(directory), metrics=1, series=series)
    each = max(1, 20_000 // series)
    for n, batch in enumerate(rounds(filled, steps, step_us=10 * SECOND_US, each=each)):
        filled.commit(batch)
        if n % 20 == 0:
            filled.store.database.checkpoint(truncate=True)
    compactor = Compactor(filled.store, EVERYTHING)
    while compactor.run_once():
        pass
    compactor.shrink()
    compactor.close()
    filled.store.close()


def _read(directory: str, series: int, readings: int) -> Found:
    first, day, warm, rates = [], [], [], []
    for turn in range(TURNS):
        labels = (("host", f"h{series * turn // TURNS}"),)
        with _opened(directory) as store:
            first.append(_day(store, labels, START_US - DAY_US))  # before all readings
            day.append(_day(store, labels, START_US))
            warm.append(_day(store, labels, START_US))
        with _opened(directory) as store:
            before = own_cpu_s()
            summary = _summary(store, None, ())
            rates.append(readings / (own_cpu_s() - before))
            assert int(np.asarray(summary.columns["count"])[0]) == readings
    return Found(median(first), median(day), median(warm), median(rates))


def _day(store: SqliteStore, labels: tuple[tuple[str, str], ...], start_us: int) -> float:
    began = time.perf_counter()
    metric = store.catalog.metric(ORG, "M0")
    assert metric is not None
    span = store.span(metric, start_us, start_us + DAY_US, labels)
    view = store.view(store.catalog.org_id(ORG))
    count = sum(len(chunk) for chunk in view.scan(span))
    view.close()
    assert start_us < START_US or 0 < count <= 8640
    return (time.perf_counter() - began) * 1000


def _summary(store: SqliteStore, steps: Steps | None, labels: tuple[tuple[str, str], ...]) -> Summary:
    async def ask() -> Summary:
        lanes = Lanes()
        try:
            summarizer = Summarizer(store, catalog_on(store, lanes), lanes)
            summary, warnings = await summarizer.summarize(
                ORG, "M0", start_us=None, end_us=None, steps=steps, fns=("mean", "count"), labels=labels
            )
        finally:
            lanes.close()
        assert not warnings
        return summary

    return asyncio.run(ask())


@contextmanager
def _opened(directory: str) -> Iterator[SqliteStore]:
    path = Path(directory) / "meterite.db"
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    store = SqliteStore(path)
    store.open()
    try:
        yield store
    finally:
        store.close()


def _year(*, full: bool) -> list[Row]:
    series = YEAR_SERIES if full else 200
    with tempfile.TemporaryDirectory() as name:
        encoded, journal, kept = apart(_fill_year, name, series)
        times = apart(_read_year, name, series)
    how = f"{series:,} series, {kept / 1e6:.1f} M readings"
    scaled = (
        ""
        if full
        else "; 2 % of the series, the journal compacted at 2 % of its size, so as often as with all"
    )
    return [
        Row(
            "one series, a year by days, cold",
            median(times),
            "ms",
            100,
            note=f"{how}, all steps of compaction done",
        ),
        Row(
            "write amplification over the year",
            (journal + encoded) / kept,
            "×",
            5,
            note=f"(journal + readings encoded by compaction) ÷ kept: {how}{scaled}",
        ),
    ]


def _fill_year(directory: str, series: int) -> tuple[int, int, int]:
    """A year as it comes: readings in the order of time, compaction whenever it is due, the clock the data's own."""
    filled = open_filled(Path(directory), metrics=1, series=series)
    store = filled.store
    store.close()
    now = [START_US]
    store = SqliteStore(Path(directory) / "meterite.db", clock=lambda: now[0])
    store.open()
    journal_readings = Limits().journal_readings * series // YEAR_SERIES
    compactor = Compactor(store, Limits(journal_readings=journal_readings, look_s=0.0))
    steps = 366 * 86_400 // YEAR_STEP_S
    each = max(1, journal_readings // series // 4)
    kept = 0
    filled = type(filled)(store, filled.org_id, filled.version, filled.series)
    for batch in rounds(filled, steps, step_us=YEAR_STEP_S * SECOND_US, each=each):
        now[0] = int(batch.at_us[-1])
        filled.commit(batch)
        kept += len(batch)
        while compactor.run_once():
            pass
    now[0] += 3600 * SECOND_US
    while compactor.run_once():
        pass
    store.database.checkpoint(truncate=True)
    done = compactor.done
    compactor.close()
    store.close()
    return done.encoded_readings, done.journal_readings, kept


def _read_year(directory: str, series: int) -> list[float]:
    times = []
    for turn in range(TURNS):
        with _opened(directory) as store:
            began = time.perf_counter()
            summary = _summary(
                store, Steps("1d", "UTC", width_us=DAY_US), (("host", f"h{series * turn // TURNS}"),)
            )
            times.append((time.perf_counter() - began) * 1000)
            assert len(summary.columns["mean"]) == 366
    return times
