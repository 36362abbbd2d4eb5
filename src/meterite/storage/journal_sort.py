"""Journal rows in the order of their arrival become sorted readings, month by month.

What this file guarantees: readings come out by (series, at), those of one key in the order of their arrival, and never
spread over two chunks; 4 M readings need less than 200 MB, since only ranks of series, times, values and row numbers
are held, and the sorted columns are made a chunk at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.columns import Columns
from meterite.storage.journalrow import open_journal
from meterite.storage.rowgroup import ROW_GROUP_READINGS
from meterite.storage.windows import window_of, window_starts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from meterite.model.columns import type_i64

    type_order = NDArray[np.uint32]

ROWS_MAX: Final = 1 << 16
"""Rows are numbered in 16 bits."""
_CHECK_READINGS: Final = 1 << 18


class JournalSorter:
    """Made for about so many readings; takes rows in the order of their ids."""

    def __init__(self, readings: int) -> None:
        self._at = np.empty(readings, np.int64)
        self._values = np.empty(readings, np.float64)
        self._row = np.empty(readings, np.uint16)
        self._seq: list[int] = []
        self._tables: dict[bytes, int] = {}
        self._parts: list[tuple[int, NDArray[Any] | None, int]] = []
        self._count = 0
        self._rank: NDArray[Any] = np.empty(0, np.uint16)
        self.series: type_i64 = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._count

    def add(self, blob: bytes, seq: int) -> None:
        row = open_journal(blob)
        start, stop = self._count, self._count + len(row)
        if stop > len(self._at):
            self._grow(stop)
        self._at[start:stop] = row.at_us
        self._values[start:stop] = row.values
        self._row[start:stop] = len(self._seq)
        self._seq.append(seq)
        number = self._tables.setdefault(row.series.tobytes(), len(self._tables))
        self._parts.append((number, None if row.index is None else row.index.copy(), len(row)))
        self._count = stop

    def _grow(self, readings: int) -> None:
        """More came than the rows' counts said: one is damaged, but it needn't be this row's."""
        for name in ("_at", "_values", "_row"):
            column = getattr(self, name)
            wider = np.empty(readings, column.dtype)
            wider[: self._count] = column[: self._count]
            setattr(self, name, wider)

    def finish(self) -> None:
        """No more rows come: number the series in their order."""
        self._at = self._at[: self._count]
        self._values = self._values[: self._count]
        self._row = self._row[: self._count]
        tables = [np.frombuffer(table, np.int64) for table in self._tables]
        self.series = np.unique(np.concatenate(tables)) if tables else self.series
        kind = np.uint16 if len(self.series) <= 1 << 16 else np.uint32
        ranks = [self.series.searchsorted(table).astype(kind) for table in tables]
        self._rank = np.empty(self._count, kind)
        start = 0
        for number, index, count in self._parts:
            rank = ranks[number]
            self._rank[start : start + count] = rank[0] if index is None else rank[index]
            start += count
        self._parts.clear()
        self._tables.clear()

    def windows(self) -> Iterator[tuple[int, Iterator[Columns]]]:
        """Each month that has readings, with its chunks."""
        if not self._count:
            return
        first, last = window_of(int(self._at.min())), window_of(int(self._at.max()))
        if first == last:
            yield first, self._chunks(None)
            return
        window = window_starts(first + 1, last).searchsorted(self._at, "right").astype(np.uint16)
        order = _stable_order(window)
        counts = np.bincount(window)
        del window
        stops = np.cumsum(counts)
        for number in np.flatnonzero(counts).tolist():
            stop = int(stops[number])
            yield first + number, self._chunks(order[stop - int(counts[number]) : stop])

    def _chunks(self, rows: type_order | None) -> Iterator[Columns]:
        order = _stable_order(self._rank if rows is None else self._rank[rows])
        if rows is not None:
            order = rows[order]
        rank = self._rank[order]
        edges = np.concatenate(([0], np.flatnonzero(rank[1:] != rank[:-1]) + 1, [len(order)]))
        self._sort_times(order, rank, edges)
        seq = np.array(self._seq, np.int64)
        start = 0
        while start < len(order):
            stop = self._end_of_key(order, edges, start + ROW_GROUP_READINGS)
            chosen = order[start:stop]
            yield Columns(
                self.series[rank[start:stop]], self._at[chosen], self._values[chosen], seq[self._row[chosen]]
            )
            start = stop

    def _sort_times(self, order: type_order, rank: NDArray[Any], edges: NDArray[np.intp]) -> None:
        """Within each series by time; readings of a series mostly came in that order."""
        start = 0
        while start < len(order):
            place = int(edges.searchsorted(start + _CHECK_READINGS))
            stop = int(edges[min(place, len(edges) - 1)])
            at_us, ranks = self._at[order[start:stop]], rank[start:stop]
            if bool(((at_us[1:] < at_us[:-1]) & (ranks[1:] == ranks[:-1])).any()):
                order[start:stop] = order[start:stop][np.lexsort((at_us, ranks))]
            start = stop

    def _end_of_key(self, order: type_order, edges: NDArray[np.intp], stop: int) -> int:
        """The first place from ``stop`` on where another key begins."""
        if stop >= len(order):
            return len(order)
        series_end = int(edges[int(edges.searchsorted(stop))])
        if series_end == stop:
            return stop
        last = self._at[order[stop - 1]]
        while stop < series_end:
            ahead = self._at[order[stop : min(stop + 4096, series_end)]]
            other = int(ahead.searchsorted(last, "right"))
            stop += other
            if other < len(ahead):
                break
        return stop


def _stable_order(rank: NDArray[Any]) -> type_order:
    """Radix sort, 16 bits at a time; in 32 bits, to save memory."""
    order = np.argsort(rank.astype(np.uint16, copy=False), kind="stable").astype(np.uint32)
    if rank.dtype == np.uint16:
        return order
    high = (rank >> 16).astype(np.uint16)[order]
    return order[np.argsort(high, kind="stable")]


def newest_keys(columns: Columns) -> Columns:
    """Of sorted readings those at the two newest times of each series, NaN not counted."""
    if np.isnan(columns.values).any():
        columns = columns.take(~np.isnan(columns.values))
    if len(columns) < 3:
        return columns
    other_series = columns.series[1:] != columns.series[:-1]
    key = np.zeros(len(columns), np.int64)
    np.cumsum(other_series | (columns.at_us[1:] != columns.at_us[:-1]), out=key[1:])
    ends = np.append(np.flatnonzero(other_series), len(columns) - 1)
    lengths = np.diff(ends, prepend=-1)
    return columns.take(np.flatnonzero(key >= np.repeat(key[ends], lengths) - 1))
