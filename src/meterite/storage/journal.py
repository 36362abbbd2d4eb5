"""The commit: readings of many requests become one journal row an org, in one transaction.

Guarantees: a commit takes its ``seq`` under the writer's lock, and ``recorded_at`` grows from commit to commit
whatever the clocks do; times that the server gives lie between the two, so that no series gets one twice; a request
whose metrics changed since it was resolved fails alone with MovedError, the others commit; what the readings raise is
written with them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, TypeGuard

import numpy as np

from meterite.model.columns import NO_TIME, Batch, Single
from meterite.model.errors import DamagedError, UnavailableError, metric_moved
from meterite.storage.database import WAL_BYTES_MAX, driver_of
from meterite.storage.event_rows import insert_event_row
from meterite.storage.journalrow import encode_journal, journal_checksum
from meterite.storage.once import first_of_each, keep_receipts
from meterite.storage.push_groups import regroup
from meterite.storage.rowgroup import ROW_GROUP_READINGS
from meterite.storage.schema import JOURNAL_ROW_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from meterite.storage.compare import Comparison
    from meterite.storage.database import Database
    from meterite.storage.interface import Append
    from meterite.storage.raised import Raised
    from meterite.storage.watch import Watch

driver: Final = driver_of
ROWS_MAX: Final = (1 << JOURNAL_ROW_BITS) - 1

_CLOCK_SQL: Final = (
    "SELECT seq, recorded_at, catalog_version,"
    " (SELECT id FROM journal ORDER BY id DESC LIMIT 1),"
    " (SELECT recorded_at FROM journal ORDER BY id DESC LIMIT 1) FROM clock"
)
_RECORDED_SQL: Final = (
    "SELECT recorded_at FROM journal WHERE typeof(recorded_at) = 'integer' ORDER BY id DESC LIMIT 1"
)
_TRIES: Final = 64
_FEW: Final = 64
"""Readings for which numpy's calls cost more than a loop."""
_INSERT_SQL: Final = (
    "INSERT INTO journal (id, org, series_first, series_last, at_first, at_last, count, recorded_at, checksum, data,"
    " events_metric_first, events_metric_last, events_types, events_count, events_checksum, events)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_NO_EVENTS: Final = (None,) * 6


@dataclass(frozen=True, slots=True)
class Clock:
    """The last commit's ``seq`` and ``recorded_at``, and the catalogue's version."""

    seq: int
    recorded_at: int
    catalog_version: int

    def next_recorded_at(self, now_us: int) -> int:
        return max(now_us, self.recorded_at + 1)


def read_clock(conn: Connection) -> Clock:
    """As of this connection's transaction. The journal's last row counts: a plain commit writes no clock row."""
    return _read_clock(driver(conn))


def _read_clock(raw: sqlite3.Connection) -> Clock:
    seq, recorded_at, version, last_id, last_recorded = raw.execute(_CLOCK_SQL).fetchone()
    if last_id is not None:
        seq = max(seq, last_id >> JOURNAL_ROW_BITS)
        if type(last_recorded) is not int:  # the row is damaged; whoever reads it will say so
            last_recorded = (raw.execute(_RECORDED_SQL).fetchone() or (0,))[0]
        recorded_at = max(recorded_at, last_recorded)
    return Clock(seq, recorded_at, version)


def write_clock(conn: Connection, clock: Clock) -> None:
    conn.exec_driver_sql(
        "UPDATE clock SET seq=?, recorded_at=?, catalog_version=?",
        (clock.seq, clock.recorded_at, clock.catalog_version),
    )


def now_us() -> int:
    return time.time_ns() // 1000


class Journal:
    """Appends. ``flush_damage`` puts in quarantine what was found damaged."""

    def __init__(
        self,
        database: Database,
        comparison: Comparison,
        watch: Watch,
        flush_damage: Callable[[], bool],
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._database = database
        self._comparison = comparison
        self._watch = watch
        self._flush_damage = flush_damage
        self._now = clock
        self.rows_committed = 0
        self.readings_committed = 0
        self.bytes_committed = 0

    def commit(self, appends: Sequence[Append]) -> None:
        """All of the appends, or for each the error that keeps it out. What keeps all of them out is raised."""
        database = self._database
        if database.wal_bytes() > WAL_BYTES_MAX and database.wal_bytes_left() > WAL_BYTES_MAX:
            raise UnavailableError("wal-full", "The write-ahead log is over its bound; try again later.")
        encoded = _encode_ahead(appends)
        waiting = list(appends)
        for _ in range(_TRIES):
            self._prepare(waiting)
            waiting = [a for a in waiting if a.error is None]
            try:
                waiting = self._commit(waiting, encoded)
            except BaseException as exc:
                self._watch.failed()
                if isinstance(exc, DamagedError) and (self._flush_damage() or any(a.error for a in waiting)):
                    continue  # without a row that limits are judged by, now in quarantine; or without those requests
                if len(waiting) == len(appends) or not isinstance(exc, Exception):
                    raise
                for append in waiting:  # the others are on disk, and are to be told so
                    append.error = append.error or exc
                return
            if not waiting:
                return
        for append in waiting:
            append.error = DamagedError("damaged", "Too many stored rows are damaged.")

    def _prepare(self, appends: list[Append]) -> None:
        """Look up what comparisons need, before the lock is taken; what can't be read is its own request's trouble."""
        for append in appends:
            if append.compare and append.prepared is None and not append.abandoned:
                try:
                    self._comparison.prepare(append)
                except DamagedError as exc:
                    append.error = exc

    def _commit(self, appends: list[Append], encoded: dict[tuple[int, ...], _Encoded]) -> list[Append]:
        """Answers those that are to be prepared anew; what is wrong with others is in their error."""
        with self._database.writing() as conn:
            raw = driver(conn)
            clock = _read_clock(raw)
            taken = first_of_each(raw, self._still_valid(raw, clock, appends), self._now())
            recorded_at = clock.next_recorded_at(self._now())
            by_org: dict[int, list[Append]] = {}
            for append in taken:
                by_org.setdefault(append.org_id, []).append(append)
            rows: list[tuple[int, Batch, bytes]] = []
            batches: list[tuple[int, Batch]] = []
            given_last = recorded_at
            for org_id, group in by_org.items():
                timed, given = self._timed(conn, group, recorded_at, clock.seq + 1)
                if not timed:
                    continue
                given_last = max(given_last, given)
                ahead = encoded.get(tuple(map(id, group))) if encoded and len(timed) == len(group) else None
                batch, parts = ahead or _encode(timed)
                batches.append((org_id, batch))
                rows += [(org_id, part, data) for part, data in parts]
            if rows:
                raised = self._watch.judge(conn, clock, batches, given_last)
                self._insert(raw, clock.seq + 1, rows, raised, given_last)
                _tell(raised, by_org)
            again = [a for a in taken if a.compare and a.prepared is None]
            keep_receipts(raw, [a for a in taken if not a.compare or a.prepared is not None], given_last)
        if rows:
            self._watch.committed(clock.seq + 1)
        for append in taken:
            append.recorded_at_us = given_last
        return again

    def _still_valid(self, raw: sqlite3.Connection, clock: Clock, appends: Sequence[Append]) -> list[Append]:
        waiting = [a for a in appends if not a.abandoned and (len(a.batch) or a.group is not None)]
        oldest = min((a.version for a in waiting), default=clock.catalog_version)
        if oldest == clock.catalog_version:
            return waiting
        moved = dict(
            raw.execute("SELECT id, catalog_version FROM org WHERE catalog_version > ?", (oldest,)).fetchall()
        )
        taken = []
        for append in waiting:
            if moved.get(append.org_id, 0) > append.version:
                append.error = metric_moved()
            else:
                taken.append(append)
        return taken

    def _timed(
        self, conn: Connection, group: list[Append], recorded_at: int, seq: int
    ) -> tuple[list[Batch], int]:
        """An org's readings in their order, with their times; and the last time given.

        Without those of appends that can't be compared as they were prepared.
        """
        times = _Times(recorded_at)
        batches: list[Batch] = []
        for one_by_one, some in groupby(group, _is_single):
            if one_by_one:
                batches.append(times.singles(some))
                continue
            for append in some:
                batch = times.batch(append, self._grouped(conn, append))
                if not len(batch):
                    continue
                if not append.compare or self._is_compared(conn, append, batch, seq):
                    batches.append(batch)
        return batches, times.last

    def _grouped(self, conn: Connection, append: Append) -> Batch:
        """The append's batch, and behind it what its group makes of those that it doesn't bring."""
        batch = append.batch
        assert isinstance(batch, Batch)
        if append.group is None:
            return batch
        return regroup(driver(conn), append.org_id, append.group, batch)

    def _is_compared(self, conn: Connection, append: Append, batch: Batch, seq: int) -> bool:
        try:
            compared = self._comparison.finish(conn, append, batch, seq)
        except DamagedError:
            compared = False
        if not compared:
            append.prepared = None
        return compared

    def _insert(
        self,
        raw: sqlite3.Connection,
        seq: int,
        rows: list[tuple[int, Batch, bytes]],
        raised: Iterable[Raised],
        recorded_at: int,
    ) -> None:
        """The first event row of an org lies in its first row; others, which are rare, by themselves."""
        waiting = {events.org_id: events for events in raised}
        more = [(events, row) for events in waiting.values() for row in events.rows[1:]]
        if len(rows) + len(more) > ROWS_MAX:
            raise UnavailableError("commit-full", "Too many orgs or events in one commit; try again.")
        for number, (org_id, batch, data) in enumerate(rows):
            row_id = seq << JOURNAL_ROW_BITS | number
            events = waiting.pop(org_id, None)
            beside: tuple[int | bytes | None, ...] = _NO_EVENTS
            if events is not None:
                beside = events.rows[0].columns(row_id, org_id, recorded_at)
                events.places.append(row_id)
                self.bytes_committed += len(events.rows[0].data)
            bounds = (
                int(batch.series[0]),
                int(batch.series[-1]),
                int(batch.at_us.min()),
                int(batch.at_us.max()),
                len(batch),
                recorded_at,
            )
            checksum = journal_checksum(row_id, org_id, *bounds, data)
            raw.execute(_INSERT_SQL, (row_id, org_id, *bounds, checksum, data, *beside))
            self.rows_committed += 1
            self.readings_committed += len(batch)
            self.bytes_committed += len(data)
        for number, (events, row) in enumerate(more, len(rows)):
            row_id = seq << JOURNAL_ROW_BITS | number
            insert_event_row(raw, row_id, events.org_id, row, recorded_at)
            events.places.append(row_id)


class _Times:
    """The times that one commit gives: ``first`` and up, each once a series; ``last`` is the last of them."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._given: dict[int, int] = {}
        self.last = first

    def singles(self, appends: Iterable[Append]) -> Batch:
        """One batch of the readings that came one by one, in their order."""
        ids: list[int] = []
        at_us: list[int] = []
        values: list[float] = []
        given, rank_last = self._given, 0
        for append in appends:
            single = append.batch
            assert isinstance(single, Single)
            id_, at = single.series, single.at_us
            if at == NO_TIME:
                rank = given.get(id_, 0)
                given[id_] = rank + 1
                at = append.given_us = self._first + rank
                rank_last = max(rank_last, rank)
            ids.append(id_)
            at_us.append(at)
            values.append(single.value)
        self.last = max(self.last, self._first + rank_last)
        series = sorted(set(ids))
        place = {id_: n for n, id_ in enumerate(series)}
        index = np.array([place[id_] for id_ in ids], np.uint32)
        return Batch(
            np.array(series, np.int64), index, np.array(at_us, np.int64), np.array(values, np.float64)
        )

    def batch(self, append: Append, batch: Batch) -> Batch:
        if _needs_time(batch):
            batch, last = give_times(batch, self._first, self._given)
            append.given_us = self._first
            self.last = max(self.last, last)
        return batch


_Encoded = tuple[Batch, list[tuple[Batch, bytes]]]
"""An org's readings of a commit, and its rows."""


def _encode_ahead(appends: Sequence[Append]) -> dict[tuple[int, ...], _Encoded]:
    """Of orgs all of whose appends have their times already, before the lock is taken; by the appends' identities."""
    by_org: dict[int, list[Append]] = {}
    for append in appends:
        by_org.setdefault(append.org_id, []).append(append)
    encoded = {}
    for group in by_org.values():
        if all(_is_finished(a.batch) and len(a.batch) and a.group is None for a in group):
            encoded[tuple(map(id, group))] = _encode([a.batch for a in group if isinstance(a.batch, Batch)])
    return encoded


def _encode(batches: list[Batch]) -> _Encoded:
    batch = join(batches)
    return batch, encode_parts(batch)


def _tell(raised: Iterable[Raised], by_org: Mapping[int, Sequence[Append]]) -> None:
    """Who asked what was replaced learns which events were raised, too."""
    for events in raised:
        for append in by_org[events.org_id]:
            if append.compare and append.prepared is not None:
                assert isinstance(append.batch, Batch)
                events.tell(append, append.batch.series)


def _is_single(append: Append) -> bool:
    return isinstance(append.batch, Single)


def _is_finished(batch: Batch | Single) -> TypeGuard[Batch]:
    return isinstance(batch, Batch) and not _needs_time(batch)


def _needs_time(batch: Batch) -> bool:
    return bool((batch.at_us == NO_TIME).any())


def give_times(batch: Batch, first_us: int, previous: dict[int, int]) -> tuple[Batch, int]:
    """Give a time to each row without: ``first_us`` plus its rank among its series' rows without a time.

    ``previous`` counts the times given to each series so far in this commit. Answers the last time given.
    """
    rows = np.flatnonzero(batch.at_us == NO_TIME)
    if len(rows) <= _FEW:
        return _few_times(batch, rows.tolist(), first_us, previous)
    rows = rows[np.argsort(batch.series_index[rows], kind="stable")]
    index = batch.series_index[rows]
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    counts = np.diff(starts, append=len(rows))
    series = batch.series[index[starts]].tolist()
    before = np.array([previous.get(one, 0) for one in series], np.int64)
    ranks = np.arange(len(rows)) + np.repeat(before - starts, counts)
    previous.update(zip(series, (before + counts).tolist(), strict=True))
    at_us = batch.at_us.copy()
    at_us[rows] = first_us + ranks
    return Batch(batch.series, batch.series_index, at_us, batch.values), first_us + int(ranks.max())


def _few_times(batch: Batch, rows: list[int], first_us: int, previous: dict[int, int]) -> tuple[Batch, int]:
    at_us, last = batch.at_us.copy(), 0
    for row, id_ in zip(rows, batch.series[batch.series_index[rows]].tolist(), strict=True):
        rank = previous.get(id_, 0)
        previous[id_] = rank + 1
        at_us[row] = first_us + rank
        last = max(last, rank)
    return Batch(batch.series, batch.series_index, at_us, batch.values), first_us + last


def join(batches: list[Batch]) -> Batch:
    """One batch of several, in their order."""
    if len(batches) == 1:
        return batches[0]
    series = np.unique(np.concatenate([b.series for b in batches]))
    index = [series.searchsorted(b.series).astype(np.uint32)[b.series_index] for b in batches]
    return Batch(
        series,
        np.concatenate(index),
        np.concatenate([b.at_us for b in batches]),
        np.concatenate([b.values for b in batches]),
    )


def encode_parts(batch: Batch) -> list[tuple[Batch, bytes]]:
    """The batch in rows of at most 65,536 readings, encoded."""
    if len(batch) <= ROW_GROUP_READINGS:
        return [(batch, encode_journal(batch))]
    parts = []
    place = np.zeros(len(batch.series), np.uint32)
    for start in range(0, len(batch), ROW_GROUP_READINGS):
        rows = slice(start, start + ROW_GROUP_READINGS)
        index = batch.series_index[rows]
        used = np.flatnonzero(np.bincount(index, minlength=len(place)))
        place[used] = np.arange(len(used), dtype=np.uint32)
        part = Batch(batch.series[used], place[index], batch.at_us[rows], batch.values[rows])
        parts.append((part, encode_journal(part)))
    return parts
