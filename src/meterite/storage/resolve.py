"""What becomes of readings that share a series and a time, and which readings are the newest.

What this file guarantees: the result hangs on seq and the order of arrival within a seq alone, never on how
the rows were spread over journal rows and runs; every number beats every NaN; a value that isn't a sum keeps
its bits; sums are added up in the order of seq, one by one, so that they come out the same bit for bit, and a sum
that is infinite stays so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.metric import SERIES_ORDINAL_BITS, ConflictPolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meterite.model.columns import Columns, type_f64, type_i64

    type_rows = NDArray[np.intp]
    type_mask = NDArray[np.bool_]

POLICY_KINDS: Final = {
    ConflictPolicy.LAST: 0,
    ConflictPolicy.FIRST: 1,
    ConflictPolicy.MIN: 2,
    ConflictPolicy.MAX: 3,
    ConflictPolicy.SUM: 4,
}
"""The numbers of the policies in :class:`Policies`."""
_LAST, _FIRST, _MIN, _MAX, _SUM = range(5)


@dataclass(frozen=True, slots=True)
class Policies:
    """The metrics whose policy isn't ``last``: ids, ascending, and for each a number of ``POLICY_KINDS``."""

    metrics: type_i64
    kinds: NDArray[np.uint8]

    @staticmethod
    def none() -> Policies:
        return Policies(np.empty(0, np.int64), np.empty(0, np.uint8))

    def changed(self, kinds: dict[int, int]) -> Policies:
        """With other kinds of some metrics."""
        if not kinds:
            return self
        kept = ~np.isin(self.metrics, np.array(list(kinds), np.int64))
        new = sorted(item for item in kinds.items() if item[1] != _LAST)
        metrics = np.concatenate([self.metrics[kept], np.array([id_ for id_, _ in new], np.int64)])
        of_metrics = np.concatenate([self.kinds[kept], np.array([kind for _, kind in new], np.uint8)])
        order = np.argsort(metrics, kind="stable")
        return Policies(metrics[order], of_metrics[order])

    def of_series(self, series: type_i64) -> NDArray[np.uint8]:
        """The policy of each series."""
        kinds = np.zeros(len(series), np.uint8)
        if len(self.metrics):
            metric = series >> SERIES_ORDINAL_BITS
            place = np.minimum(self.metrics.searchsorted(metric), len(self.metrics) - 1)
            np.copyto(kinds, self.kinds[place], where=self.metrics[place] == metric)
        return kinds


def resolve(columns: Columns, policies: Policies, *, complete: bool = True) -> Columns:
    """One reading for each series and time, sorted by (series, at).

    Rows may come in any order of seq; those of one seq stand in the order of their arrival. Where the rows
    aren't all there are (``complete=False``), readings to be summed stay apart, sorted by seq: a sum of sums
    could differ.
    """
    if len(columns) < 2:
        return columns
    order, equal = _sort(columns.series, columns.at_us)
    if not equal.any():
        return columns if order is None else columns.take(order)
    if order is None:
        order = np.arange(len(columns))
    rows, starts = _groups(equal)
    _order_groups(order, rows, starts, columns.seq)
    keep = np.ones(len(columns), np.bool_)
    keep[rows] = False
    kinds = policies.of_series(columns.series[order[rows[starts]]])
    values = columns.values[order[rows]]
    summed: list[tuple[type_rows, type_f64]] = []
    for kind in np.flatnonzero(np.bincount(kinds)).tolist():
        chosen, chosen_starts = _groups_of_kind(starts, len(rows), kinds == kind)
        if kind == _SUM and not complete:
            keep[rows[chosen]] = True
            continue
        winners = rows[chosen[_WINNERS[kind](values[chosen], chosen_starts)]]
        keep[winners] = True
        if kind == _SUM:
            summed.append((winners, _sums(values[chosen], chosen_starts)))
    return _kept(columns, order, keep, summed)


def _kept(
    columns: Columns, order: type_rows, keep: type_mask, summed: list[tuple[type_rows, type_f64]]
) -> Columns:
    result = columns.take(order[keep])
    if summed:
        place = np.cumsum(keep) - 1
        for winners, sums in summed:
            result.values[place[winners]] = sums
    return result


def _sort(series: type_i64, at_us: type_i64) -> tuple[type_rows | None, type_mask]:
    """The stable order by (series, at), None where it is that already; which rows equal the one before."""
    same = series[1:] == series[:-1]
    if bool(((series[1:] > series[:-1]) | (same & (at_us[1:] >= at_us[:-1]))).all()):
        return None, same & (at_us[1:] == at_us[:-1])
    order = np.lexsort((at_us, series))
    series, at_us = series[order], at_us[order]
    return order, (series[1:] == series[:-1]) & (at_us[1:] == at_us[:-1])


def _groups(equal: type_mask) -> tuple[type_rows, type_rows]:
    """The rows that share their key with another, and where among these each key begins."""
    shares = np.zeros(len(equal) + 1, np.bool_)
    shares[1:] = equal
    shares[:-1] |= equal
    rows = np.flatnonzero(shares)
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = ~equal[rows[1:] - 1]
    return rows, np.flatnonzero(begins)


def _order_groups(order: type_rows, rows: type_rows, starts: type_rows, seq: type_i64) -> None:
    """Within each key from the oldest to the newest; a stable sort, so that arrival decides within a seq."""
    chosen = order[rows]
    ages = seq[chosen]
    descends = ages[1:] < ages[:-1]
    descends[starts[1:] - 1] = False
    if descends.any():
        order[rows] = chosen[np.lexsort((ages, _group_numbers(starts, len(rows))))]


def _group_numbers(starts: type_rows, count: int) -> type_rows:
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=count))


def _groups_of_kind(starts: type_rows, count: int, wanted: type_mask) -> tuple[type_rows, type_rows]:
    if wanted.all():
        return np.arange(count), starts
    lengths = np.diff(starts, append=count)
    chosen = np.flatnonzero(np.repeat(wanted, lengths))
    ends = np.cumsum(lengths[wanted])
    return chosen, ends - lengths[wanted]


# A winner is found by giving each row its number as a score, and those that can't win one beyond all numbers.


def _oldest(values: type_f64, starts: type_rows, loses: type_mask) -> type_rows:
    count = len(values)
    winners: type_rows = np.minimum.reduceat(np.arange(count) + loses * count, starts) % count
    return winners


def _first(values: type_f64, starts: type_rows) -> type_rows:
    return _oldest(values, starts, np.isnan(values))


def _last(values: type_f64, starts: type_rows) -> type_rows:
    count = len(values)
    winners: type_rows = np.maximum.reduceat(np.arange(count) + ~np.isnan(values) * count, starts) % count
    return winners


def _min(values: type_f64, starts: type_rows) -> type_rows:
    best = np.minimum.reduceat(np.where(np.isnan(values), np.inf, values), starts)
    return _oldest(values, starts, values != best[_group_numbers(starts, len(values))])


def _max(values: type_f64, starts: type_rows) -> type_rows:
    best = np.maximum.reduceat(np.where(np.isnan(values), -np.inf, values), starts)
    return _oldest(values, starts, values != best[_group_numbers(starts, len(values))])


def _newest_number(values: type_f64, starts: type_rows) -> type_rows:
    """Whose seq a sum takes: the newest number's; the oldest NaN where there is no number."""
    newest = _last(values, starts)
    return np.where(np.isnan(values[newest]), starts, newest)


_WINNERS: Final = {_LAST: _last, _FIRST: _first, _MIN: _min, _MAX: _max, _SUM: _newest_number}


def _sums(values: type_f64, starts: type_rows) -> type_f64:
    first = _first(values, starts)
    sums = values[first]
    rest = ~np.isnan(values)
    rest[first] = False
    # ``add.at`` adds one after the other; ``add.reduceat`` adds in pairs and gives other last bits. Each sum
    # begins with its first number and not with 0.0, which would turn a -0.0.
    groups = _group_numbers(starts, len(values))
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(sums, groups[rest], values[rest])
    # What became NaN met infinities of both signs, since no NaN was added: the first of them is what it stays at.
    ends = np.append(starts[1:], len(values))
    for group in np.flatnonzero(np.isnan(sums) & ~np.isnan(values[first])).tolist():
        sums[group] = _until_infinite(values[starts[group] : ends[group]])
    return sums


def _until_infinite(values: type_f64) -> float:
    """Added one after the other, NaN passed over, to the first sum that is infinite."""
    numbers = values[~np.isnan(values)]
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.cumsum(numbers)
    return float(sums[np.flatnonzero(np.isinf(sums))[0]])


# ------------------------------------------------------------------------------------------------------------
# The newest readings.


def top_two_rows(columns: Columns) -> tuple[type_i64, type_rows, type_rows]:
    """Of resolved columns: the metrics, the row of each one's newest reading, and of the one before (or -1).

    Newest is what is largest by (at, series).
    """
    if not len(columns):
        return np.empty(0, np.int64), np.empty(0, np.intp), np.empty(0, np.intp)
    metric = columns.series >> SERIES_ORDINAL_BITS
    starts = np.append(0, np.flatnonzero(metric[1:] != metric[:-1]) + 1)
    lengths = np.diff(starts, append=len(metric))
    left = np.ones(len(metric), np.bool_)
    current = _newest_left(columns.at_us, starts, lengths, left)
    left[current] = False
    last = _newest_left(columns.at_us, starts, lengths, left)
    return metric[starts], current, last


def _newest_left(at_us: type_i64, starts: type_rows, lengths: type_rows, left: type_mask) -> type_rows:
    newest = np.maximum.reduceat(np.where(left, at_us, np.iinfo(np.int64).min), starts)
    # Rows are sorted by series, so that of equal times the last row has the largest series.
    candidates = left & (at_us == np.repeat(newest, lengths))
    rows: type_rows = np.maximum.reduceat(np.where(candidates, np.arange(len(at_us)), -1), starts)
    return rows


def top_two(
    columns: Columns,
) -> tuple[type_i64, type_i64, type_f64, type_i64, type_f64, type_mask]:
    """(metric, current_at, current_value, last_at, last_value, has_last) of resolved, finite readings.

    Where ``has_last`` is False, ``last_at`` and ``last_value`` are 0.
    """
    metric, current, last = top_two_rows(columns)
    has_last = last >= 0
    last_at = np.where(has_last, columns.at_us[last], 0) if len(last) else np.empty(0, np.int64)
    last_value = np.where(has_last, columns.values[last], 0.0) if len(last) else np.empty(0, np.float64)
    return metric, columns.at_us[current], columns.values[current], last_at, last_value, has_last
