"""Appending batches of 5,000 readings: CPU a reading with the commit, by the recorder and by the store."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, median, own_cpu_s
from benchmarks.stores import ORG, SECOND_US, Filled, open_filled, recorder_on, rounds
from meterite.lanes import Lanes
from meterite.model.columns import Batch, Decoded, SeriesKey

SERIES = 1000
READINGS = 5000


def run(*, full: bool) -> list[Row]:
    batches, turns = (400, 9) if full else (100, 5)
    rows = []
    for metrics in (10, 1000):
        with tempfile.TemporaryDirectory() as name:
            filled = open_filled(Path(name), metrics=metrics, series=SERIES)
            each = READINGS // SERIES
            made = list(rounds(filled, batches * each, step_us=10 * SECOND_US, each=each))
            store_us = median([_store(filled, made) for _ in range(turns)])
            recorder_us = asyncio.run(_recorder(filled, metrics, made, turns))
            filled.store.close()
        how = f"{SERIES:,} series, median of {turns} rounds of {batches}; fsync included"
        what = f"append of {READINGS:,} in {metrics:,} metrics, CPU a reading"
        rows.append(Row(f"{what}: store, with the commit", store_us, "µs", 0.25, note=how))
        rows.append(Row(f"{what}: from decoded columns on", recorder_us, "µs", note="looks up 1,000 series"))
    return rows


def _store(filled: Filled, batches: list[Batch]) -> float:
    before = own_cpu_s()
    for batch in batches:
        filled.commit(batch)
    filled.store.database.checkpoint()
    return (own_cpu_s() - before) / (READINGS * len(batches)) * 1e6


async def _recorder(filled: Filled, metrics: int, batches: list[Batch], turns: int) -> float:
    lanes = Lanes()
    group, recorder = recorder_on(filled.store, lanes)
    decoded = [Decoded(keys_of(metrics), b.series_index, b.at_us, b.values) for b in batches]
    await recorder.record(ORG, decoded[0])
    times = []
    for _ in range(turns):
        before = own_cpu_s()
        for one in decoded:
            receipt = await recorder.record(ORG, one)
            assert receipt.accepted == READINGS
        await asyncio.to_thread(filled.store.database.checkpoint)
        times.append((own_cpu_s() - before) / (READINGS * len(decoded)) * 1e6)
    group.close()
    lanes.close()
    return float(np.median(times))


def keys_of(metrics: int) -> list[SeriesKey]:
    each = SERIES // metrics
    if each == 1:
        return [SeriesKey(f"M{n}") for n in range(metrics)]
    return [SeriesKey(f"M{n}", (("host", f"h{m}"),)) for n in range(metrics) for m in range(each)]
