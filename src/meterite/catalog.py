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
from meterite.model.metric import SERIES_ORDINAL_BITS, MetricState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meterite.lanes import Lanes
    from meterite.model.columns import Decoded, Described, Labels, SeriesKey
    from meterite.model.errors import ExhaustedError
    from meterite.model.metric import Metric, MetricSpec
    from meterite.model.truncate import Truncation
    from meterite.storage.interface import SeriesLimits, Store

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

    def __init__(self, store: Store, lanes: Lanes, limits: SeriesLimits) -> None:
        self._store = store
        self._lanes = lanes
        self._limits = limits
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
        return (await self._loaded(org, [code])).get(code) if found is None else found

    async def _loaded(self, org: str, codes: list[str]) -> dict[str, Known]:
        """Metrics read anew, and kept if they hold as of ``kept.version``.

        While a thread reads, another request may learn of a change and move the version on: what was read before the
        change would then pass for what came after it. What isn't kept is still good for one commit, which compares.
        """
        found: dict[str, Known] = {}
        for _ in range(LOAD_TRIES):
            version = self.kept.version
            found = await self._lanes.read(self._load, org, codes)
            if version == self.kept.version:
                for known in found.values():
                    self.kept.keep_metric(org, known)
                break
        return found

    def _load(self, org: str, codes: list[str]) -> dict[str, Known]:
        from meterite.model.truncate import Truncation

        org_id = self._store.catalog.org_id(org)
        found = {}
        for metric in self._store.catalog.metrics(org, codes):
            truncation = None
            if metric.spec.truncate_reading_to is not None:
                truncation = Truncation.of(metric.spec.truncate_reading_to, metric.spec.timezone)
            found[metric.code] = Known(metric, org_id, truncation)
        return found

    async def known_many(self, org: str, codes: Iterable[str]) -> dict[str, Known | None]:
        """As :meth:`known`, of many."""
        wanted = list(codes)
        kept = {code: self.kept.metrics.get((org, code)) for code in wanted}
        if all(known is not None and known.metric.active for known in kept.values()):
            return kept
        await self.refresh()
        kept = {code: self.kept.metrics.get((org, code)) for code in wanted}
        return kept | dict(await self._loaded(org, [code for code, known in kept.items() if known is None]))

    async def resolve(self, org: str, keys: list[SeriesKey]) -> tuple[dict[str, Known | None], list[int]]:
        """The metrics by code, and a series id a key: 0 where its metric isn't there or not active, or it isn't."""
        metrics: dict[str, Known | None] = {}
        ids = [self._kept_id(org, key, metrics) for key in keys]
        missing = [n for n, id_ in enumerate(ids) if not id_]
        if not missing:
            return metrics, ids
        unknown = dict.fromkeys(keys[n].code for n in missing if keys[n].code not in metrics)
        metrics |= await self.known_many(org, unknown)
        wanted = []
        for n in missing:
            known = metrics[keys[n].code]
            if known is not None and known.metric.active:
                wanted.append((n, known.metric.id, keys[n].labels))
        found = await self._series([(metric_id, labels) for _, metric_id, labels in wanted])
        for (n, _, _), id_ in zip(wanted, found, strict=True):
            ids[n] = id_
        return metrics, ids

    async def _series(self, wanted: list[tuple[int, Labels]]) -> list[int]:
        """Ids of series, 0 for those that aren't there yet."""
        if not any(labels for _, labels in wanted):
            return [metric_id << SERIES_ORDINAL_BITS for metric_id, _ in wanted]
        ids = await self._lanes.read(self._store.catalog.find_series, wanted)
        for (metric_id, labels), id_ in zip(wanted, ids, strict=True):
            if id_ and labels:
                self.kept.keep_series(metric_id, labels, id_)
        return ids

    async def make(
        self, org: str, keys: list[SeriesKey], specs: dict[str, MetricSpec], *, whole: bool, version: int
    ) -> tuple[dict[str, Known], list[int | ExhaustedError]]:
        """The metrics that were made, and a series id a key, or why there is none. See the store's own.

        Of a metric that went away meanwhile the id is 0: resolve again.
        """
        made = await self._lanes.write(
            self._store.catalog.make, org, keys, specs, self._limits, whole=whole, version=version
        )
        metrics = await self._loaded(org, list(specs)) if specs else {}
        for key, id_ in zip(keys, made, strict=True):
            if isinstance(id_, int) and id_ and key.labels:
                self.kept.keep_series(id_ >> SERIES_ORDINAL_BITS, key.labels, id_)
        return metrics, made

    async def describe(self, org: str, described: Mapping[str, Described]) -> None:
        """Fill in what metrics lack of units and descriptions; what is there stays."""
        known = await self.known_many(org, described)
        lacking = {code: told for code, told in described.items() if _lacks(known[code], told)}
        if lacking:
            await self._lanes.write(self._store.catalog.describe, org, lacking)
            await self.refresh()

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


def _lacks(known: Known | None, told: Described) -> bool:
    """Whether it would learn something."""
    if known is None:
        return False
    spec = known.metric.spec
    return bool(told.unit and spec.unit is None) or bool(told.description and spec.description is None)


def make_batch(decoded: Decoded, ids: list[int], at_us: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Batch:
    """The rows as a batch: series ascending and distinct."""
    series, place = np.unique(np.array(ids, np.int64), return_inverse=True)
    return Batch(series, place.astype(np.uint32)[decoded.key_index], at_us, decoded.values)
