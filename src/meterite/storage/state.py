"""Current and last of every metric: blocks that hold up to a seq, and the journal folded after them.

A commit writes no state. A reader loads the blocks (as of the org's ``compacted_seq``), keeps them in memory, and folds
in what was committed since. Folding is resolving: the two readings known count as the oldest, the journal's come
after, and the two newest of what is left are the state. Where a tombstone or a value that isn't finite hits what is
known, the metric's newest two are read from the store instead.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from sqlalchemy import select

from meterite.model.columns import Columns
from meterite.model.errors import DamagedError
from meterite.model.metric import SERIES_ORDINAL_BITS, MetricState, Point
from meterite.storage.database import driver_of
from meterite.storage.interface import Span
from meterite.storage.resolve import resolve, top_two_rows
from meterite.storage.row_fetch import fetch_blob
from meterite.storage.schema import metric as metric_table
from meterite.storage.state_block import (
    HAD_INFINITY,
    HAS_CURRENT,
    HAS_LAST,
    STATE,
    decode_state_block,
    encode_state_block,
)
from meterite.storage.tombstones import mask_erased

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from meterite.storage.snapshot import Snapshot

BLOCK_BITS: Final = 10
TIME_FIRST: Final = int(np.iinfo(np.int64).min)
TIME_LAST: Final = int(np.iinfo(np.int64).max)
_NEWEST_TARGET: Final = 4096
STATES_BYTES_MAX: Final = 64 << 20
ENTRY_BYTES: Final = 444
"""Of memory, as measured with two readings."""

_WORTH_THINNING: Final = 1024
METRICS_THINNED_MAX: Final = 1 << 20

Reading = tuple[int, int, float]
"""at µs, series id, value."""
Entry = tuple[Reading, ...]
"""None to two readings, newest first. A metric that had a reading once has an entry, be it empty.

Infinite readings are no state, but under some policies they stand in the way of later ones: a metric that ever had one
has :data:`INFINITE` at the end of its entry, and its newest two are always read from the store.
"""
_NOTHING: Final = (0, 0, 0.0)
INFINITE: Final[Reading] = (TIME_FIRST, 0, math.inf)


def everything() -> Span:
    return Span(TIME_FIRST, TIME_LAST, TIME_FIRST, TIME_LAST)


def span_of(metric_id: int) -> Span:
    first = metric_id << SERIES_ORDINAL_BITS
    return Span(first, first + (1 << SERIES_ORDINAL_BITS) - 1, TIME_FIRST, TIME_LAST)


def state_of(entry: Entry | None) -> MetricState:
    points = [Point(at, value) for at, _, value in finite(entry or ())]
    return MetricState(*points)


def finite(entry: Entry) -> Entry:
    return entry[:-1] if entry[-1:] == (INFINITE,) else entry


def fold(entries: dict[int, Entry], from_seq: int, snapshot: Snapshot, span: Span | None = None) -> None:
    """Bring ``entries``, true as of ``from_seq``, up to the snapshot; or those whose series lie in a span."""
    fresh = Columns.concat(list(snapshot.journal_columns(span or everything(), from_seq)))
    fold_fresh(entries, from_seq, fresh, snapshot)


def fold_fresh(entries: dict[int, Entry], from_seq: int, fresh: Columns, snapshot: Snapshot) -> set[int]:
    """The same with the readings of the journal in hand; answers the metrics that it looked at.

    Of each series those at its two newest times suffice, NaN and erased ones not counted.
    """
    tombstones = snapshot.tombstones.after(from_seq)
    doubtful = {
        metric_id
        for t in tombstones
        for metric_id in range(
            t.series_first >> SERIES_ORDINAL_BITS, (t.series_last >> SERIES_ORDINAL_BITS) + 1
        )
        if any(t.at_first <= at <= t.at_last for at, _, _ in finite(entries.get(metric_id, ())))
    }
    touched: set[int] = set()
    infinite: set[int] = set()
    if len(fresh):
        metric_ids = fresh.series >> SERIES_ORDINAL_BITS
        touched = set(np.unique(metric_ids).tolist())
        known = _columns_of(entries, touched, from_seq)
        both = mask_erased(Columns.concat([known, fresh]), tombstones)
        resolved = resolve(newest_times(both), snapshot.policies)
        infinite = {metric_id for metric_id in touched if INFINITE in entries.get(metric_id, ())}
        infinite |= _with_infinity(fresh) | _with_infinity(resolved)  # a sum may have overflowed
        _update(entries, touched, resolved)
    for metric_id in doubtful | infinite:
        mark = (INFINITE,) if metric_id in infinite or INFINITE in entries.get(metric_id, ()) else ()
        entries[metric_id] = newest_two(snapshot, metric_id) + mark
    return touched | doubtful | infinite


def _with_infinity(columns: Columns) -> set[int]:
    """The metrics with an infinite value among the rows. NaN never beats a number and needs no such care."""
    series = columns.series[np.isinf(columns.values)]
    return set((series >> SERIES_ORDINAL_BITS).tolist())


def newest_times(columns: Columns) -> Columns:
    """Each metric's rows at its two newest times that have a finite value: all that current and last can hang on.

    Sorting what is left costs a tenth of sorting all of it.
    """
    finite = np.isfinite(columns.values)
    if len(columns) < _WORTH_THINNING or not finite.any():
        return columns
    metric = columns.series >> SERIES_ORDINAL_BITS
    first, last = int(metric.min()), int(metric.max())
    if last - first > METRICS_THINNED_MAX:
        return columns
    rank = metric - first
    newest = np.full(last - first + 1, TIME_FIRST, np.int64)
    np.maximum.at(newest, rank[finite], columns.at_us[finite])
    older = finite & (columns.at_us < newest[rank])
    second = np.full(last - first + 1, TIME_FIRST, np.int64)
    np.maximum.at(second, rank[older], columns.at_us[older])
    return columns.take(columns.at_us >= second[rank])


def _columns_of(entries: dict[int, Entry], metric_ids: Iterable[int], seq: int) -> Columns:
    rows = [reading for metric_id in metric_ids for reading in finite(entries.get(metric_id, ()))]
    at_us, series, values = ([row[n] for row in rows] for n in range(3))
    return Columns(
        np.array(series, np.int64),
        np.array(at_us, np.int64),
        np.array(values, np.float64),
        np.full(len(rows), seq, np.int64),
    )


def _update(entries: dict[int, Entry], touched: set[int], resolved: Columns) -> None:
    for metric_id in touched:
        entries[metric_id] = ()
    numbers = resolved.take(np.isfinite(resolved.values))
    metric_ids, current, last = top_two_rows(numbers)
    at_us, series, values = numbers.at_us, numbers.series, numbers.values
    for metric_id, c, p in zip(metric_ids.tolist(), current.tolist(), last.tolist(), strict=True):
        newest = (int(at_us[c]), int(series[c]), float(values[c]))
        if p < 0:
            entries[metric_id] = (newest,)
        else:
            entries[metric_id] = (newest, (int(at_us[p]), int(series[p]), float(values[p])))


def newest_two(snapshot: Snapshot, metric_id: int) -> Entry:
    """The metric's newest two finite readings by (at, series), read from the store."""
    span = span_of(metric_id)
    found: list[Reading] = []
    for first, last in reversed(snapshot.cuts(span, _NEWEST_TARGET)):
        chunk = Columns.concat(list(snapshot.scan(Span(span.series_first, span.series_last, first, last))))
        chunk = chunk.take(np.isfinite(chunk.values))
        order = np.lexsort((chunk.series, chunk.at_us))[::-1][:2]
        found += [(int(chunk.at_us[n]), int(chunk.series[n]), float(chunk.values[n])) for n in order]
        if len(found) >= 2:
            break
    return tuple(found[:2])


def read_blocks(conn: Connection, snapshot: Snapshot, after_seq: int) -> tuple[dict[int, Entry], list[int]]:
    """Entries of the blocks written after a seq, and the blocks' numbers."""
    query = "SELECT block FROM state WHERE org = ? AND seq > ?"
    blocks = [row[0] for row in driver_of(conn).execute(query, (snapshot.org_id, after_seq)).fetchall()]
    entries: dict[int, Entry] = {}
    for block in blocks:
        entries.update(read_block(conn, snapshot, block))
    return entries, blocks


def read_block(conn: Connection, snapshot: Snapshot, block: int) -> dict[int, Entry]:
    """A damaged block costs nothing but time: all that it says can be read from the readings themselves."""
    query = "SELECT data FROM state WHERE org = ? AND block = ?"
    try:
        data = fetch_blob(driver_of(conn), query, (snapshot.org_id, block))
        return {} if data is None else _entries_of(data)
    except DamagedError:
        return _rebuilt(conn, snapshot, block)


def _rebuilt(conn: Connection, snapshot: Snapshot, block: int) -> dict[int, Entry]:
    table = metric_table.c
    first, after = block << BLOCK_BITS, block + 1 << BLOCK_BITS
    query = select(table.id).where(table.org == snapshot.org_id, table.id >= first, table.id < after)
    compacted = snapshot.as_compacted(conn)
    found = {metric_id: newest_two(compacted, metric_id) for metric_id in conn.execute(query).scalars().all()}
    return {metric_id: (*entry, INFINITE) for metric_id, entry in found.items() if entry}


def _entries_of(data: bytes) -> dict[int, Entry]:
    entries: dict[int, Entry] = {}
    for metric_id, flags, *rest in decode_state_block(data).tolist():
        readings: Entry = ()
        if flags & HAS_CURRENT:
            readings = (tuple(rest[:3]),)
        if flags & HAS_LAST:
            readings += (tuple(rest[3:]),)
        entries[metric_id] = readings + ((INFINITE,) if flags & HAD_INFINITY else ())
    return entries


def encode_block(entries: dict[int, Entry], block: int) -> bytes:
    """The entries whose metrics belong to the block, in the order of ids."""
    rows = []
    for metric_id in range(block << BLOCK_BITS, block + 1 << BLOCK_BITS):
        entry = entries.get(metric_id)
        if entry is not None:
            known = finite(entry)
            flags = (HAS_CURRENT if known else 0) | (HAS_LAST if len(known) > 1 else 0)
            flags |= HAD_INFINITY if len(known) < len(entry) else 0
            current, last = (*known, _NOTHING, _NOTHING)[:2]
            rows.append((metric_id, flags, *current, *last))
    return encode_state_block(np.array(rows, STATE))


@dataclass(slots=True)
class _Kept:
    """An org's entries, true as of ``seq``; ``blocks_seq`` is the compacted_seq whose blocks were loaded."""

    seq: int
    blocks_seq: int
    entries: dict[int, Entry] = field(default_factory=dict)


def _entries_alone(conn: Connection, snapshot: Snapshot, metric_ids: Sequence[int]) -> dict[int, Entry]:
    """Of these metrics; what is found of others is worth nothing."""
    entries: dict[int, Entry] = {}
    if not metric_ids:
        return entries
    wanted = set(metric_ids)
    for block in {metric_id >> BLOCK_BITS for metric_id in wanted}:
        found = read_block(conn, snapshot, block)
        entries.update((metric_id, found[metric_id]) for metric_id in wanted & found.keys())
    first, last = span_of(min(wanted)), span_of(max(wanted))
    span = Span(first.series_first, last.series_last, TIME_FIRST, TIME_LAST)
    fold(entries, snapshot.compacted_seq, snapshot, span)
    return entries


def _count_in_blocks(conn: Connection, org_id: int) -> int:
    """About how many entries an org's blocks hold."""
    query = "SELECT coalesce(sum(length(data)), 0) FROM state WHERE org = ?"
    (size,) = driver_of(conn).execute(query, (org_id,)).fetchone()
    return int(size) // STATE.itemsize


class States:
    """What a worker keeps of orgs' states; brought up to date by each reader's snapshot.

    Orgs that weren't asked for longest go first, so that no more than ``entries_max`` entries are kept. An org that has
    more by itself isn't kept: each question folds the metrics that it is about.
    No entry leaves but under the org's guard: while a thread folds, metrics have none for moments.
    """

    def __init__(self, entries_max: int = STATES_BYTES_MAX // ENTRY_BYTES) -> None:
        self._entries_max = entries_max
        self._orgs: OrderedDict[int, _Kept] = OrderedDict()
        self._count = 0
        self._keeping = threading.Lock()
        self._guards: defaultdict[int, threading.RLock] = defaultdict(threading.RLock)

    def entries(
        self, conn: Connection, snapshot: Snapshot, metric_ids: Sequence[int], *, wait: bool = True
    ) -> list[Entry | None]:
        """Of each metric, as of the snapshot or newer; None for one that never had a reading.

        Who holds the writer's lock doesn't ``wait`` for a thread that folds, but folds these metrics by itself.
        """
        guard = self._guards[snapshot.org_id]
        found = None
        if guard.acquire(blocking=wait):
            try:
                found = self._up_to_date(conn, snapshot)
                if found is not None:
                    return [found.get(metric_id) for metric_id in metric_ids]
            finally:
                guard.release()
        found = _entries_alone(conn, snapshot, metric_ids)
        return [found.get(metric_id) for metric_id in metric_ids]

    def _up_to_date(self, conn: Connection, snapshot: Snapshot) -> dict[int, Entry] | None:
        """All entries of the org; None where they are too many."""
        kept = self._take(snapshot.org_id) or _Kept(-1, -1)
        if snapshot.compacted_seq > kept.seq:
            if _count_in_blocks(conn, snapshot.org_id) > self._entries_max:
                return None
            self._reload(conn, kept, snapshot)
        if snapshot.seq > kept.seq:
            fold(kept.entries, kept.seq, snapshot)  # where it fails, what is half folded isn't kept
            kept.seq = snapshot.seq
        self._keep(snapshot.org_id, kept)
        return kept.entries

    def _take(self, org_id: int) -> _Kept | None:
        with self._keeping:
            kept = self._orgs.pop(org_id, None)
            self._count -= len(kept.entries) if kept else 0
        return kept

    def _keep(self, org_id: int, kept: _Kept) -> None:
        with self._keeping:
            self._orgs[org_id] = kept
            self._count += len(kept.entries)
            while self._count > self._entries_max:
                _, gone = self._orgs.popitem(last=False)
                self._count -= len(gone.entries)

    def _reload(self, conn: Connection, kept: _Kept, snapshot: Snapshot) -> None:
        loaded, blocks = read_blocks(conn, snapshot, kept.blocks_seq)
        stale = set(blocks)
        kept.entries = {m: e for m, e in kept.entries.items() if m >> BLOCK_BITS not in stale} | loaded
        kept.seq = kept.blocks_seq = snapshot.compacted_seq
