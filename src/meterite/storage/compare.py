"""What a request's readings replace, and what they leave as it was: ``receipt=full``.

What this file guarantees: a request is compared with all that was committed before it and with nothing else. What was
there is looked up before the writer's lock is taken, from the row groups that may hold one of the request's keys, one
after the other; within the lock only what was committed since is looked at. Memory is bounded by the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import NO_TIME, Batch, Columns
from meterite.model.errors import DamagedError
from meterite.storage.interface import Span
from meterite.storage.resolve import resolve
from meterite.storage.snapshot import Snapshot
from meterite.storage.tombstones import mask_erased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.model.columns import type_i64
    from meterite.storage.interface import Append
    from meterite.storage.merge import Key
    from meterite.storage.snapshot import Parts

DAMAGED_TRIES: Final = 64


class Keys:
    """Distinct (series, at), sorted; at least one."""

    def __init__(self, series: type_i64, at_us: type_i64) -> None:
        self._distinct_series, self._distinct_at = np.unique(series), np.unique(at_us)
        order = np.lexsort((at_us, series))
        self._series, self._at_us = series[order], at_us[order]
        self._codes = np.unique(self._code(series, at_us))

    @property
    def span(self) -> Span:
        series, at_us = self._distinct_series, self._distinct_at
        return Span(int(series[0]), int(series[-1]), int(at_us[0]), int(at_us[-1]), series)

    def _code(self, series: type_i64, at_us: type_i64) -> type_i64:
        """A number a pair; only of those whose series and time both occur."""
        place = self._distinct_series.searchsorted(series).astype(np.int64)
        codes: type_i64 = place * len(self._distinct_at) + self._distinct_at.searchsorted(at_us)
        return codes

    def mask(self, columns: Columns) -> NDArray[np.bool_]:
        """Which of the rows have one of the keys."""
        mask = _among(columns.series, self._distinct_series)
        mask[mask] = _among(columns.at_us[mask], self._distinct_at)
        codes = self._code(columns.series[mask], columns.at_us[mask])
        mask[mask] = _among(codes, self._codes)
        return mask

    def some_between(self, first: Key, last: Key) -> bool:
        """Whether one of them lies there, both ends included, in the order of (series, at)."""
        return self._place(*first, side="left") < self._place(*last, side="right")

    def _place(self, series: int, at_us: int, *, side: str) -> int:
        low = int(self._series.searchsorted(series, "left"))
        high = int(self._series.searchsorted(series, "right"))
        return low + int(self._at_us[low:high].searchsorted(at_us, side))  # type: ignore[call-overload]  # left or right


def _among(values: type_i64, known: type_i64) -> NDArray[np.bool_]:
    """``known`` is sorted and not empty."""
    place = np.minimum(known.searchsorted(values), len(known) - 1)
    found: NDArray[np.bool_] = known[place] == values
    return found


@dataclass(frozen=True, slots=True)
class Prepared:
    """What there was of a request's keys as of ``seq``, resolved; ``counts`` of the request if nothing comes since."""

    seq: int
    keys: Keys | None
    before: Columns
    counts: tuple[int, int]


class Comparison:
    """``view`` opens a snapshot of now, with the damage noted that was met before."""

    def __init__(self, parts: Parts, view: Callable[[int], Snapshot]) -> None:
        self._parts = parts
        self._view = view

    def prepare(self, append: Append) -> None:
        """Look up what there is; outside of a transaction. DamagedError where that can't be read."""
        batch = _batch_of(append)
        timed = batch.at_us != NO_TIME
        fresh = _fresh(batch).take(timed)
        keys = Keys(fresh.series, fresh.at_us) if len(fresh) else None
        for _ in range(DAMAGED_TRIES):  # each turn puts damage in quarantine
            snapshot = self._view(append.org_id)
            try:
                before = Columns.empty() if keys is None else _at_keys(snapshot, keys)
                counts = _counts(snapshot, before, fresh)
                append.prepared = Prepared(snapshot.seq, keys, before, counts)
            except DamagedError:
                continue
            else:
                return
            finally:
                snapshot.close()
        raise DamagedError("damaged", "Too many stored rows are damaged.")

    def finish(self, conn: Connection, append: Append, batch: Batch, seq: int) -> bool:
        """Count, within the transaction of commit ``seq``; False where it is to be prepared anew.

        ``batch`` is the append's, with all its times.
        """
        prepared = append.prepared
        assert isinstance(prepared, Prepared)
        given = _batch_of(append).at_us == NO_TIME
        if prepared.seq < seq - 1 or given.any():
            snapshot = Snapshot(self._parts, conn, append.org_id, close=_nothing)
            if snapshot.compacted_seq > prepared.seq:  # what came since lies in runs already
                return False
            before, since = _with_later(snapshot, prepared)
            fresh = _fresh(batch)
            if given.any():
                before = Columns.concat([before, _at_given(snapshot, fresh.take(given), prepared.keys)])
                since = True
            counts = _counts(snapshot, before, fresh) if since else prepared.counts
        else:
            counts = prepared.counts
        append.replaced, append.unchanged = counts
        return True


def _batch_of(append: Append) -> Batch:
    assert isinstance(append.batch, Batch)
    return append.batch


def _fresh(batch: Batch) -> Columns:
    """Newer than all that there is."""
    seq = np.full(len(batch), np.iinfo(np.int64).max)
    return Columns(batch.series[batch.series_index], batch.at_us, batch.values, seq)


def _at_keys(snapshot: Snapshot, keys: Keys) -> Columns:
    """The readings of these keys, resolved."""
    found = Columns.concat(list(_rows_at(snapshot, keys)))
    return resolve(mask_erased(found, snapshot.tombstones), snapshot.policies)


def _rows_at(snapshot: Snapshot, keys: Keys, after_seq: int = 0) -> Iterator[Columns]:
    span = keys.span
    for columns in snapshot.journal_columns(span, after_seq):
        yield columns.take(keys.mask(columns))
    if after_seq:
        return
    for run in snapshot.runs_of(span):
        for piece in snapshot.pieces(run, span):
            if keys.some_between(piece.first, piece.last):
                columns = piece.load()
                yield columns.take(keys.mask(columns))


def _with_later(snapshot: Snapshot, prepared: Prepared) -> tuple[Columns, bool]:
    """What there is now of the keys, and whether it may be something else than before."""
    keys, seq = prepared.keys, prepared.seq
    if keys is None:
        return prepared.before, False
    later = Columns.concat(list(_rows_at(snapshot, keys, seq)))
    tombstones = snapshot.tombstones.after(seq)
    if not len(later) and not len(tombstones):
        return prepared.before, False
    both = Columns.concat([prepared.before, later])
    return resolve(mask_erased(both, tombstones), snapshot.policies), True


def _at_given(snapshot: Snapshot, fresh: Columns, known: Keys | None) -> Columns:
    """What there is at times that the commit gave: something only where readings lie in the future."""
    if known is not None:
        fresh = fresh.take(~known.mask(fresh))
    return _at_keys(snapshot, Keys(fresh.series, fresh.at_us)) if len(fresh) else Columns.empty()


def _counts(snapshot: Snapshot, before: Columns, fresh: Columns) -> tuple[int, int]:
    """How many keys change their value by ``fresh``, and how many keep it. All of ``before`` are keys of it."""
    if not len(before):
        return 0, 0
    before = resolve(before, snapshot.policies)  # in the order of keys
    after = resolve(Columns.concat([before, fresh]), snapshot.policies)
    after = after.take(Keys(before.series, before.at_us).mask(after))
    same = (before.values == after.values) | (np.isnan(before.values) & np.isnan(after.values))
    return int((~same).sum()), int(same.sum())


def _nothing() -> None:
    pass
