"""What deletes hide.

What this file guarantees: a reading is hidden if, and only if, some tombstone of a greater seq covers its series and
its time. The effort grows with the tombstones that touch the readings at hand, not with all there are, and with their
logarithm where many small deletes hit one range of series.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from meterite.model.columns import Columns, type_i64

    type_mask = NDArray[np.bool_]

_NO_SEQ: Final = int(np.iinfo(np.int64).min)
_LAST: Final = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Hides readings older than ``seq``: of ``series``, or where that is None of all from first to last.

    Both ends of both ranges are included.
    """

    id: int
    seq: int
    series_first: int
    series_last: int
    series: type_i64 | None
    at_first: int
    at_last: int


class Tombstones:
    """Several, by seq. They never change, and what they hide is worked out once."""

    def __init__(self, numbers: type_i64, series: list[type_i64 | None]) -> None:
        """``numbers``: a row each of id, seq, series_first, series_last, at_first, at_last; by seq."""
        self._numbers = numbers
        self._series = series

    @staticmethod
    def none() -> Tombstones:
        return Tombstones(np.empty((0, 6), np.int64), [])

    @staticmethod
    def of(tombstones: Iterable[Tombstone]) -> Tombstones:
        some = sorted(tombstones, key=lambda t: t.seq)
        rows = [(t.id, t.seq, t.series_first, t.series_last, t.at_first, t.at_last) for t in some]
        return Tombstones(np.array(rows, np.int64).reshape(-1, 6), [t.series for t in some])

    def __len__(self) -> int:
        return len(self._series)

    def __iter__(self) -> Iterator[Tombstone]:
        for (id_, seq, first, last, at_first, at_last), series in zip(
            self._numbers.tolist(), self._series, strict=True
        ):
            yield Tombstone(id_, seq, first, last, series, at_first, at_last)

    @property
    def ids(self) -> type_i64:
        return self._numbers[:, 0]

    @property
    def seq_last(self) -> int:
        """0 where there are none."""
        return int(self._numbers[-1, 1]) if len(self) else 0

    def then(self, later: Tombstones) -> Tombstones:
        """With others of greater seq."""
        return Tombstones(np.concatenate([self._numbers, later._numbers]), self._series + later._series)

    def after(self, seq: int) -> Tombstones:
        return self._cut(int(self._numbers[:, 1].searchsorted(seq, "right")), len(self))

    def upto(self, seq: int) -> Tombstones:
        return self._cut(0, int(self._numbers[:, 1].searchsorted(seq, "right")))

    def _cut(self, start: int, stop: int) -> Tombstones:
        if stop - start == len(self):
            return self
        return Tombstones(self._numbers[start:stop], self._series[start:stop])

    def chosen(self, mask: type_mask) -> Tombstones:
        if mask.all():
            return self
        return Tombstones(self._numbers[mask], [self._series[n] for n in np.flatnonzero(mask).tolist()])

    def touch(self, series_first: int, series_last: int, at_first: int, at_last: int) -> type_mask:
        """Which of them may hide a reading within these bounds."""
        _, _, first, last, begin, end = self._numbers.T
        mask: type_mask = (first <= series_last) & (last >= series_first)
        mask &= (begin <= at_last) & (end >= at_first)
        return mask

    def hide(self, columns: Columns) -> type_mask | None:
        """Which of the readings they hide; None where they hide none."""
        if not len(columns) or self.seq_last <= int(columns.seq.min()):
            return None
        series = columns.series
        ascend = bool((series[1:] >= series[:-1]).all())
        first, last = (series[0], series[-1]) if ascend else (series.min(), series.max())
        groups, bounds = self._groups
        touching = (bounds[:, 0] <= last) & (bounds[:, 1] >= first)
        touching &= (bounds[:, 2] <= columns.at_us.max()) & (bounds[:, 3] >= columns.at_us.min())
        hidden: type_mask | None = None
        for number in np.flatnonzero(touching).tolist():
            found = groups[number].hide(columns, ascend=ascend)
            if found is not None:
                hidden = np.zeros(len(columns), np.bool_) if hidden is None else hidden
                rows, mask = found
                hidden[rows] |= mask
        return hidden

    @cached_property
    def _groups(self) -> tuple[list[_Group], type_i64]:
        """Those of one range of series together; and each group's outermost series and times."""
        rows: dict[tuple[int, int, bytes | None], list[int]] = {}
        for number, (first, last) in enumerate(self._numbers[:, 2:4].tolist()):
            series = self._series[number]
            key = first, last, None if series is None else series.tobytes()
            rows.setdefault(key, []).append(number)
        groups = [
            _Group(first, last, self._series[n[0]], self._numbers[n]) for (first, last, _), n in rows.items()
        ]
        bounds = [(g.series_first, g.series_last, g.at_first, g.at_last) for g in groups]
        return groups, np.array(bounds, np.int64).reshape(-1, 4)


class _Group:
    """Tombstones of one range of series: for each time the greatest seq of those that cover it."""

    def __init__(self, first: int, last: int, series: type_i64 | None, numbers: type_i64) -> None:
        self.series_first = first
        self.series_last = last
        self._series = series
        self._seq, self._begin, self._end = numbers[:, 1], numbers[:, 4], numbers[:, 5]
        self.at_first, self.at_last = int(self._begin.min()), int(self._end.max())

    def hide(self, columns: Columns, *, ascend: bool) -> tuple[slice | NDArray[np.intp], type_mask] | None:
        """Among which rows, and which of them; None where it hides none."""
        rows: slice | NDArray[np.intp]
        if ascend:
            low = int(columns.series.searchsorted(self.series_first, "left"))
            rows = slice(low, int(columns.series.searchsorted(self.series_last, "right")))
        else:
            within = (columns.series >= self.series_first) & (columns.series <= self.series_last)
            rows = np.flatnonzero(within)
        hidden = self._seq_at(columns.at_us[rows]) > columns.seq[rows]
        if self._series is not None and hidden.any():
            hidden &= np.isin(columns.series[rows], self._series)
        return (rows, hidden) if hidden.any() else None

    def _seq_at(self, at_us: type_i64) -> type_i64:
        if len(self._seq) == 1:
            covered = (at_us >= self.at_first) & (at_us <= self.at_last)
            return np.where(covered, self._seq[0], _NO_SEQ)
        edges, seqs = self._steps
        found: type_i64 = seqs[edges.searchsorted(at_us, "right")]
        return found

    @cached_property
    def _steps(self) -> tuple[type_i64, type_i64]:
        """Times at which the greatest seq changes; the seq before the first of them, and from each on."""
        ends = self._end[self._end < _LAST] + 1
        edges = np.unique(np.concatenate([self._begin, ends]))
        seqs = np.full(len(edges) + 1, _NO_SEQ, np.int64)
        starts = (edges.searchsorted(self._begin) + 1).tolist()
        stops = (edges.searchsorted(self._end, "right") + 1).tolist()
        for start, stop, seq in zip(starts, stops, self._seq.tolist(), strict=True):
            seqs[start:stop] = seq  # in the order of seq: the greatest stays
        return edges, seqs


def mask_erased(columns: Columns, tombstones: Tombstones) -> Columns:
    """The rows that no tombstone hides, in their order; the same object where none is hidden."""
    if not len(tombstones):
        return columns
    hidden = tombstones.hide(columns)
    return columns if hidden is None else columns.take(~hidden)
