"""Events in SQL: one row an org a commit, written in the transaction of what it tells of.

What this file guarantees: an event is there exactly if what it tells of is; ids of rows grow with the commits, so that
who read up to a row missed nothing; every question names its org, and another org's event is not found.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.errors import InvalidInputError, NotFoundError
from meterite.model.event import TYPE_BITS, EventPlace, event_id, parse_event_id
from meterite.model.event_row import EVENT_ROW_EVENTS_MAX, MetricName
from meterite.model.limits import AlarmState
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.model.standing import NOTHING
from meterite.storage.alarm_snapshot import AlarmSnapshot, read_snapshot, snapshot_row
from meterite.storage.database import driver_of
from meterite.storage.event_interface import Alert, AlertReading, DeliveryState, DeliveryStatus, EventPage
from meterite.storage.event_reader import read_labels
from meterite.storage.event_rows import Names, encode_events, encode_name, insert_event_row
from meterite.storage.journal import Clock, read_clock, write_clock
from meterite.storage.schema import DEAD, DONE, EVENT_ROW_BITS, LEASED, PENDING, WAITING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.model.columns import Labels
    from meterite.model.event import Event
    from meterite.model.event_row import Document, EventRow
    from meterite.storage.database import Database
    from meterite.storage.event_reader import EventReader

WORK_MAX: Final = 300_000
"""For one page, as many rows passed by their bounds alone: about 1 µs each."""
LOOK_WORK: Final = 32
"""As much it costs to look into a row."""
_EVENTS_A_WORK: Final = 16
_ORGS_KEPT: Final = 64
_EXISTS: Final = "SELECT 1 FROM event WHERE id = ?"
_LAST: Final = "SELECT max(id) FROM event_row"
_ALL_TYPES: Final = sum(TYPE_BITS.values())
_ORDINAL_LAST: Final = EVENT_ROW_EVENTS_MAX - 1
_ACK: Final = "INSERT INTO ack (event_row, ordinal, org, acked_at) VALUES (?,?,?,?) ON CONFLICT DO NOTHING"
_ACKED_AT: Final = "SELECT acked_at FROM ack WHERE event_row = ? AND ordinal = ?"
_DELIVERIES: Final = (
    "SELECT name, state, attempts, due_at, first_at, done_at, error FROM handler JOIN delivery"
    " ON delivery.handler = handler.id WHERE event_row = ? AND ordinal = ? ORDER BY name"
)
STATES: Final = {
    PENDING: DeliveryState.PENDING,
    WAITING: DeliveryState.PENDING,
    LEASED: DeliveryState.LEASED,
    DONE: DeliveryState.DONE,
    DEAD: DeliveryState.DEAD,
}


def event_not_found(id_: str) -> NotFoundError:
    return NotFoundError("event-not-found", f"There is no event {id_[:60]!r}.")


@dataclass(frozen=True, slots=True)
class _Filter:
    """Which of an org's events: behind a place, of some types, of some metrics (None: all), acknowledged or not."""

    org_id: int
    after: EventPlace
    types: int
    metrics: list[int] | None
    acked: bool | None

    @property
    def first(self) -> int:
        return self.after.row + (self.after.ordinal == _ORDINAL_LAST)

    def columns(self) -> tuple[str, list[int]]:
        """Of a row: its id, time, and whether its bounds say that it may hold some; and values for these."""
        may_hold, values = ["types & ?"], [self.types]
        if self.metrics is not None:
            may_hold += ["metric_last >= ?", "metric_first <= ?"]
            values += [min(self.metrics, default=0), max(self.metrics, default=-1)]
        if self.acked:
            may_hold.append("EXISTS (SELECT 1 FROM ack WHERE event_row = event.id)")
        said = " AND ".join(may_hold)
        return f"id, recorded_at, {said}", values

    def ordinals(self, row: EventRow, acked: Mapping[int, int]) -> list[int]:
        mask = row.kinds() & self.types != 0
        if self.metrics is not None:
            mask &= np.isin(row.metrics(), self.metrics)
        if row.id == self.after.row:
            mask[: self.after.ordinal + 1] = False
        if self.acked is not None:
            known = np.zeros(len(row), bool)
            known[list(acked)] = True
            mask &= known == self.acked
        return np.flatnonzero(mask).tolist()


class SqlEvents:
    """Events of all orgs. ``org_id`` answers an org's number."""

    def __init__(
        self,
        database: Database,
        reader: EventReader,
        org_id: Callable[[str], int],
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._reader = reader
        self._org_id = org_id
        self._now = clock
        self._alarms: OrderedDict[int, AlarmSnapshot] = OrderedDict()
        self._guard = threading.Lock()

    def insert(
        self,
        raw: sqlite3.Connection,
        clock: Clock,
        org_id: int,
        documents: Sequence[Document],
        names: Mapping[int, MetricName],
    ) -> None:
        """Within the caller's transaction, whose commit, that of ``clock``, brings no readings. ``names`` has all
        metrics that the documents are about.
        """
        called = Names((id_, encode_name(id_, name)) for id_, name in names.items())
        (last,) = raw.execute(_LAST).fetchone()
        row_id = max(clock.seq << EVENT_ROW_BITS, -1 if last is None else last + 1)
        for row in encode_events(NOTHING, documents, called):
            assert row_id >> EVENT_ROW_BITS == clock.seq, "a commit has room for 2³² events"
            insert_event_row(raw, row_id, org_id, row, clock.recorded_at)
            row_id += 1

    def tell(
        self, conn: Connection, org_id: int, documents: Sequence[Document], names: Mapping[int, MetricName]
    ) -> None:
        """As a commit of its own within the caller's transaction."""
        clock = read_clock(conn)
        after = Clock(clock.seq + 1, clock.next_recorded_at(self._now()), clock.catalog_version)
        write_clock(conn, after)
        self.insert(driver_of(conn), after, org_id, documents, names)

    # Many

    def select(
        self,
        org: str,
        *,
        after: str | None = None,
        types: Sequence[str] = (),
        metric: str | None = None,
        acked: bool | None = None,
        limit: int = 100,
    ) -> EventPage:
        place = _place_of(after)
        bits = sum({TYPE_BITS[type_] for type_ in types}) or _ALL_TYPES
        org_id = self._org_id(org)
        with self._database.reading() as conn:
            raw = driver_of(conn)
            metrics = None if metric is None else _metrics_of(raw, org_id, metric)
            chosen = _Filter(org_id, place, bits, metrics, acked)
            return self._page(raw, chosen, limit)

    def _page(self, raw: sqlite3.Connection, chosen: _Filter, limit: int) -> EventPage:
        found: list[tuple[EventRow, int]] = []
        acked: dict[str, int] = {}
        upto: tuple[int, int, int] | None = None
        work = 0
        columns, values = chosen.columns()
        rows = self._reader.rows(raw, chosen.first, chosen.org_id, columns=columns, values=values)
        for row_id, recorded_at_us, may_hold in rows:
            upto = recorded_at_us, row_id, _ORDINAL_LAST
            work += 1
            row = self._reader.row(raw, row_id) if may_hold else None
            if row is not None:
                work += LOOK_WORK + len(row) // _EVENTS_A_WORK
                acks = _acks_of(raw, row_id)
                ordinals = chosen.ordinals(row, acks)
                taken = ordinals[: limit - len(found)]
                found += [(row, ordinal) for ordinal in taken]
                acked |= {_id(row, ordinal): acks[ordinal] for ordinal in taken if ordinal in acks}
                if len(taken) < len(ordinals):
                    upto = recorded_at_us, row_id, taken[-1]
            if len(found) == limit or work >= WORK_MAX:
                break
        next_ = None if upto is None else event_id(upto[0], EventPlace(*upto[1:]))
        return EventPage(self._reader.render(raw, found), acked, next_)

    def newest(self) -> str:
        with self._database.reading() as conn:
            row_id, recorded_at_us = self._reader.newest(driver_of(conn))
        return event_id(recorded_at_us, EventPlace(row_id, _ORDINAL_LAST if row_id else 0))

    # One

    def get(self, org: str, event_id: str) -> tuple[Event, int | None]:
        org_id = self._org_id(org)
        with self._database.reading() as conn:
            raw = driver_of(conn)
            row, ordinal = self.find(raw, org_id, event_id)
            (event,) = self._reader.render(raw, [(row, ordinal)])
            return event, _acks_of(raw, row.id).get(ordinal)

    def ack(self, org: str, event_id: str) -> int:
        org_id = self._org_id(org)
        with self._database.writing() as conn:
            raw = driver_of(conn)
            row, ordinal = self.find(raw, org_id, event_id)
            raw.execute(_ACK, (row.id, ordinal, org_id, self._now()))
            acked_at: int
            (acked_at,) = raw.execute(_ACKED_AT, (row.id, ordinal)).fetchone()
            return acked_at

    def deliveries(self, org: str, event_id: str) -> list[DeliveryStatus]:
        org_id = self._org_id(org)
        with self._database.reading() as conn:
            raw = driver_of(conn)
            row, ordinal = self.find(raw, org_id, event_id)
            return [
                DeliveryStatus(
                    name,
                    STATES[state],
                    attempts,
                    due_at if state in {PENDING, LEASED} else None,
                    first_at,
                    done_at,
                    error,
                )
                for name, state, attempts, due_at, first_at, done_at, error in raw.execute(
                    _DELIVERIES, (row.id, ordinal)
                )
            ]

    def find(self, raw: sqlite3.Connection, org_id: int, id_: str) -> tuple[EventRow, int]:
        """The row that the org's event lies in, and its ordinal. NotFoundError."""
        parsed = parse_event_id(id_)
        if parsed is None:
            raise event_not_found(id_)
        ms, place = parsed
        row = self._reader.row(raw, place.row)
        if row is not None and raw.execute(_EXISTS, (row.id,)).fetchone() is None:
            row = None  # in memory alone
        if row is None or row.org_id != org_id or row.recorded_at_us // 1000 != ms:
            raise event_not_found(id_)
        if place.ordinal >= len(row) or not row.kinds()[place.ordinal]:
            raise event_not_found(id_)
        return row, place.ordinal

    # What is outside now

    def alarmed(self) -> list[str]:
        with self._database.reading() as conn:
            raw = driver_of(conn)
            orgs = raw.execute("SELECT id, name FROM org ORDER BY id").fetchall()
            stand = ((name, self._current(raw, id_)) for id_, name in orgs)
            return [name for name, snapshot in stand if len(snapshot.alarms) or snapshot.silent]

    def alerts(self, org: str, *, after: int = -1, limit: int = 1000) -> list[Alert]:
        org_id = self._org_id(org)
        with self._database.reading() as conn:
            raw = driver_of(conn)
            snapshot = self._current(raw, org_id)
            rows = snapshot.alarms[(snapshot.alarms["state"] != 0) & (snapshot.alarms["series"] > after)]
            silent = [(id_ << SERIES_ORDINAL_BITS, at) for id_, at in snapshot.silent.items()]
            silent = sorted(pair for pair in silent if pair[0] > after)
            names = _active(raw, {id_ >> SERIES_ORDINAL_BITS for id_, _ in silent}, rows["series"])
            rows = rows[np.isin(rows["series"] >> SERIES_ORDINAL_BITS, list(names))][: limit + 1]
            labels = read_labels(raw, rows["series"].tolist())
        found = [_alert(row, names, labels.get(int(row["series"]), ())) for row in rows]
        for series, since_us in silent:
            metric_id = series >> SERIES_ORDINAL_BITS
            if metric_id in names:
                found.append(Alert(series, metric_id, names[metric_id], (), None, since_us, None))
        found.sort(key=lambda alert: alert.series)
        both = 0 < limit < len(found) and found[limit - 1].series == found[limit].series
        return found[: limit + both]

    def _current(self, raw: sqlite3.Connection, org_id: int) -> AlarmSnapshot:
        with self._guard:
            kept = self._alarms.pop(org_id, None)
            if kept is None or kept.event_row < snapshot_row(raw, org_id):  # rows since may be gone
                kept = read_snapshot(raw, org_id)
            now = AlarmSnapshot(kept.event_row, kept.alarms, dict(kept.silent))
            now.advance(raw, self._reader, org_id)
            self._alarms[org_id] = now
            while len(self._alarms) > _ORGS_KEPT:
                self._alarms.popitem(last=False)
            return now


def _alert(row: np.void, names: Mapping[int, MetricName], labels: Labels) -> Alert:
    series = int(row["series"])
    metric_id = series >> SERIES_ORDINAL_BITS
    place = EventPlace(int(row["event_row"]), int(row["ordinal"]))
    reading = None
    if place.row:
        numbers = [row[name].item() for name in ("low", "high", "last_at", "last", "extreme_at", "extreme")]
        reading = AlertReading(event_id(int(row["recorded_at"]), place), *numbers)
    state, since_us = AlarmState(int(row["state"])), int(row["since"])
    return Alert(series, metric_id, names[metric_id], labels, state, since_us, reading)


def _place_of(cursor: str | None) -> EventPlace:
    if cursor is None:
        return EventPlace(-1, 0)
    parsed = parse_event_id(cursor)
    if parsed is None:
        raise InvalidInputError(
            "cursor-invalid", "after is an event's id, or next of an answer.", place=("query", "after")
        )
    return parsed[1]


def _id(row: EventRow, ordinal: int) -> str:
    return event_id(row.recorded_at_us, EventPlace(row.id, ordinal))


def _acks_of(raw: sqlite3.Connection, row_id: int) -> dict[int, int]:
    return dict(raw.execute("SELECT ordinal, acked_at FROM ack WHERE event_row = ?", (row_id,)).fetchall())


def _metrics_of(raw: sqlite3.Connection, org_id: int, code: str) -> list[int]:
    """All that ever had the code, deleted ones included."""
    found: list[int] = []
    for deleted in ("IS NULL", "IS NOT NULL"):
        query = f"SELECT id FROM metric WHERE org = ? AND code = ? AND deleted_at {deleted}"  # noqa: S608 -- our own words
        found += [row[0] for row in raw.execute(query, (org_id, code))]
    return sorted(found)


def _active(
    raw: sqlite3.Connection, metric_ids: set[int], series: NDArray[np.int64]
) -> dict[int, MetricName]:
    """What the metrics are called now; those that aren't active are left out."""
    wanted = metric_ids | set(np.unique(series >> SERIES_ORDINAL_BITS).tolist())
    query = "SELECT code, name, unit FROM metric WHERE id = ? AND active AND deleted_at IS NULL"
    found = {id_: raw.execute(query, (id_,)).fetchone() for id_ in wanted}
    return {id_: MetricName(*row) for id_, row in found.items() if row is not None}
