"""The store on one SQLite file: the Protocols of :mod:`meterite.storage.interface`, put together."""

from __future__ import annotations

import contextlib
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from meterite.model.errors import DamagedError, MalformedFileError, UnavailableError
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.storage.catalog import SqlCatalog
from meterite.storage.compaction import Compactor
from meterite.storage.compare import Comparison
from meterite.storage.database import WAL_REPORTED_BYTES, Database, driver_of
from meterite.storage.event_reader import EventReader
from meterite.storage.events import SqlEvents
from meterite.storage.interface import Span
from meterite.storage.journal import Clock, Journal, now_us, read_clock, write_clock
from meterite.storage.journal_index import JournalIndex
from meterite.storage.labels import LabelIndex
from meterite.storage.once import find_receipt
from meterite.storage.outbox import SqlOutbox
from meterite.storage.quarantine import HOLD_READINGS, gap_of, read_quarantine
from meterite.storage.schema import quarantine as quarantine_table
from meterite.storage.schema import secret as secret_table
from meterite.storage.schema import tombstone as tombstone_table
from meterite.storage.snapshot import Parts, RowGroups, Snapshot
from meterite.storage.state import TIME_FIRST, TIME_LAST, States, state_of
from meterite.storage.streams import StreamsLock
from meterite.storage.turn import Turn
from meterite.storage.watch import Watch
from meterite.storage.work import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.model.columns import Labels
    from meterite.model.metric import Metric, MetricState
    from meterite.storage.interface import Append
    from meterite.storage.once import KeptReceipt
    from meterite.storage.state import Entry


T = TypeVar("T")
DAMAGED_TRIES: Final = 64


class SqliteStore:
    """Readings and metrics of all orgs in one file. Every method blocks; any thread may call it."""

    def __init__(
        self,
        path: Path,
        *,
        cache_bytes: int = 64 << 20,
        journal_rows_max: int = 1024,
        events_keep_s: float | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.database = Database(path)
        self._limits = Limits(journal_rows=journal_rows_max, events_keep_s=events_keep_s)
        self.clock = clock
        self.streams = StreamsLock(path)
        self.parts = Parts(self.database, RowGroups(cache_bytes), JournalIndex(), self._note_damage)
        self.event_reader = EventReader(self._note_damage)
        self.events = SqlEvents(self.database, self.event_reader, self._org_id, clock)
        self._reminds = Turn(Path(f"{path}.remind.lock"))
        self.outbox = SqlOutbox(
            self.database, self.event_reader, self.events, self._org_id, clock, self._reminds
        )
        self.watch = Watch(self.parts, self.event_reader)
        self._comparison = Comparison(self.parts, self.view)
        self.journal = Journal(self.database, self._comparison, self.watch, self.flush_damage, clock)
        self.catalog = SqlCatalog(self.database, self.states_in, self._around_damage, self.events, clock)
        self._state = States()
        self._labels = LabelIndex()
        self._damage: list[dict[str, object]] = []
        self._guard = threading.Lock()

    def open(self) -> bool:
        made = self.database.open()
        with contextlib.suppress(MalformedFileError), self.database.reading() as conn:
            self.event_reader.begin(driver_of(conn))
        return made

    def close(self) -> None:
        self.database.close()
        self.catalog.close()
        self._reminds.close()
        self.streams.shut()

    def compaction(self) -> Compactor:
        return Compactor(self, self._limits)

    def _org_id(self, org: str) -> int:
        return self.catalog.org_id(org)

    def commit(self, appends: Sequence[Append]) -> None:
        self.journal.commit(appends)

    def prepare(self, append: Append) -> None:
        self._comparison.prepare(append)

    def receipt(self, org_id: int, key: bytes) -> KeptReceipt | None:
        with self.database.reading() as conn:
            return find_receipt(driver_of(conn), org_id, key, self.clock())

    def view(self, org_id: int) -> Snapshot:
        """A snapshot of now. Close it: rows that it needs are kept until then."""
        self.flush_damage()
        self.streams.enter()
        try:
            with self.database.reading() as conn:
                return Snapshot(self.parts, conn, org_id, close=self.streams.leave)
        except BaseException:
            self.streams.leave()
            raise

    def span(self, metric: Metric, start_us: int | None, end_us: int | None, labels: Labels) -> Span:
        """The metric's series that carry all of the labels, from ``start_us`` on and before ``end_us``."""
        at_first = TIME_FIRST if start_us is None else start_us
        at_last = TIME_LAST if end_us is None else end_us - 1
        if not labels:
            return Span(metric.series_first, metric.series_last, at_first, at_last)
        with self.database.reading() as conn:
            series = self._labels.find(conn, metric, labels)
        if not len(series):
            return Span(metric.series_first, metric.series_first - 1, at_first, at_last, series)
        return Span(int(series[0]), int(series[-1]), at_first, at_last, series)

    def states(self, org_id: int, metric_ids: NDArray[np.int64]) -> list[MetricState]:
        def now() -> list[MetricState]:
            with self.database.reading() as conn:
                return [state_of(entry) for entry in self._entries(conn, org_id, metric_ids.tolist())]

        return self._around_damage(now)

    def gaps(self, org_id: int, metric_ids: NDArray[np.int64]) -> list[str]:
        self.flush_damage()
        with self.database.reading() as conn:
            rows = read_quarantine(conn, org_id)
        first = metric_ids << SERIES_ORDINAL_BITS
        last = first | (1 << SERIES_ORDINAL_BITS) - 1
        return [
            gap_of(row)
            for row in rows
            if row.kind in HOLD_READINGS
            and bool(((row.series_first <= last) & (row.series_last >= first)).any())
        ]

    def _around_damage(self, work: Callable[[], T]) -> T:
        """Each turn that meets a damaged row puts it in quarantine, and the next goes around it."""
        for _ in range(DAMAGED_TRIES):
            try:
                done = work()
            except DamagedError:
                self.flush_damage()
            else:
                with contextlib.suppress(UnavailableError):  # it is done; the next reader will try again
                    self.flush_damage()
                return done
        raise DamagedError("damaged", "Too many stored rows are damaged.")

    def _entries(self, conn: Connection, org_id: int, metric_ids: list[int]) -> list[Entry | None]:
        snapshot = Snapshot(self.parts, conn, org_id, close=_nothing)
        return self._state.entries(conn, snapshot, metric_ids)

    def states_in(self, conn: Connection, org_id: int, metric_ids: list[int]) -> list[MetricState | None]:
        """Current and last as of the connection's transaction; None for a metric that never had a reading.

        Of no metrics: all are brought up to date, so that asking within the writer's lock takes no time.
        """
        snapshot = Snapshot(self.parts, conn, org_id, close=_nothing)
        entries = self._state.entries(conn, snapshot, metric_ids, wait=not metric_ids)
        return [None if entry is None else state_of(entry) for entry in entries]

    def erase(self, org_id: int, metric: Metric, at_first: int, at_last: int, labels: Labels) -> int:
        """Hide the metric's readings of a time range (both ends included) from now on; answers when, µs."""
        if labels:  # what is to be learned is learned before the lock is taken
            self.span(metric, None, None, labels)
        with self.database.writing() as conn:
            ids = self._labels.find(conn, metric, labels) if labels else None
            clock = read_clock(conn)
            after = Clock(clock.seq + 1, clock.next_recorded_at(self.clock()), clock.catalog_version)
            write_clock(conn, after)
            if ids is None or len(ids):
                conn.execute(
                    insert(tombstone_table).values(
                        org=org_id,
                        seq=after.seq,
                        metric=metric.id,
                        series=None if ids is None else ids.astype("<i8").tobytes(),
                        series_first=metric.series_first if ids is None else int(ids[0]),
                        series_last=metric.series_last if ids is None else int(ids[-1]),
                        at_first=at_first,
                        at_last=at_last,
                    )
                )
        return after.recorded_at

    def _note_damage(self, kind: str, row_id: int, org_id: int, bounds: Sequence[int], reason: str) -> None:
        self.parts.groups.forget(row_id)
        with self._guard:
            self._damage.append(
                {
                    "org": org_id,
                    "kind": kind,
                    "row_id": row_id,
                    "series_first": bounds[0],
                    "series_last": bounds[1],
                    "at_first": bounds[2],
                    "at_last": bounds[3],
                    "found_at": self.clock(),
                    "reason": reason,
                }
            )

    def flush_damage(self) -> bool:
        """Put the damaged rows that reads have met into quarantine; whether there were any."""
        if not self._damage:
            return False
        with self._guard:
            damage, self._damage = self._damage, []
        try:
            with self.database.writing() as conn:
                conn.execute(upsert(quarantine_table).on_conflict_do_nothing(), damage)
        except BaseException:
            with self._guard:
                self._damage = damage + self._damage
            raise
        return bool(damage)

    def cookie_secret(self) -> bytes:
        """The secret that signs the docs' cookies, made once for all workers."""
        query = select(secret_table.c.value).where(secret_table.c.name == "cookie")
        with self.database.reading() as conn:
            known = conn.execute(query).scalar()
        if known is not None:
            return bytes(known)
        with self.database.writing() as conn:
            known = conn.execute(query).scalar()
            if known is None:
                known = secrets.token_bytes(32)
                conn.execute(insert(secret_table).values(name="cookie", value=known))
            return bytes(known)

    def problems(self) -> list[str]:
        """What stands in the way of work: sentences, none when all is well."""
        found = []
        with self.database.reading() as conn:
            damaged = len(conn.execute(select(quarantine_table.c.id)).all())
        if damaged:
            found.append(f"{damaged} damaged rows are in quarantine; run meterite verify.")
        wal = self.database.wal_bytes_left()
        if wal > WAL_REPORTED_BYTES:
            found.append(
                f"The write-ahead log holds {wal >> 20} MiB; a reader or a full disk keeps it from shrinking."
            )
        return found


def _nothing() -> None:
    pass
