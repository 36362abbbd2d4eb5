"""The way of a write: resolve, truncate, commit, receipt.

A request is all or nothing unless it asks for the good part; an answer of success means that it is on disk. Where the
catalogue changed between resolving and committing, the request is resolved again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.catalog import PORTION, Catalog, Known, Resolution, inactive, no_metric, not_made, portions
from meterite.model.check import fitting
from meterite.model.columns import NO_TIME, Batch, Decoded, Labels, SeriesKey, Single
from meterite.model.errors import MeteriteError, MovedError, RepeatedError, UnavailableError, metric_moved
from meterite.model.metric import made_by_readings
from meterite.model.time import HOUR_US, SECOND_US
from meterite.recording.admission import Admission
from meterite.recording.receipts import (
    Receipt,
    Recorded,
    check_same,
    encode_kept,
    encode_kept_one,
    keepable,
    kept_receipt,
    kept_recorded,
)
from meterite.storage.interface import Append

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meterite.lanes import Lanes
    from meterite.model.columns import type_i64
    from meterite.model.truncate import Truncation
    from meterite.recording.admission import Rules
    from meterite.recording.group import Done, GroupCommit
    from meterite.storage.interface import PushGroup, Store
    from meterite.storage.once import KeptReceipt, Once

RESOLVE_TRIES: Final = 10
NO_READINGS: Final = Batch(
    np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float64)
)
OPEN_FIRST: Final = int(np.iinfo(np.int64).min)
OPEN_LAST: Final = int(np.iinfo(np.int64).max)
SURELY_FIRST_US: Final = 946_684_800 * SECOND_US
"""The year 2000: an earlier time may be one of today in another unit."""
SURELY_AHEAD_US: Final = HOUR_US


def unsettled() -> UnavailableError:
    return UnavailableError("catalog-moving", "The metrics keep changing; try again.")


class Recorder:
    """Writes readings. ``now_us`` gives the time where truncation needs one before the commit."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        group: GroupCommit,
        lanes: Lanes,
        now_us: Callable[[], int],
        rules: Rules,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._group = group
        self._lanes = lanes
        self._now = now_us
        self._rules = rules

    async def record_one(
        self,
        org: str,
        code: str,
        value: float,
        at_us: int | None,
        labels: Labels = (),
        once: Once | None = None,
    ) -> Recorded:
        """One reading. NotFoundError, ConflictError, UnavailableError."""
        for _ in range(RESOLVE_TRIES):
            kept = await self._kept(org, once)
            if kept is not None:
                return kept_recorded(kept)
            known = await self._active(org, code)
            try:
                series = await self._series_of(known, labels)
                return await self.push(known, series, value, at_us, once)
            except MovedError:
                await self._catalog.refresh()
            except RepeatedError:
                continue
        raise unsettled()

    async def _kept(self, org: str, once: Once | None) -> KeptReceipt | None:
        """What became of the request where it came before. InvalidInputError where that was another body."""
        if once is None:
            return None
        kept = await self._lanes.read(self._receipt, org, once.key)
        if kept is not None:
            check_same(kept, once)
        return kept

    def _receipt(self, org: str, key: bytes) -> KeptReceipt | None:
        return self._store.receipt(self._store.catalog.org_id(org), key)

    async def _series_of(self, known: Known, labels: Labels) -> int:
        """The metric's series with these labels, made where it is new. ExhaustedError, MovedError."""
        if not labels:
            return known.metric.series_first
        version, org, keys = (
            self._catalog.kept.version,
            known.metric.org,
            [SeriesKey(known.metric.code, labels)],
        )
        (found,) = (await self._catalog.resolve(org, keys)).ids
        if found:
            return found
        _, (made,) = await self._catalog.make(org, keys, {}, whole=True, version=version)
        if not isinstance(made, int):
            raise made
        if not made:
            raise metric_moved()
        return made

    def kept(self, org: str, code: str) -> Known | None:
        """The metric where this worker has it in memory and active; else ask :meth:`record_one`."""
        known = self._catalog.kept.metrics.get((org, code))
        return known if known is not None and known.metric.active else None

    def series_kept(self, known: Known, labels: Labels) -> int:
        """The metric's series with these labels where this worker has it in memory; 0 where only others may know."""
        if not labels:
            return known.metric.series_first
        return self._catalog.kept.series.get((known.metric.id, labels), 0)

    def submit(self, append: Append, done: Done) -> None:
        """Commit with whatever waits; ``done`` is told when it is on disk, or why it isn't. UnavailableError."""
        self._group.submit(append, done)

    def surely_in_time(self, at_us: int) -> bool:
        """Whether nothing can be wrong with a time, whatever its unit; where it may, :meth:`record` looks closer."""
        future_us_max = self._rules.times.future_us_max
        ahead = SURELY_AHEAD_US if future_us_max is None else min(future_us_max, SURELY_AHEAD_US)
        return SURELY_FIRST_US <= at_us <= self._now() + ahead

    def append_kept(self, org: str, decoded: Decoded) -> Append | None:
        """What :meth:`record` would commit, where all is in memory and there is nothing to say of any reading."""
        if decoded.rejected or decoded.skipped or not len(decoded):
            return None
        if decoded.described and not self._catalog.learns_nothing(org, decoded.described):
            return None
        given = decoded.at_us[decoded.at_us != NO_TIME]
        if len(given) and not (
            self.surely_in_time(int(given.min())) and self.surely_in_time(int(given.max()))
        ):
            return None
        resolution = self._catalog.resolve_kept(org, decoded.keys)
        if resolution is None:
            return None
        return self._append(self._catalog.kept.version, decoded, resolution, full=False)

    async def push(
        self, known: Known, series: int, value: float, at_us: int | None, once: Once | None = None
    ) -> Recorded:
        """One reading of a metric at hand. MovedError where the catalogue says something else by now."""
        append = self.append_one(known, series, value, at_us)
        if once is not None:
            assert isinstance(append.batch, Single)
            append.once = replace(once, data=encode_kept_one(known.metric.id, append.batch.at_us))
        await self._group.add(append)
        assert isinstance(append.batch, Single)
        return Recorded(known.metric.id, append.given_us or append.batch.at_us, append.recorded_at_us)

    def append_one(self, known: Known, series: int, value: float, at_us: int | None) -> Append:
        """A single reading on its way, truncated. MovedError where the metric changed since it was looked up."""
        if not self._catalog.holds(known):
            raise metric_moved()
        if known.truncation is not None:
            at_us = known.truncation.one(self._now() if at_us is None else at_us)
        single = Single(series, NO_TIME if at_us is None else at_us, value)
        return Append(known.org_id, self._catalog.kept.version, single)

    async def _active(self, org: str, code: str) -> Known:
        known = await self._catalog.known(org, code)
        if known is None:
            raise no_metric(code)
        if not known.metric.active:
            raise inactive()
        return known

    async def record(
        self,
        org: str,
        decoded: Decoded,
        *,
        partial: bool = False,
        full: bool = False,
        group: PushGroup | None = None,
        once: Once | None = None,
    ) -> Receipt:
        """Many readings. Refused whole, the receipt has ``accepted`` 0 and no time, and nothing was made.

        A ``group`` (never with ``full``) is what they make of it, and none at all change it, too. Of requests with one
        ``once`` the first is committed, and all have its receipt, as much as is kept of it.
        """
        if decoded.described:
            described = {code: fitting(told) for code, told in decoded.described.items()}
            decoded = replace(decoded, described=described)
        for _ in range(RESOLVE_TRIES):
            kept = await self._kept(org, once)
            if kept is not None:
                return kept_receipt(kept)
            try:
                return await self._record(org, decoded, partial=partial, full=full, group=group, once=once)
            except MovedError:
                await self._catalog.refresh()
            except RepeatedError:
                continue
        raise unsettled()

    async def _record(
        self,
        org: str,
        decoded: Decoded,
        *,
        partial: bool,
        full: bool,
        group: PushGroup | None,
        once: Once | None,
    ) -> Receipt:
        """One try. MovedError, RepeatedError."""
        version = self._catalog.kept.version  # resolving may wait, and another request move it on meanwhile
        resolution, good = await self._admitted(org, decoded, partial=partial)
        receipt = Receipt(len(good), good.rejected, None, counted=decoded.counted, skipped=decoded.skipped)
        if good.rejected and not partial:
            return replace(receipt, accepted=0)
        if decoded.described:  # where a metric learns something, the commit will find it moved
            await self._catalog.describe(org, decoded.described)
        if not len(good) and group is None:
            nothing = replace(receipt, committed_at_us=self._now())
            return replace(nothing, replaced=0, unchanged=0, events=()) if full else nothing
        if len(good):
            append = self._append(version, good, resolution, full=full)
        else:
            org_id = await self._lanes.write(self._store.catalog.org_id, org)
            append = Append(org_id, version, NO_READINGS)
        append.group = group
        if once is not None:
            receipt = keepable(receipt)

        def receipt_of(done: Append) -> Receipt:
            told = replace(receipt, committed_at_us=done.recorded_at_us)
            return _with_all(told, done) if full else told

        if once is not None:
            append.once = replace(
                once, data=(lambda done: encode_kept(receipt_of(done))) if full else encode_kept(receipt)
            )
        if full:
            await self._lanes.read(self._store.prepare, append)
        await self._group.add(append)
        return receipt_of(append)

    async def _admitted(self, org: str, decoded: Decoded, *, partial: bool) -> tuple[Resolution, Decoded]:
        """The metrics and series of what may enter, made where they are new; and that, with what is rejected."""
        version = self._catalog.kept.version
        resolution = await self._catalog.resolve(org, decoded.keys)
        admission = Admission(decoded)
        admission.check_times(self._now(), self._rules.times)
        new = [] if all(resolution.ids) else [n for n, id_ in enumerate(resolution.ids) if not id_]
        errors = self._refusals(org, decoded, resolution.metrics, new) if new else {}
        good = await self._good(admission, errors, len(decoded))
        if new and (partial or not good.rejected):
            used = set(np.unique(good.key_index).tolist())
            new = [n for n in new if n in used]
            errors = await self._make(org, good, resolution, new, whole=not partial, version=version)
            good = await self._good(admission, errors, len(decoded))
        return resolution, good

    async def _good(self, admission: Admission, errors: Mapping[int, MeteriteError], rows: int) -> Decoded:
        """What is left without these keys; of many rows beside the event loop."""

        def good() -> Decoded:
            admission.refuse_keys(errors)
            return admission.good()

        return await self._lanes.read(good) if errors and rows > PORTION else good()

    def _refusals(
        self, org: str, decoded: Decoded, metrics: dict[str, Known | None], keys: list[int]
    ) -> dict[int, MeteriteError]:
        """Why keys without a series can't be given one, by their number."""
        errors: dict[int, MeteriteError] = {}
        for n in keys:
            code = decoded.keys[n].code
            known = metrics[code]
            if known is None and not self._rules.auto_create.allows(org, code):
                errors[n] = not_made(code, self._rules.auto_create.prefixes(org))
            elif known is not None and not known.metric.active:
                errors[n] = inactive()
        return errors

    async def _make(
        self,
        org: str,
        decoded: Decoded,
        resolution: Resolution,
        keys: list[int],
        *,
        whole: bool,
        version: int,
    ) -> dict[int, MeteriteError]:
        """Give these keys their series, and fill them into the resolution; answers why others have none."""
        if not keys:
            return {}
        metrics = resolution.metrics
        wanted = [decoded.keys[n] for n in keys]
        codes = dict.fromkeys(key.code for key in wanted if metrics[key.code] is None)
        specs = {code: made_by_readings(code, decoded.described.get(code)) for code in codes}
        made, outcomes = await self._catalog.make(org, wanted, specs, whole=whole, version=version)
        resolution.learn(made)
        errors: dict[int, MeteriteError] = {}
        gone = False
        for some in portions(len(keys)):
            for n, key, outcome in zip(keys[some], wanted[some], outcomes[some], strict=True):
                if isinstance(outcome, int):
                    gone = gone or (outcome > 0 and metrics[key.code] is None)
                    resolution.ids[n] = outcome
                else:
                    errors[n] = outcome
            await asyncio.sleep(0)
        if gone or (not errors and not all(outcomes)):
            raise metric_moved()
        return errors

    def _append(self, version: int, decoded: Decoded, resolution: Resolution, *, full: bool) -> Append:
        at_us = self._truncate(decoded, resolution.metrics) if resolution.truncates else decoded.at_us
        return Append(resolution.org_id, version, resolution.batch(decoded, at_us), compare=full)

    def _truncate(self, decoded: Decoded, metrics: dict[str, Known | None]) -> type_i64:
        """The rows of all metrics that are truncated alike at once: there may be as many keys as rows."""
        at_us = decoded.at_us.copy()
        kinds: dict[tuple[str | None, str | None], int] = {}
        truncations: list[Truncation | None] = []
        kind = np.empty(len(decoded.keys), np.uint32)
        for n, key in enumerate(decoded.keys):
            known = metrics[key.code]
            named = (None, None) if known is None else known.named_truncation
            kind[n] = kinds.setdefault(named, len(kinds))
            if len(truncations) < len(kinds):
                truncations.append(None if known is None else known.truncation)
        kind = kind[decoded.key_index]
        order = np.argsort(kind, kind="stable")
        ends = np.cumsum(np.bincount(kind, minlength=len(kinds)))
        for truncation, rows in zip(truncations, np.split(order, ends[:-1]), strict=True):
            if truncation is not None:
                times = at_us[rows]
                times[times == NO_TIME] = self._now()
                at_us[rows] = truncation.many(times)
        return at_us

    async def erase(
        self, org: str, code: str, *, start_us: int | None, end_us: int | None, labels: Labels
    ) -> int:
        """Hide readings from ``start_us`` on and before ``end_us``; answers when it was committed, µs."""
        view = await self._catalog.view(org, code)
        return await self._lanes.write(
            self._store.erase,
            self._store.catalog.org_id(org),
            view.metric,
            OPEN_FIRST if start_us is None else start_us,
            OPEN_LAST if end_us is None else end_us - 1,
            labels,
        )


def _with_all(receipt: Receipt, done: Append) -> Receipt:
    """With what the commit found out for one who asked for it."""
    return replace(
        receipt,
        replaced=done.replaced,
        unchanged=done.unchanged,
        events=done.events,
        events_more=done.events_more,
    )
