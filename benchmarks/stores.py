"""Stores to measure, filled with readings whose shape is known: series, steps of time, random walks."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.catalog import Catalog
from meterite.model.auto_create import AutoCreate
from meterite.model.columns import Batch
from meterite.model.metric import MetricSpec
from meterite.recording.admission import Rules, TimeRules
from meterite.recording.group import GroupCommit
from meterite.recording.recorder import Recorder
from meterite.storage.interface import Append, SeriesLimits
from meterite.storage.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from meterite.lanes import Lanes

ORG: Final = "org_01"
SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US
START_US: Final = 1_767_225_600 * SECOND_US
"""2026-01-01T00:00:00Z, the beginning of a month."""


@dataclass(frozen=True, slots=True)
class Filled:
    """An open store, and the ids of its series, ascending."""

    store: SqliteStore
    org_id: int
    version: int
    series: NDArray[np.int64]

    def commit(self, batch: Batch) -> None:
        append = Append(self.org_id, self.version, batch)
        self.store.commit([append])
        if append.error is not None:
            raise append.error


def open_filled(directory: Path, *, metrics: int, series: int) -> Filled:
    """A store with ``metrics`` metrics and as many series in all, evenly; without labels where one a metric."""
    store = SqliteStore(directory / "meterite.db")
    store.open()
    ids: list[int] = []
    org_id = store.catalog.org_id(ORG)
    each = series // metrics
    for n in range(metrics):
        metric = store.catalog.metric(ORG, f"M{n}")
        metric = metric or store.catalog.create(ORG, MetricSpec(code=f"M{n}", name=f"Metric {n}"))
        if each == 1:
            ids.append(metric.series_first)
        else:
            ids += store.catalog.series(org_id, metric, [(("host", f"h{m}"),) for m in range(each)])
    version, _ = store.catalog.changed(0)
    return Filled(store, org_id, version, np.array(sorted(ids), np.int64))


def walks(rng: np.random.Generator, series: int, steps: int) -> NDArray[np.float64]:
    """float64[steps, series]: two-decimal random walks, as thermometers and counters of money show."""
    walk = 20 + 0.05 * np.cumsum(rng.standard_normal((steps, series)), axis=0)
    rounded: NDArray[np.float64] = np.round(walk, 2)
    return rounded


def grid(
    ids: NDArray[np.int64], steps: int, *, step_us: int, start_us: int = START_US
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Series index and time of ``steps`` rounds in which each series has a reading."""
    index = np.tile(np.arange(len(ids), dtype=np.uint32), steps)
    at_us = np.repeat(start_us + step_us * np.arange(steps, dtype=np.int64), len(ids))
    return index, at_us


def rounds(
    filled: Filled, steps: int, *, step_us: int, each: int, start_us: int = START_US, seed: int = 1
) -> Iterator[Batch]:
    """Batches of ``each`` rounds, until there were ``steps`` rounds: random walks that go on from batch to batch."""
    rng = np.random.default_rng(seed)
    level = np.zeros(len(filled.series))
    for first in range(0, steps, each):
        count = min(each, steps - first)
        index, at_us = grid(filled.series, count, step_us=step_us, start_us=start_us + first * step_us)
        walk = level + np.cumsum(0.05 * rng.standard_normal((count, len(filled.series))), axis=0)
        level = walk[-1]
        yield Batch(filled.series, index, at_us, np.round(20 + walk, 2).ravel())


def apart(work: Callable[..., Any], *arguments: object) -> Any:
    """The work's result, done in a fresh process, so that its memory and its caches are its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def peak_bytes() -> int:
    """The most memory this process ever held; not ``ru_maxrss``, which a child inherits from its parent."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError


def catalog_on(store: SqliteStore, lanes: Lanes) -> Catalog:
    """With the limits that are the settings' defaults."""
    return Catalog(store, lanes, SeriesLimits(org_series_max=1_000_000, metric_series_max=100_000))


def recorder_on(store: SqliteStore, lanes: Lanes) -> tuple[GroupCommit, Recorder]:
    """What records on a store, by the settings' defaults; the first is to be closed."""
    rules = Rules(times=TimeRules(future_us_max=DAY_US), auto_create=AutoCreate())
    group = GroupCommit(store.commit, 64 << 20)
    return group, Recorder(store, catalog_on(store, lanes), group, lanes, store.clock, rules)
