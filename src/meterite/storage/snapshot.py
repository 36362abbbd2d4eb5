"""What of an org's readings there was at one moment, and reading it without an open transaction.

A snapshot fixes its seq, its list of rows and its tombstones once, in one read transaction. Rows that compaction
replaces meanwhile stay until the snapshot is closed, or for ``SNAPSHOT_GRACE_S`` if it isn't; a snapshot that outlives
them fails with DamagedError rather than leave a gap. Every row's checksum is checked each time it is read.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.columns import Columns
from meterite.model.errors import DamagedError
from meterite.storage.commit_times import COMMIT_TIME, read_times
from meterite.storage.journal import driver, read_clock
from meterite.storage.journal_index import Fault
from meterite.storage.journalrow import decode_journal
from meterite.storage.live_runs import LIVE_RUNS, LiveRunsIndex, Run, directory_crc, read_live_runs
from meterite.storage.merge import Piece, merge, sort_unresolved, sorted_piece
from meterite.storage.policy_index import PolicyIndex
from meterite.storage.quarantine import HOLD_READINGS, Quarantined, gap_of, read_quarantine
from meterite.storage.row_fetch import (
    JOURNAL_NAMES,
    checked_data,
    fetch_blob,
    fetch_journal,
    sane_bounds,
)
from meterite.storage.rowgroup import DIRECTORY, RowGroup, decode_directory, directory_entry
from meterite.storage.schema import JOURNAL_ROW_BITS, SEGMENT_BITS
from meterite.storage.tombstone_index import TombstoneIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.model.columns import type_i64
    from meterite.storage.database import Database
    from meterite.storage.interface import Span
    from meterite.storage.journal_index import JournalIndex

SNAPSHOT_GRACE_S: Final = 600
_FETCH_ROWS: Final = 500
_FETCH_READINGS: Final = 1 << 18
_ORG: Final = "SELECT catalog_version, (SELECT max(id) FROM metric) FROM org WHERE id = ?"
_SIDES: Final = ("series_first", "series_last", "at_first", "at_last")
_JOURNAL_QUERY: Final = f"SELECT {JOURNAL_NAMES} FROM journal WHERE id IN ({{ids}}) ORDER BY id"  # noqa: S608 -- our own names


class RowGroups:
    """Opened row groups by segment id, least recently used out first; bounded by decoded bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[int, tuple[RowGroup, int]] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()

    def get(self, segment_id: int) -> RowGroup | None:
        with self._guard:
            found = self._kept.get(segment_id)
            if found is None:
                return None
            self._kept.move_to_end(segment_id)
            return found[0]

    def put(self, segment_id: int, group: RowGroup) -> None:
        """Counted as if all columns were decoded, since they may be."""
        size = group.bounds.count * 32 + 4096
        with self._guard:
            if segment_id not in self._kept:
                self._bytes += size
            self._kept[segment_id] = (group, size)
            while self._bytes > self._bytes_max and len(self._kept) > 1:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._bytes -= dropped

    def forget(self, segment_id: int) -> None:
        with self._guard:
            _, size = self._kept.pop(segment_id, (None, 0))
            self._bytes -= size


@dataclass(slots=True)
class Parts:
    """What a snapshot shares with the others of its store."""

    database: Database
    groups: RowGroups
    index: JournalIndex
    damaged: Callable[[str, int, int, Sequence[int], str], None]
    policies: PolicyIndex = field(default_factory=PolicyIndex)
    tombstones: TombstoneIndex = field(default_factory=TombstoneIndex)
    live_runs: LiveRunsIndex = field(default_factory=LiveRunsIndex)
    directories: OrderedDict[int, NDArray[np.void]] = field(default_factory=OrderedDict)


def compacted_seq(conn: Connection, org_id: int) -> int:
    return read_live_runs(conn, org_id).compacted_seq


class Snapshot:
    """One org's readings as of ``seq``. Usable from any one thread at a time; every call is short."""

    def __init__(
        self,
        parts: Parts,
        conn: Connection,
        org_id: int,
        *,
        upto: int | None = None,
        close: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._close: Callable[[], None] | None = close
        self.org_id = org_id
        self.seq = read_clock(conn).seq if upto is None else upto
        catalog_version, metric_last = driver(conn).execute(_ORG, (org_id,)).fetchone() or (0, 0)
        live = parts.live_runs.live_runs(conn, org_id)
        self.compacted_seq = live.compacted_seq
        last_id = (self.seq + 1 << JOURNAL_ROW_BITS) - 1
        journal = parts.index.rows(conn, org_id, self.compacted_seq)
        self.journal = journal[: journal["id"].searchsorted(last_id, "right")]
        self.runs = live.runs
        self.tombstones = parts.tombstones.tombstones(conn, org_id).upto(self.seq)
        self.policies = parts.policies.policies(conn, org_id, catalog_version, metric_last or 0)
        quarantined = read_quarantine(conn, org_id)
        self.quarantined: list[Quarantined | Fault] = [r for r in quarantined if r.kind in HOLD_READINGS]
        self.bad: set[tuple[str, int]] = {(row.kind, row.row_id) for row in quarantined}
        if live.fault:
            first, last, at_first, at_last = sane_bounds(())
            self._take_fault(Fault(org_id, org_id, first, last, at_first, at_last, LIVE_RUNS, live.fault))
        self._take_faults(conn)
        bad = [row_id for kind, row_id in self.bad if kind == "journal"]
        if bad:
            self.journal = self.journal[~np.isin(self.journal["id"], bad)]

    def _take_faults(self, conn: Connection) -> None:
        """Rows of the journal that were just found damaged: quarantined for us, and soon for all.

        Not those that are in runs already: compaction puts what it can't take into quarantine before it goes on.
        """
        for fault in self._parts.index.faults(conn).values():
            mine = fault.org_id == self.org_id and fault.row_id >> JOURNAL_ROW_BITS > self.compacted_seq
            if mine:
                self._take_fault(fault)

    def _take_fault(self, fault: Fault) -> None:
        if (fault.kind, fault.row_id) not in self.bad:
            self._parts.damaged(fault.kind, fault.row_id, fault.org_id, fault.bounds, fault.reason)
            self.quarantined.append(fault)
            self.bad.add((fault.kind, fault.row_id))

    def gaps(self, span: Span) -> list[str]:
        return [
            gap_of(row)
            for row in self.quarantined
            if row.series_first <= span.series_last
            and row.series_last >= span.series_first
            and row.at_first <= span.at_last
            and row.at_last >= span.at_first
        ]

    def doubts(self) -> list[str]:
        if any(kind == COMMIT_TIME for kind, _ in self.bad):
            return [
                "Damage took the times of some commits: where recorded_at is null it isn't known any more."
            ]
        return []

    def cuts(self, span: Span, target: int) -> list[tuple[int, int]]:
        """Time slices of about ``target`` readings, from the bounds of the rows as if they were spread evenly."""
        first, last, count = self._bounds(span)
        if not len(first):
            return []
        first, last = np.maximum(first, span.at_first), np.minimum(last, span.at_last)
        edges = np.unique(np.concatenate((first, last + 1)))
        density = count / (last - first + 1).astype(np.float64)
        weight = np.zeros(len(edges))
        np.add.at(weight, edges.searchsorted(first), density)
        np.subtract.at(weight, edges.searchsorted(last + 1), density)
        total = np.concatenate(([0.0], np.cumsum(np.cumsum(weight[:-1]) * np.diff(edges))))
        slices = max(1, int(np.ceil(total[-1] / target)))
        inner = np.interp(np.linspace(0, total[-1], slices + 1)[1:-1], total, edges - edges[0])
        places = np.unique(np.concatenate((edges[:1], inner.astype(np.int64) + edges[0], edges[-1:])))
        return [(int(a), int(b) - 1) for a, b in pairwise(places)]

    def _bounds(self, span: Span) -> tuple[type_i64, type_i64, NDArray[np.float64]]:
        journal = self.journal_rows(span)
        first, last = [journal["at_first"]], [journal["at_last"]]
        count = [journal["count"].astype(np.float64)]
        for run in self.runs_of(span):
            directory = self.directory(run)
            chosen = directory[_touching(directory, span)]
            first.append(chosen["at_first"].astype(np.int64))
            last.append(chosen["at_last"].astype(np.int64))
            count.append(chosen["count"] * _shares(chosen, span))
        return np.concatenate(first), np.concatenate(last), np.concatenate(count)

    def scan(self, span: Span) -> Iterator[Columns]:
        """Chunks of resolved readings by (series, at)."""
        for chunk in merge(self.inputs(span), self.policies, self.tombstones):
            kept = _within(chunk, span)
            if len(kept):
                yield kept

    def inputs(self, span: Span) -> list[list[Piece]]:
        journal = Columns.concat(list(self.journal_columns(span)))
        pieces = [sorted_piece(sort_unresolved(journal))] if len(journal) else []
        pieces += [self.pieces(run, span) for run in self.runs_of(span)]
        return pieces

    def journal_columns(self, span: Span, after_seq: int = 0) -> Iterator[Columns]:
        """The journal's rows that touch the span, decoded, in the order of their commits."""
        for wanted in pieces_of(self.journal_rows(span, after_seq)):
            for row in self.fetch_journal(wanted):
                try:
                    columns = decode_journal(checked_data(row), row[0] >> JOURNAL_ROW_BITS)
                except DamagedError as exc:
                    self.note_journal(row[0], row[2:6], exc.message)
                    raise
                yield _within(columns, span)

    def note_journal(self, row_id: int, bounds: Sequence[Any], reason: str) -> None:
        """A damaged row of the journal: on its way into quarantine."""
        self._parts.damaged("journal", row_id, self.org_id, sane_bounds(bounds), reason)

    def journal_rows(self, span: Span, after_seq: int = 0) -> NDArray[np.void]:
        """Those of commits after ``after_seq`` that touch the span, by their bounds, which are in memory."""
        later = self.journal["id"].searchsorted((after_seq + 1 << JOURNAL_ROW_BITS) - 1, "right")
        rows = self.journal[later:]
        return rows[_touching(rows, span)]

    def fetch_journal(self, wanted: NDArray[np.void]) -> list[tuple[Any, ...]]:
        """``JOURNAL_NAMES`` of those rows of ``journal``, unchecked: of all, or DamagedError."""
        ids = wanted["id"].tolist()
        with self._parts.database.reading() as conn:
            rows = fetch_journal(driver(conn), _JOURNAL_QUERY, ids, (), self.note_journal)
            if len(rows) == len(ids):
                return rows
            if compacted_seq(conn, self.org_id) > self.compacted_seq:
                raise _outlived()
        found = {row[0] for row in rows}
        for entry in wanted[[row_id not in found for row_id in ids]]:
            self.note_journal(int(entry["id"]), [int(entry[n]) for n in _SIDES], "A stored row is missing.")
        raise DamagedError("damaged", "A stored row is missing.")

    def runs_of(self, span: Span) -> list[Run]:
        return [
            run
            for run in self.runs
            if run.series_first <= span.series_last
            and run.series_last >= span.series_first
            and run.at_first <= span.at_last
            and run.at_last >= span.at_first
        ]

    def directory(self, run: Run) -> NDArray[np.void]:
        kept = self._parts.directories
        directory = kept.get(run.id)
        if directory is None:
            try:
                directory = self._read_directory(run)
            except DamagedError:
                if not self._is_live(run.id):
                    raise _outlived() from None
                directory = self._directory_from_segments(run)
            kept[run.id] = directory
            while len(kept) > 1024:
                kept.popitem(last=False)
        return directory

    def _read_directory(self, run: Run) -> NDArray[np.void]:
        with self._parts.database.reading() as conn:
            blob = fetch_blob(driver(conn), "SELECT directory FROM run WHERE id = ?", (run.id,))
        if blob is None or directory_crc(blob) != run.directory_crc:
            raise DamagedError("damaged", "A run's directory isn't the one that was written.")
        return decode_directory(blob)

    def _is_live(self, run_id: int) -> bool:
        with self._parts.database.reading() as conn:
            return run_id in self._parts.live_runs.live_runs(conn, self.org_id).ids

    def _directory_from_segments(self, run: Run) -> NDArray[np.void]:
        """What a lost directory said; each row group says it of itself. A row group in quarantine spans the run."""
        directory = np.zeros(run.groups, DIRECTORY)
        for name in _SIDES:
            directory[name] = getattr(run, name)
        for number in range(run.groups):
            segment_id = run.id << SEGMENT_BITS | number
            if ("segment", segment_id) not in self.bad:
                directory[number : number + 1] = self._entry_of(segment_id, directory[number])
        return directory

    def _entry_of(self, segment_id: int, bounds: np.void) -> NDArray[np.void]:
        try:
            blob = self._segment(segment_id)
            return directory_entry(blob, _open_group(blob).columns())
        except DamagedError as exc:
            raise self._fault(segment_id, bounds, exc) from exc

    def _fault(self, segment_id: int, bounds: np.void, found: DamagedError) -> DamagedError:
        """What to raise for a row group that is damaged or missing; damage is noted.

        In a run that isn't live any more it is no damage: others took its place, and it is swept or will be.
        """
        if not self._is_live(segment_id >> SEGMENT_BITS):
            return _outlived()
        sides = [int(bounds[n]) for n in _SIDES]
        self._parts.damaged("segment", segment_id, self.org_id, sides, found.message)
        return found

    def as_compacted(self, conn: Connection) -> Snapshot:
        """The same org as of the last flip of its journal: what the state blocks speak of."""
        return Snapshot(self._parts, conn, self.org_id, upto=self.compacted_seq, close=lambda: None)

    def pieces(self, run: Run, span: Span) -> list[Piece]:
        directory = self.directory(run)
        numbers = np.flatnonzero(_touching(directory, span)).tolist()
        pieces = []
        for number in numbers:
            segment_id = run.id << SEGMENT_BITS | number
            if ("segment", segment_id) in self.bad:
                continue
            entry = directory[number]
            pieces.append(
                Piece(
                    (int(entry["series_first"]), int(entry["first_at"])),
                    (int(entry["series_last"]), int(entry["last_at"])),
                    lambda id_=segment_id, entry=entry: self._load(id_, entry, span),  # type: ignore[misc]  # mypy can't type a lambda's defaults
                )
            )
        return pieces

    def _load(self, segment_id: int, entry: np.void, span: Span) -> Columns:
        group = self.row_group(segment_id, entry)
        if span.series_first > entry["series_first"] or span.series_last < entry["series_last"]:
            rows = group.rows_of(span.series_first, span.series_last)
            return group.columns().take(rows)
        return group.columns()

    def row_group(self, segment_id: int, entry: np.void) -> RowGroup:
        """The one that the directory's entry means, its checksum checked. DamagedError; what is damaged is noted."""
        group = self._parts.groups.get(segment_id)
        if group is not None:
            return group
        try:
            blob = self._segment(segment_id)
            _check_named(blob, entry)
            group = _open_group(blob)
        except DamagedError as exc:
            raise self._fault(segment_id, entry, exc) from exc
        self._parts.groups.put(segment_id, group)
        return group

    def blob(self, segment_id: int, entry: np.void) -> bytes:
        """The same as it lies there, to be copied."""
        try:
            blob = self._segment(segment_id)
            _check_named(blob, entry)
            _check_whole(blob)
        except DamagedError as exc:
            raise self._fault(segment_id, entry, exc) from exc
        return blob

    def _segment(self, segment_id: int) -> bytes:
        with self._parts.database.reading() as conn:
            blob = fetch_blob(driver(conn), "SELECT data FROM segment WHERE id = ?", (segment_id,))
        if blob is None:
            raise DamagedError("damaged", "A stored row is missing.")
        return blob

    def recorded_at(self, seq: type_i64) -> type_i64:
        wanted, index = np.unique(seq, return_inverse=True)
        with self._parts.database.reading() as conn:
            times, faults = read_times(driver(conn), self.org_id, wanted)
        new = [fault for fault in faults if (COMMIT_TIME, fault[0]) not in self.bad]
        for row_id, reason in new:
            self._parts.damaged(COMMIT_TIME, row_id, self.org_id, sane_bounds(()), reason)
        if new:
            raise DamagedError("damaged", new[0][1])
        return times[index]

    def close(self) -> None:
        if self._close is not None:
            self._close()
            self._close = None


def pieces_of(rows: NDArray[np.void]) -> Iterator[NDArray[np.void]]:
    """Rows of the journal in pieces to be fetched at once, of some MB at most."""
    start = 0
    while start < len(rows):
        piece = rows[start : start + _FETCH_ROWS]
        piece = piece[: max(1, int(piece["count"].cumsum().searchsorted(_FETCH_READINGS, "right")))]
        yield piece
        start += len(piece)


def _outlived() -> DamagedError:
    return DamagedError("snapshot-outlived", "The snapshot was kept open for too long.")


def _check_named(blob: bytes, entry: np.void) -> None:
    """A row group may be whole and yet another's: of another place, or of another time."""
    if len(blob) != entry["bytes"] or int.from_bytes(blob[4:8], "little") != entry["crc"]:
        raise DamagedError("damaged", "A stored row isn't the one that its directory names.")


def _check_whole(blob: bytes) -> None:
    """What :class:`RowGroup` checks before it decodes."""
    if zlib.crc32(memoryview(blob)[8:]) != int.from_bytes(blob[4:8], "little"):
        raise DamagedError("damaged", "A stored row fails its checksum.")


def _open_group(blob: bytes) -> RowGroup:
    group = RowGroup(blob)
    group.columns()  # damage inside a column shows when it is decoded
    return group


def _touching(directory: NDArray[np.void], span: Span) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = (
        (directory["series_first"] <= span.series_last)
        & (directory["series_last"] >= span.series_first)
        & (directory["at_first"] <= span.at_last)
        & (directory["at_last"] >= span.at_first)
    )
    if span.series is not None:
        mask &= span.series.searchsorted(directory["series_first"]) < span.series.searchsorted(
            directory["series_last"], "right"
        )
    return mask


def _shares(chosen: NDArray[np.void], span: Span) -> NDArray[np.float64]:
    """About what part of each row group lies within the span's series, as if its series were of one size."""
    first, last = chosen["series_first"].astype(np.float64), chosen["series_last"].astype(np.float64)
    inside = np.minimum(last, span.series_last) - np.maximum(first, span.series_first) + 1
    shares: NDArray[np.float64] = np.clip(inside / (last - first + 1), 0.0, 1.0)
    return shares


def _within(columns: Columns, span: Span) -> Columns:
    if not len(columns):
        return columns
    mask = (columns.at_us >= span.at_first) & (columns.at_us <= span.at_last)
    mask &= (columns.series >= span.series_first) & (columns.series <= span.series_last)
    if span.series is not None:
        if not len(span.series):
            return Columns.empty()
        place = np.minimum(span.series.searchsorted(columns.series), len(span.series) - 1)
        mask &= span.series[place] == columns.series
    return columns if mask.all() else columns.take(mask)
