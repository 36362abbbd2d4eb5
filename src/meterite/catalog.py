"""Metrics and series as the service sees them: kept in memory, checked against the database.

What is kept may be old; a commit compares the catalogue's version and refuses what was resolved too early, so success
never rests on it. A refusal doesn't either: before anyone is told "no such metric" or "not active", it is read anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import Batch
from meterite.model.errors import ConflictError, NotFoundError
from meterite.model.metric import SERIES_ORDINAL_BITS, MetricState
from meterite.model.time import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from meterite.lanes import Lanes
    from meterite.model.columns import Decoded, Described, Labels, SeriesKey, type_i64, type_u32
    from meterite.model.errors import ExhaustedError
    from meterite.model.metric import Metric, MetricSpec
    from meterite.model.truncate import Truncation
    from meterite.storage.interface import SeriesLimits, Store

    _Request = tuple[str, int, SeriesKey | None]

METRICS_KEPT: Final = 100_000
METRICS_BYTES_KEPT: Final = 128 * 1024 * 1024
"""About. As metrics usually are, all of them take less; with texts as long as they may be one takes 45 KB."""
_METRIC_BYTES: Final = 600
"""Of memory for a metric beside its texts, as measured."""
_TEXT_BYTES: Final = 60
_WIDE_LETTER_BYTES: Final = 4
"""Two at most in most scripts, and three of its UTF-8, which is kept with the text once that was asked for."""
SERIES_KEPT: Final = 400_000
SERIES_BYTES_KEPT: Final = 512 * 1024 * 1024
"""About. What usually is kept takes less; labels as long as they may be took 70 KB a series."""
REQUEST_NAMES_KEPT: Final = 1_000_000
"""Of keys and labels, whose lengths would cost more to count than they are worth."""
LOAD_TRIES: Final = 10
PREFIXES_SHOWN: Final = 3
PORTION: Final = 5000
"""As many of a request's names are looked up, or kept, until other requests have their turn."""


@dataclass(frozen=True, slots=True)
class MetricView:
    """A metric and its newest readings."""

    metric: Metric
    state: MetricState
    gaps: Sequence[str] = ()
    """Sentences about damage that the state may suffer from, where the call tells them."""


@dataclass(frozen=True, slots=True)
class MetricPage:
    """Some of an org's metrics, sentences about damage that their states may suffer from, and whether more follow."""

    views: Sequence[MetricView]
    gaps: Sequence[str]
    more: bool


@dataclass(frozen=True, slots=True)
class Known:
    """A metric ready to take readings."""

    metric: Metric
    org_id: int
    truncation: Truncation | None

    @property
    def named_truncation(self) -> tuple[str | None, str | None]:
        """Equal for metrics that are truncated alike."""
        spec = self.metric.spec
        return (None, None) if self.truncation is None else (spec.truncate_reading_to, spec.timezone)


class Resolution:
    """A request's keys as the catalogue knows them: the metrics by code, and a series id a key.

    An id is 0 where the key's metric isn't there or not active, or it has no such series yet.
    """

    __slots__ = ("_batch", "ids", "keys", "metrics", "truncates")

    def __init__(self, keys: list[SeriesKey], metrics: dict[str, Known | None], ids: list[int]) -> None:
        self.keys = keys
        self.metrics = metrics
        self.ids = ids
        self.truncates = _truncates(metrics)
        self._batch: tuple[type_i64, type_u32] | None = None

    def learn(self, made: Mapping[str, Known]) -> None:
        """Metrics that are there now; another request may have made them, as it likes them."""
        self.metrics |= made
        self.truncates = self.truncates or _truncates(made)

    @property
    def org_id(self) -> int:
        """Of an org that has one of the metrics."""
        return next(known.org_id for known in self.metrics.values() if known is not None)

    def batch(self, decoded: Decoded, at_us: type_i64) -> Batch:
        """The rows, all of keys that have a series: series ascending and distinct, none without rows."""
        if self._batch is None:
            distinct, inverse = np.unique(np.array(self.ids, np.int64), return_inverse=True)
            self._batch = distinct, inverse.astype(np.uint32)
        series, place = self._batch
        index = place[decoded.key_index]
        counts = np.bincount(index, minlength=len(series))
        if counts.all():
            return Batch(series, index, at_us, decoded.values)
        used = np.flatnonzero(counts)
        narrowed = np.zeros(len(series), np.uint32)
        narrowed[used] = np.arange(len(used), dtype=np.uint32)
        return Batch(series[used], narrowed[index], at_us, decoded.values)


def _truncates(metrics: Mapping[str, Known | None]) -> bool:
    return any(known is not None and known.truncation is not None for known in metrics.values())


class Kept:
    """What this worker keeps of the catalogue, true as of ``version``. Bounded by bytes; the oldest goes first.

    Whole requests' keys are kept, too, where each had its series: who sends the same series again and again (most do)
    is resolved by one comparison of lists, which costs nothing a key that is the same object as before.
    """

    def __init__(self) -> None:
        self.version = -1
        self._requests: OrderedDict[_Request, Resolution] = OrderedDict()
        self._request_names = 0
        self.metrics: OrderedDict[tuple[str, str], Known] = OrderedDict()
        self._metric_bytes = 0
        self.series: OrderedDict[tuple[int, Labels], int] = OrderedDict()
        self._series_bytes = 0
        self.orgs: dict[int, str] = {}

    def drop(self, org_id: int, code: str) -> None:
        self._drop_metric(self.orgs.get(org_id, ""), code)
        self._requests.clear()
        self._request_names = 0

    def request(self, org: str, keys: list[SeriesKey]) -> Resolution | None:
        """What a request of the org with these keys was resolved to."""
        found = self._requests.get(_request_of(org, keys))
        return found if found is not None and found.keys == keys else None

    def keep_request(self, org: str, resolution: Resolution) -> None:
        """Of each org the last one that begins with its key and is as long: many series come in parts."""
        place = _request_of(org, resolution.keys)
        before = self._requests.pop(place, None)
        self._request_names += _names(resolution.keys) - (0 if before is None else _names(before.keys))
        self._requests[place] = resolution
        while self._request_names > REQUEST_NAMES_KEPT:
            _, oldest = self._requests.popitem(last=False)
            self._request_names -= _names(oldest.keys)

    def keep_metric(self, org: str, known: Known) -> None:
        self._drop_metric(org, known.metric.code)
        self.metrics[org, known.metric.code] = known
        self._metric_bytes += _metric_bytes(known)
        self.orgs[known.org_id] = org
        while len(self.metrics) > METRICS_KEPT or self._metric_bytes > METRICS_BYTES_KEPT:
            _, oldest = self.metrics.popitem(last=False)
            self._metric_bytes -= _metric_bytes(oldest)

    def _drop_metric(self, org: str, code: str) -> None:
        before = self.metrics.pop((org, code), None)
        if before is not None:
            self._metric_bytes -= _metric_bytes(before)

    def keep_series(self, metric_id: int, labels: Labels, series: int) -> None:
        if (metric_id, labels) not in self.series:
            self._series_bytes += _bytes_of(labels)
        self.series[metric_id, labels] = series
        while len(self.series) > SERIES_KEPT or self._series_bytes > SERIES_BYTES_KEPT:
            (_, oldest), _ = self.series.popitem(last=False)
            self._series_bytes -= _bytes_of(oldest)


def portions(count: int) -> Iterator[slice]:
    """Of what may be many: between two of them others have their turn."""
    for start in range(0, count, PORTION):
        yield slice(start, start + PORTION)


def _request_of(org: str, keys: list[SeriesKey]) -> _Request:
    return org, len(keys), keys[0] if keys else None


def _names(keys: list[SeriesKey]) -> int:
    return len(keys) + sum([len(key.labels) for key in keys])


def _metric_bytes(known: Known) -> int:
    spec = known.metric.spec
    texts = (spec.code, spec.name, spec.unit, spec.description)
    return _METRIC_BYTES + sum([_text_bytes(text) for text in texts if text is not None])


def _text_bytes(text: str) -> int:
    """About, and always the same: ``sys.getsizeof`` grows when a text's UTF-8 is asked for, and more went than came."""
    return _TEXT_BYTES + len(text) * (1 if text.isascii() else _WIDE_LETTER_BYTES)


def _bytes_of(labels: Labels) -> int:
    """About what it takes to keep them: a pair and two texts each, and what holds them all."""
    return 300 + sum([200 + len(name) + len(value) for name, value in labels])


def no_metric(code: str) -> NotFoundError:
    return NotFoundError(
        "metric-not-found",
        f"There is no metric {code[:200]!r}; make it with POST /metric/, or by a push to /readings (auto_create).",
    )


def not_made(code: str, prefixes: Sequence[str]) -> NotFoundError:
    """Where readings were pushed that may not make it: only metrics whose codes begin with one of ``prefixes``."""
    shown = [excerpt(prefix) for prefix in prefixes[:PREFIXES_SHOWN]]
    if len(prefixes) > PREFIXES_SHOWN:
        shown.append(f"{len(prefixes) - PREFIXES_SHOWN} more")
    which = f"those alone be made whose codes begin with {' or '.join(shown)}" if shown else "none be made"
    return NotFoundError(
        "metric-not-found",
        f"There is no metric {code[:200]!r}, and auto_create lets {which}; make it with POST /metric/.",
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

    async def page(self, org: str, limit: int, after: int = 0) -> MetricPage:
        """The first of the org's metrics by id, of those behind the id ``after``."""
        return await self._lanes.read(self._page, org, limit, after)

    def _page(self, org: str, limit: int, after: int) -> MetricPage:
        found = self._store.catalog.page(org, limit + 1, after)
        metrics = found[:limit]
        states = self._states(org, metrics)
        views = [MetricView(m, s) for m, s in zip(metrics, states, strict=True)]
        return MetricPage(views, self._gaps(org, metrics), more=len(found) > limit)

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
        return (await self.known_many(org, [code]))[code]

    async def _loaded(self, org: str, codes: list[str]) -> dict[str, Known]:
        """Metrics read anew, and kept if they hold as of ``kept.version``.

        While a thread reads, another request may learn of a change and move the version on: what was read before the
        change would then pass for what came after it. What isn't kept is still good for one commit, which compares.
        """
        loaded: dict[str, Known] = {}
        for some in portions(len(codes)):
            found: dict[str, Known] = {}
            for _ in range(LOAD_TRIES):
                version = self.kept.version
                found = await self._lanes.read(self._load, org, codes[some])
                if version == self.kept.version:
                    for known in found.values():
                        self.kept.keep_metric(org, known)
                    break
            loaded |= found
        return loaded

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
        missing = [code for code, known in kept.items() if known is None]
        return kept | dict(await self._loaded(org, missing)) if missing else kept

    async def resolve(self, org: str, keys: list[SeriesKey]) -> Resolution:
        """From memory where they are there; never a stale "no"."""
        resolution = self.kept.request(org, keys)
        if resolution is None:
            resolution = self._from_memory(org, keys)
            missing = [n for n, id_ in enumerate(resolution.ids) if not id_]
            if missing:
                await self._look_up(org, keys, resolution.metrics, resolution.ids, missing)
                return Resolution(keys, resolution.metrics, resolution.ids)
        return resolution

    def resolve_kept(self, org: str, keys: list[SeriesKey]) -> Resolution | None:
        """The same, where all of it is in memory."""
        resolution = self.kept.request(org, keys) or self._from_memory(org, keys)
        return resolution if all(resolution.ids) else None

    def _from_memory(self, org: str, keys: list[SeriesKey]) -> Resolution:
        """With the id 0 where it isn't there; kept, where all is."""
        metrics: dict[str, Known | None] = {}
        ids = [self._kept_id(org, key, metrics) for key in keys]
        resolution = Resolution(keys, metrics, ids)
        if all(ids):
            self.kept.keep_request(org, resolution)
        return resolution

    async def _look_up(
        self,
        org: str,
        keys: list[SeriesKey],
        metrics: dict[str, Known | None],
        ids: list[int],
        missing: list[int],
    ) -> None:
        """Fill in what of ``missing`` there is."""
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

    async def _series(self, wanted: list[tuple[int, Labels]]) -> list[int]:
        """Ids of series, 0 for those that aren't there yet."""
        if not any(labels for _, labels in wanted):
            return [metric_id << SERIES_ORDINAL_BITS for metric_id, _ in wanted]
        ids: list[int] = []
        for some in portions(len(wanted)):
            found = await self._lanes.read(self._store.catalog.find_series, wanted[some])
            for (metric_id, labels), id_ in zip(wanted[some], found, strict=True):
                if id_ and labels:
                    self.kept.keep_series(metric_id, labels, id_)
            ids += found
        return ids

    async def make(
        self, org: str, keys: list[SeriesKey], specs: dict[str, MetricSpec], *, whole: bool, version: int
    ) -> tuple[dict[str, Known], list[int | ExhaustedError]]:
        """The metrics that were made, and a series id a key, or why there is none. See the store's own.

        Of a metric that went away meanwhile the id is 0: resolve again.
        """
        steps = self._store.catalog.making(org, keys, specs, self._limits, whole=whole, version=version)
        made = await self._lanes.write_steps(org, steps)
        metrics = await self._loaded(org, list(specs)) if specs else {}
        for some in portions(len(keys)):
            for key, id_ in zip(keys[some], made[some], strict=True):
                if isinstance(id_, int) and id_ and key.labels:
                    self.kept.keep_series(id_ >> SERIES_ORDINAL_BITS, key.labels, id_)
            await asyncio.sleep(0)
        return metrics, made

    async def describe(self, org: str, described: Mapping[str, Described]) -> None:
        """Fill in what metrics lack of units and descriptions; what is there stays."""
        known = await self.known_many(org, described)
        lacking = {code: told for code, told in described.items() if _lacks(known[code], told)}
        if lacking:
            await self._lanes.write(self._store.catalog.describe, org, lacking)
            await self.refresh()

    def learns_nothing(self, org: str, described: Mapping[str, Described]) -> bool:
        """Whether each of the metrics is in memory, and has what is told of it."""
        metrics = self.kept.metrics
        return all(
            (known := metrics.get((org, code))) is not None and not _lacks(known, told)
            for code, told in described.items()
        )

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
