"""Many orgs, each with one reading a minute: what their readings take in the journal, the WAL and in the end.

Every minute all orgs' readings come within a few commits, as from many small senders; after the day everything is
compacted. Scaled: fewer orgs and fewer minutes, since each org has the same rows whatever the others have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import Row, own_cpu_s
from benchmarks.stores import SECOND_US, START_US
from meterite.model.columns import Single
from meterite.model.metric import MetricSpec
from meterite.storage.compaction import Compactor
from meterite.storage.interface import Append
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING

if TYPE_CHECKING:
    from meterite.model.metric import Metric

COMMIT_ORGS = 500


def run(*, full: bool) -> list[Row]:
    orgs, minutes = (10_000, 1440) if full else (500, 240)
    with tempfile.TemporaryDirectory() as name:
        store = SqliteStore(Path(name) / "meterite.db")
        store.open()
        metrics = [store.catalog.create(f"org_{n}", MetricSpec(code="M", name="M")) for n in range(orgs)]
        store.database.checkpoint(truncate=True)
        empty = store.database.path.stat().st_size
        before = own_cpu_s()
        wal = _push(store, metrics, minutes)
        push_s = own_cpu_s() - before
        store.database.checkpoint(truncate=True)
        journal = store.database.path.stat().st_size - empty
        before = own_cpu_s()
        _compact(store)
        compact_s = own_cpu_s() - before
        kept = store.database.path.stat().st_size - empty
        store.close()
    count = orgs * minutes
    how = f"{orgs:,} orgs, {minutes} minutes, {min(orgs, COMMIT_ORGS)} orgs a commit"
    day = kept / orgs / minutes * 1440
    return [
        Row("tiny orgs, WAL a reading", wal / count, "B", note=how),
        Row("tiny orgs, journal a reading", journal / count, "B", note="file, before compaction"),
        Row("tiny orgs, kept a reading", kept / count, "B", note="file, after compaction and shrinking"),
        Row(
            "tiny orgs, an org's day",
            day / 1024,
            "KiB",
            note="after compaction" if full else "scaled to 1,440",
        ),
        Row("tiny orgs, CPU a reading: commit", push_s / count * 1e6, "µs"),
        Row("tiny orgs, CPU a reading: compaction", compact_s / count * 1e6, "µs"),
    ]


def _push(store: SqliteStore, metrics: list[Metric], minutes: int) -> int:
    """Answers how many bytes went through the WAL."""
    org_ids = [store.catalog.org_id(metric.org) for metric in metrics]
    version, _ = store.catalog.changed(0)
    values = np.round(20 + np.random.default_rng(1).standard_normal(len(metrics)), 2).tolist()
    wal = 0
    for minute in range(minutes):
        at_us = START_US + minute * 60 * SECOND_US
        for first in range(0, len(metrics), COMMIT_ORGS):
            some = range(first, min(first + COMMIT_ORGS, len(metrics)))
            store.commit(
                [Append(org_ids[n], version, Single(metrics[n].series_first, at_us, values[n])) for n in some]
            )
        wal += store.database.wal_bytes()
        store.database.checkpoint(truncate=True)
    return wal


def _compact(store: SqliteStore) -> None:
    compactor = Compactor(store, EVERYTHING)
    try:
        while compactor.run_once():
            pass
        compactor.shrink()
        store.database.checkpoint(truncate=True)
    finally:
        compactor.close()
