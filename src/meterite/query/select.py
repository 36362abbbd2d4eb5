"""Reading back: a metric's readings by (reading_at, series), in slices of bounded memory, as one snapshot.

What this file guarantees: a snapshot is closed however its answer ends, and never while a thread still reads with it,
also where the client left and nobody waits for that thread.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import Columns
from meterite.model.errors import DamagedError
from meterite.storage.interface import Span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from numpy.typing import NDArray

    from meterite.catalog import Catalog, MetricView
    from meterite.lanes import Lanes
    from meterite.model.columns import Labels
    from meterite.model.metric import Metric
    from meterite.storage.interface import Store, View

SLICE_READINGS: Final = 65_536
SLICE_READINGS_MAX: Final = 4 * SLICE_READINGS
LABELS_KEPT: Final = 10_000
"""Series of one stream, beside those of the slice at hand."""
DAMAGED_TRIES: Final = 64

Slice = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rows:
    """One slice's readings, in the order asked for: value, µs, µs, series id."""

    reading: NDArray[np.float64]
    reading_at_us: NDArray[np.int64]
    recorded_at_us: NDArray[np.int64]
    series: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.reading)

    @classmethod
    def concat(cls, slices: list[Rows]) -> Rows:
        if not slices:
            none = np.empty(0, np.int64)
            return cls(np.empty(0), none, none, none)
        columns = zip(
            *((r.reading, r.reading_at_us, r.recorded_at_us, r.series) for r in slices), strict=True
        )
        return cls(*map(np.concatenate, columns))


class Selection:
    """One snapshot's answer. ``slices`` is to be closed; ``labels`` knows the series that came."""

    def __init__(
        self,
        lanes: Lanes,
        reader: _Reader,
        first: Rows | None,
        warnings: list[str],
        labels: Callable[[list[int]], dict[int, Labels]],
    ) -> None:
        self.warnings = warnings
        self._lanes = lanes
        self._reader = reader
        self._first = first
        self._read_labels = labels
        self._labels: dict[int, Labels] = {}

    def labels(self, series: int) -> Labels:
        """Of a series that occurred in a slice already given."""
        return self._labels[series]

    async def slices(self) -> AsyncIterator[Rows]:
        """DamagedError where a row turns out damaged only now; then the stream is to be cut."""
        try:
            rows = self._first
            while rows is not None:
                if len(rows):
                    await self._lanes.read(self._learn_labels, rows)
                    yield rows
                rows = await self._lanes.read(self._reader.next_rows)
        finally:
            self.close()

    def all_now(self) -> Iterator[Rows]:
        """Blocks; for answers bounded by a limit."""
        try:
            rows = self._first
            while rows is not None:
                yield rows
                rows = self._reader.next_rows()
        finally:
            self.close()

    def close(self) -> None:
        """For one whose slices nobody asks for."""
        self._reader.close()

    def _learn_labels(self, rows: Rows) -> None:
        series = np.unique(rows.series).tolist()
        new = [id_ for id_ in series if id_ not in self._labels]
        if len(self._labels) + len(new) > LABELS_KEPT:  # those of earlier slices aren't asked for any more
            self._labels.clear()
            new = series
        if new:
            self._labels.update(self._read_labels(new))


class _Reader:
    """Takes slices from a snapshot until it ends or the limit is reached. Blocks.

    :meth:`close` doesn't: where a thread is at a slice, that thread closes the snapshot when it has it. Rows that were
    replaced may be swept once a snapshot is closed, and the thread would take them for damaged.
    """

    def __init__(self, snapshot: View, span: Span, *, limit: int | None, descending: bool) -> None:
        self.snapshot = snapshot
        self.span = span
        self._left = limit
        self._descending = descending
        target = SLICE_READINGS if limit is None else max(256, min(SLICE_READINGS, 2 * limit))
        cuts = snapshot.cuts(span, target)
        self._slices: list[Slice] = cuts if descending else cuts[::-1]
        self._guard = threading.Lock()
        self._reading = False
        self._closed = threading.Event()

    def next_rows(self) -> Rows | None:
        """The next slice (it may be empty), None after the last."""
        with self._guard:
            if self._closed.is_set():
                return None
            self._reading = True
        try:
            return self._next_rows()
        finally:
            with self._guard:
                self._reading = False
                if self._closed.is_set():
                    self.snapshot.close()

    def _next_rows(self) -> Rows | None:
        if not self._slices or self._left == 0:
            return None
        first, last = self._slices.pop()
        columns = self._read(first, last)
        order = np.lexsort((columns.series, columns.at_us))
        if self._descending:
            order = order[::-1]
        if self._left is not None:
            order = order[: self._left]
            self._left -= len(order)
        columns = columns.take(order)
        if not len(columns):
            return Rows(columns.values, columns.at_us, columns.at_us, columns.series)
        recorded_at = self.snapshot.recorded_at(columns.seq)
        return Rows(columns.values, columns.at_us, recorded_at, columns.series)

    def _read(self, first: int, last: int) -> Columns:
        """One slice; where it holds far more than was expected, its first half, the rest put back."""
        while True:
            span = Span(self.span.series_first, self.span.series_last, first, last, self.span.series)
            chunks: list[Columns] = []
            count = 0
            for chunk in self.snapshot.scan(span):
                chunks.append(chunk)
                count += len(chunk)
                if count > SLICE_READINGS_MAX and last > first:
                    break
            else:
                return Columns.concat(chunks)
            middle = first + (last - first) // 2
            if self._descending:
                self._slices.append((first, middle))
                first = middle + 1
            else:
                self._slices.append((middle + 1, last))
                last = middle

    def close(self) -> None:
        with self._guard:
            if not self._closed.is_set() and not self._reading:
                self.snapshot.close()
            self._closed.set()


class Selector:
    """Reads readings back."""

    def __init__(self, store: Store, catalog: Catalog, lanes: Lanes) -> None:
        self._store = store
        self._catalog = catalog
        self._lanes = lanes

    async def select(
        self,
        org: str,
        code: str,
        *,
        start_us: int | None,
        end_us: int | None,
        limit: int | None,
        descending: bool,
        labels: Labels,
    ) -> Selection:
        """A snapshot of now, its first slice read already. NotFoundError."""
        view = await self._catalog.view(org, code)
        selecting = asyncio.ensure_future(
            self._lanes.read(self._select, org, view.metric, start_us, end_us, limit, descending, labels)
        )
        try:
            return await asyncio.shield(selecting)
        except asyncio.CancelledError:
            selecting.add_done_callback(_close_unwanted)
            raise

    def _select(
        self,
        org: str,
        metric: Metric,
        start_us: int | None,
        end_us: int | None,
        limit: int | None,
        descending: bool,
        labels: Labels,
    ) -> Selection:
        span = self._store.span(metric, start_us, end_us, labels)
        org_id = self._store.catalog.org_id(org)
        for _ in range(DAMAGED_TRIES):  # each turn puts one more damaged row in quarantine
            snapshot = self._store.view(org_id)
            try:
                reader = _Reader(snapshot, span, limit=limit, descending=descending)
                first = reader.next_rows()
            except DamagedError:
                snapshot.close()
                continue
            except BaseException:
                snapshot.close()
                raise
            warnings = snapshot.gaps(span) + snapshot.doubts()
            return Selection(self._lanes, reader, first, warnings, self._store.catalog.labels)
        raise DamagedError("damaged", "Too many stored rows are damaged.")

    async def newest(self, org: str, code: str, limit: int) -> tuple[MetricView, Rows, list[str]]:
        """The metric, its newest readings, and sentences about gaps."""
        view = await self._catalog.view(org, code)
        return await self._lanes.read(self._newest, org, view, limit)

    def _newest(self, org: str, view: MetricView, limit: int) -> tuple[MetricView, Rows, list[str]]:
        for _ in range(DAMAGED_TRIES):  # as above: a later slice may hold a damaged row, too
            selection = self._select(org, view.metric, None, None, limit, True, ())
            try:
                found = Rows.concat(list(selection.all_now()))
            except DamagedError:
                continue
            return view, found, selection.warnings
        raise DamagedError("damaged", "Too many stored rows are damaged.")


def _close_unwanted(selecting: asyncio.Future[Selection]) -> None:
    """The client left while its selection was made."""
    if not selecting.cancelled() and selecting.exception() is None:
        selecting.result().close()
