"""Metrics and series as the service sees them: kept in memory, checked against the database.

What is kept may be old; a commit compares the catalogue's version and refuses what was resolved too early, so success
never rests on it. A refusal doesn't either: before anyone is told "no such metric" or "not active", it is read anew.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import Batch
from meterite.model.errors import ConflictError, NotFoundError
from meterite.model.metric import MetricState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meterite.lanes import Lanes
    from meterite.model.columns import Decoded, Labels, SeriesKey
    from meterite.model.metric import Metric, MetricSpec
    from meterite.model.truncate import Truncation
    from meterite.storage.interface import Store

METRICS_KEPT: Final = 100_000
SERIES_KEPT: Final = 400_000
LOAD_TRIES: Final = 10


@dataclass(frozen=True, slots=True)
class MetricView:
    """A metric and its newest readings."""

    metric: Metric
    state: MetricState
    gaps: Sequence[str] = ()
    """Sentences about damage that the state may suffer from, where the call tells them."""


@dataclass(frozen=True, slots=True)
class Known:
    """A metric ready to take readings."""

    metric: Metric
    org_id: int
    truncation: Truncation | None


class Kept:
    """What this worker keeps of the catalogue, true as of ``version``. Bounded; the oldest goes first."""

    def __init__(self) -> None:
        self.version = -1
        self.metrics: OrderedDict[tuple[str, str], Known] = OrderedDict()
        self.series: OrderedDict[tuple[int, Labels], int] = OrderedDict()
        self.orgs: dict[int, str] = {}

    def drop(self, org_id: int, code: str) -> None:
        self.metrics.pop((self.orgs.get(org_id, ""), code), None)

    def keep_metric(self, org: str, known: Known) -> None:
        self.metrics[org, known.metric.code] = known
        self.orgs[known.org_id] = org
        while len(self.metrics) > METRICS_KEPT:
            self.metrics.popitem(last=False)

    def keep_series(self, metric_id: int, labels: Labels, series: int) -> None:
        self.series[metric_id, labels] = series
        while len(self.series) > SERIES_KEPT:
            self.series.popitem(last=False)


def no_metric(code: str) -> NotFoundError:
    return NotFoundError(
        "metric-not-found", f"There is no metric {code[:200]!r}; make it with POST /metric/."
    )


def inactive() -> ConflictError:
    return ConflictError(
        "metric-inactive", "The metric takes no readings while it is not active; activate it first."
    )


class Catalog:
    """Async face of the metrics; the event loop's thread alone touches what is kept."""

    def __init__(self, store: Store, lanes: Lanes) -> None:
        self._store = store
        self._lanes = lanes
        self.kept = Kept()

    async def page(self, org: str, limit: int) -> tuple[list[MetricView], list[str]]:
        """The first of the org's metrics, and sentences about damage that their states may suffer from."""
        return await self._lanes.read(self._page, org, limit)

    def _page(self, org: str, limit: int) -> tuple[list[MetricView], list[str]]:
        metrics = self._store.catalog.page(org, limit)
        states = self._states(org, metrics)
        return [MetricView(m, s) for m, s in zip(metrics, states, strict=True)], self._gaps(org, metrics)

    def _states(self, org: str, metrics: list[Metric]) -> list[MetricState]:
        ids = np.array([m.id for m in metrics], np.int64)
        return self._store.states(self._store.catalog.org_id(org), ids)

    def _gaps(self, org: str, metrics: list[Metric]) -> list[str]:
        ids = np.array([m.id for m in metrics], np.int64)
        return self._store.gaps(self._store.catalog.org_id(org), ids)

    def _with_gaps(self, metric: Metric) -> MetricView:
        (state,) = self._states(metric.org, [metric])
        return MetricView(metric, state, self._gaps(metric.org, [metric]))

    async def view(self, org: str, code: str) -> MetricView:
        return await self._lanes.read(self.view_now, org, code)

    def view_now(self, org: str, code: str) -> MetricView:
        """Blocks. NotFoundError."""
        metric = self._store.catalog.metric(org, code)
        if metric is None:
            raise no_metric(code)
        return MetricView(metric, self._states(org, [metric])[0])

    async def create(self, org: str, spec: MetricSpec) -> MetricView:
        metric = await self._lanes.write(self._store.catalog.create, org, spec)
        return MetricView(metric, MetricState())

    async def update(self, org: str, code: str, changes: Mapping[str, object]) -> MetricView:
        return await self._lanes.write(self._update, org, code, changes)

    def _update(self, org: str, code: str, changes: Mapping[str, object]) -> MetricView:
        return self._with_gaps(self._store.catalog.update(org, code, changes))

    async def set_active(self, org: str, code: str, active: bool) -> MetricView:
        return await self._lanes.write(self._set_active, org, code, active)

    def _set_active(self, org: str, code: str, active: bool) -> MetricView:
        return self._with_gaps(self._store.catalog.set_active(org, code, active=active))

    async def delete(self, org: str, code: str) -> MetricView:
        return await self._lanes.write(self._delete, org, code)

    def _delete(self, org: str, code: str) -> MetricView:
        metric, state = self._store.catalog.delete(org, code)
        return MetricView(metric, state or MetricState(), self._gaps(org, [metric]))

    async def refresh(self) -> None:
        """Forget what changed since we last looked."""
        version, changed = await self._lanes.read(self._store.catalog.changed, self.kept.version)
        for org_id, code in changed:
            self.kept.drop(org_id, code)
        self.kept.version = max(self.kept.version, version)

    async def known(self, org: str, code: str) -> Known | None:
        """The metric, from memory where it is there; never a stale "no"."""
        found = self.kept.metrics.get((org, code))
        if found is not None and found.metric.active:
            return found
        await self.refresh()
        found = self.kept.metrics.get((org, code))
        return await self._loaded(org, code) if found is None else found

    async def _loaded(self, org: str, code: str) -> Known | None:
        """The metric read anew, and kept if it holds as of ``kept.version``.

        While a thread reads, another request may learn of a change and move the version on: what was read before the
        change would then pass for what came after it. What isn't kept is still good for one commit, which compares.
        """
        found = None
        for _ in range(LOAD_TRIES):
            version = self.kept.version
            found = await self._lanes.read(self._load, org, code)
            if found is None:
                break
            if version == self.kept.version:
                self.kept.keep_metric(org, found)
                break
        return found

    def _load(self, org: str, code: str) -> Known | None:
        from meterite.model.truncate import Truncation

        metric = self._store.catalog.metric(org, code)
        if metric is None:
            return None
        truncation = None
        if metric.spec.truncate_reading_to is not None:
            truncation = Truncation.of(metric.spec.truncate_reading_to, metric.spec.timezone)
        return Known(metric, self._store.catalog.org_id(org), truncation)

    async def series_of(self, known: Known, labels: list[Labels]) -> list[int]:
        """Ids of the metric's series, made where they are new."""
        metric_id, first = known.metric.id, known.metric.series_first
        found = [self.kept.series.get((metric_id, pairs), 0) if pairs else first for pairs in labels]
        missing = [pairs for pairs, id_ in zip(labels, found, strict=True) if not id_]
        if not missing:
            return found
        # Ids never change, but by the time the missing ones are there, other requests may have pushed out the rest.
        ids = await self._lanes.write(self._store.catalog.series, known.org_id, known.metric, missing)
        made = iter(ids)
        found = [id_ or next(made) for id_ in found]
        for pairs, id_ in zip(missing, ids, strict=True):
            self.kept.keep_series(metric_id, pairs, id_)
        return found

    async def resolve(self, org: str, keys: list[SeriesKey]) -> tuple[dict[str, Known | None], list[int]]:
        """The metrics by code, and a series id a key (0 where its metric isn't there or not active)."""
        metrics: dict[str, Known | None] = {}
        ids = [self._kept_id(org, key, metrics) for key in keys]
        by_code: dict[str, list[int]] = {}
        for n, id_ in enumerate(ids):
            if not id_:
                by_code.setdefault(keys[n].code, []).append(n)
        for code, places in by_code.items():
            known = metrics[code] = await self.known(org, code)
            if known is None or not known.metric.active:
                continue
            series = await self.series_of(known, [keys[n].labels for n in places])
            for place, id_ in zip(places, series, strict=True):
                ids[place] = id_
        return metrics, ids

    def holds(self, known: Known) -> bool:
        """Whether the metric is as it was when it was looked up; else it is to be looked up again."""
        return self.kept.metrics.get((known.metric.org, known.metric.spec.code)) is known

    def _kept_id(self, org: str, key: SeriesKey, metrics: dict[str, Known | None]) -> int:
        """The series' id where it is in memory, else 0: a request may name thousands, and each await would cost."""
        known = metrics.get(key.code)
        if known is None:
            known = self.kept.metrics.get((org, key.code))
            if known is None or not known.metric.active:
                return 0
            metrics[key.code] = known
        if not key.labels:
            return known.metric.series_first
        return self.kept.series.get((known.metric.id, key.labels), 0)


def make_batch(decoded: Decoded, ids: list[int], at_us: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Batch:
    """The rows as a batch: series ascending and distinct."""
    series, place = np.unique(np.array(ids, np.int64), return_inverse=True)
    return Batch(series, place.astype(np.uint32)[decoded.key_index], at_us, decoded.values)
