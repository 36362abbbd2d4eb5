"""Compaction of four million readings, from the journal to the last tier: CPU and bytes a reading, peak memory.

Each shape is filled in this process and compacted in a fresh one, so that its memory is compaction's own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, figure, own_cpu_s
from benchmarks.stores import SECOND_US, apart, open_filled, peak_bytes, rounds
from meterite.model.columns import Batch
from meterite.storage.compaction import Compactor
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING

SERIES = 1000
COMMIT_ROUNDS = 5


def run(*, full: bool) -> list[Row]:
    readings = 16_000_000 if full else 4_000_000
    rows: list[Row] = []
    for shape in ("walks", "jittered", "random"):
        with tempfile.TemporaryDirectory() as name:
            apart(_fill, name, readings // SERIES, shape)
            cpu_us, wall_s, kept, segments, peak, hold_ms = apart(_compact, name)
        bars = (0.5, 1.5, 300) if shape == "walks" else (None, None, None)
        what = f"compaction of {readings // 1_000_000} M readings, {SHAPES[shape]}"
        note = f"{SERIES:,} series; {wall_s:.1f} s; longest hold of the writer's lock {hold_ms:.0f} ms"
        rows += [
            Row(f"{what}: CPU a reading", cpu_us, "µs", bars[0], note=note),
            Row(
                "… on disk a reading",
                kept,
                "B",
                bars[1],
                note=f"the whole file; row groups {figure(segments)} B",
            ),
            Row("… peak memory", peak / 1e6, "MB", bars[2], note="the whole process"),
        ]
    return rows


SHAPES = {
    "walks": "two-decimal random walks at 10 s",
    "jittered": "the same at jittered times",
    "random": "random floats at jittered times",
}


def _fill(directory: str, steps: int, shape: str) -> None:
    filled = open_filled(Path(directory), metrics=10, series=SERIES)
    rng = np.random.default_rng(2)
    for n, batch in enumerate(rounds(filled, steps, step_us=10 * SECOND_US, each=COMMIT_ROUNDS)):
        at_us, values = batch.at_us, batch.values
        if shape != "walks":
            at_us = at_us + rng.integers(-SECOND_US, SECOND_US, len(batch))
        if shape == "random":
            values = rng.standard_normal(len(batch))
        filled.commit(Batch(batch.series, batch.series_index, at_us, values))
        if n % 50 == 0:
            filled.store.database.checkpoint(truncate=True)
    filled.store.database.checkpoint(truncate=True)
    filled.store.close()


def _compact(directory: str) -> tuple[float, float, float, float, int, float]:
    import time

    store = SqliteStore(Path(directory) / "meterite.db")
    store.open()
    compactor = Compactor(store, EVERYTHING)
    began, before = time.monotonic(), own_cpu_s()
    while compactor.run_once():
        pass
    cpu_s, wall_s = own_cpu_s() - before, time.monotonic() - began
    peak = peak_bytes()
    compactor.shrink()
    store.database.checkpoint(truncate=True)
    with store.database.reading() as conn:
        (count,) = conn.exec_driver_sql("SELECT sum(count) FROM run WHERE dead_at IS NULL").one()
        (size,) = conn.exec_driver_sql("SELECT sum(length(data)) FROM segment").one()
    hold_ms = compactor.done.longest_hold_s * 1000
    kept = store.database.path.stat().st_size
    compactor.close()
    store.close()
    return cpu_s / count * 1e6, wall_s, kept / count, size / count, peak, hold_ms
