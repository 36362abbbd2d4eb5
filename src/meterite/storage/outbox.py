"""The outbox in SQL: a row for each event and handler, from when the event was looked at to when the handler took it.

What this file guarantees: a handler's cursor moves in the transaction that makes its deliveries, so that each event is
looked at once, whichever worker does; a delivery is leased to one owner at a time, and comes back where he dies; of an
ordered handler's deliveries of one series only the oldest can be claimed, the others wait until it is finished. What
the dispatcher writes lets requests go first.
"""

from __future__ import annotations

import threading
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final

from meterite.model.errors import ConflictError, NotFoundError
from meterite.model.event import EventPlace, EventType, event_id
from meterite.model.event_row import Document, MetricName
from meterite.model.time import format_rfc3339
from meterite.storage.database import driver_of
from meterite.storage.event_interface import Delivery, HandlerCounts, Outcome
from meterite.storage.outbox_look import ORDINAL_LAST, Ahead, Look
from meterite.storage.schema import DEAD, PENDING, WAITING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.model.event import Event
    from meterite.model.event_row import EventRow
    from meterite.storage.database import Database
    from meterite.storage.event_interface import Result
    from meterite.storage.event_reader import EventReader
    from meterite.storage.events import SqlEvents
    from meterite.storage.turn import Turn

LEASE_US: Final = 8_000_000
ROWS_AHEAD_MAX: Final = 1000
"""So many event rows without a delivery may be looked at before the cursor is written."""
AHEAD_US: Final = 60_000_000
"""Likewise, for so long."""
_RETRIED_AT_ONCE: Final = 1000
_DAMAGED: Final = "The stored event is damaged."
_HANDLER: Final = "SELECT id, cursor_row, cursor_ordinal FROM handler WHERE name = ?"
_REGISTER: Final = (
    "INSERT INTO handler (name, active, cursor_row, cursor_ordinal, since) VALUES (?,1,?,?,?)"
    " ON CONFLICT (name) DO UPDATE SET active = 1"
)
_MOVE: Final = (
    "UPDATE handler SET cursor_row = ?, cursor_ordinal = ?"
    " WHERE id = ? AND cursor_row = ? AND cursor_ordinal = ?"
)
_INSERT: Final = (
    "INSERT INTO delivery (handler, event_row, ordinal, org, series_key, state, attempts, due_at)"
    " VALUES (?,?,?,?,?,?,0,?)"
)
_DUE: Final = (
    "SELECT event_row, ordinal, attempts, coalesce(first_at, 0) FROM delivery INDEXED BY delivery_due"
    " WHERE handler = ? AND state <= 1 AND due_at <= ? ORDER BY due_at LIMIT ?"
)
_CLAIM: Final = (
    "UPDATE delivery SET state = 1, owner = ?, due_at = ?, attempts = attempts + 1, first_at = coalesce(first_at, ?)"
    " WHERE handler = ? AND event_row = ? AND ordinal = ? AND state <= 1 AND due_at <= ?"
)
_RENEW: Final = (
    "UPDATE delivery SET due_at = ?"
    " WHERE handler = ? AND event_row = ? AND ordinal = ? AND state = 1 AND owner = ?"
)
_DONE: Final = (
    "UPDATE delivery SET state = 3, done_at = ?, owner = NULL, error = ?"
    " WHERE handler = ? AND event_row = ? AND ordinal = ? AND state <= 2"
)
_RETRY: Final = (
    "UPDATE delivery SET state = 0, due_at = ?, error = ?, owner = NULL"
    " WHERE handler = ? AND event_row = ? AND ordinal = ? AND state = 1 AND owner = ?"
)
_DEAD: Final = (
    "UPDATE delivery SET state = 4, done_at = ?, error = ?, owner = NULL"
    " WHERE handler = ? AND event_row = ? AND ordinal = ? AND state = 1 AND owner = ?"
)
_RELEASE: Final = (
    "UPDATE delivery SET state = 0, due_at = ?, owner = NULL, attempts = attempts - 1,"
    " first_at = CASE attempts WHEN 1 THEN NULL ELSE first_at END"
    " WHERE handler = ? AND event_row = ? AND ordinal = ? AND state = 1 AND owner = ?"
)
_REVIVE: Final = (
    "UPDATE delivery SET state = 0, due_at = ?, attempts = 0, first_at = NULL, done_at = NULL"
    " WHERE handler = ? AND event_row = ? AND ordinal = ? AND state = 4"
)
_UNBLOCK: Final = (
    "UPDATE delivery SET state = 0, due_at = ? WHERE handler = ? AND event_row = ? AND ordinal = ?"
)
_ORG_AND_SERIES: Final = (
    "SELECT org, series_key FROM delivery WHERE handler = ? AND event_row = ? AND ordinal = ?"
)
_OLDEST_OF_SERIES: Final = (
    "SELECT event_row, ordinal, state FROM delivery INDEXED BY delivery_series"
    " WHERE handler = ? AND series_key = ? AND state <= 2 AND series_key IS NOT NULL"
    " ORDER BY event_row, ordinal LIMIT 1"
)
_NEWEST_OF_SERIES: Final = (
    "SELECT event_row, ordinal FROM delivery INDEXED BY delivery_series"
    " WHERE handler = ? AND series_key = ? AND state <= 2 AND series_key IS NOT NULL"
    " ORDER BY event_row DESC, ordinal DESC LIMIT 1"
)
_LAST_DONE: Final = (
    "SELECT max(done_at) FROM delivery INDEXED BY delivery_done"
    " WHERE handler = ? AND series_key = ? AND state = 3 AND series_key IS NOT NULL AND error IS NULL"
)
_IS_MINE: Final = (
    "SELECT series_key FROM delivery"
    " WHERE handler = ? AND event_row = ? AND ordinal = ? AND state = 1 AND owner = ?"
)
_SUPERSEDE: Final = (
    "UPDATE delivery INDEXED BY delivery_series SET state = 3, done_at = ?, owner = NULL, error = ?"
    " WHERE handler = ? AND series_key = ? AND state <= 2 AND series_key IS NOT NULL"
    " AND (event_row, ordinal) < (?, ?)"
)
_FIND: Final = (
    "SELECT handler, state FROM delivery JOIN handler ON handler.id = delivery.handler"
    " WHERE name = ? AND event_row = ? AND ordinal = ?"
)
_DEAD_ONES: Final = (
    "SELECT handler, event_row, ordinal FROM delivery INDEXED BY delivery_dead"
    " WHERE handler = ? AND state = 4 AND done_at <= ? LIMIT ?"
)
_COUNTS: Final = (
    "SELECT name,"
    " (SELECT count(*) FROM delivery INDEXED BY delivery_due WHERE handler = handler.id AND state <= 1)"
    " + (SELECT count(*) FROM delivery INDEXED BY delivery_series"
    " WHERE handler = handler.id AND state <= 2 AND series_key IS NOT NULL AND state = 2),"
    " (SELECT count(*) FROM delivery INDEXED BY delivery_dead WHERE handler = handler.id AND state = 4),"
    " cursor_row FROM handler WHERE active ORDER BY name"
)

Key = tuple[int, int, int]
"""Of a delivery: handler, event row, ordinal."""


class SqlOutbox:
    """Deliveries of all handlers. ``org_id`` answers an org's number."""

    def __init__(
        self,
        database: Database,
        reader: EventReader,
        events: SqlEvents,
        org_id: Callable[[str], int],
        clock: Callable[[], int],
        turn: Turn,
    ) -> None:
        self._database = database
        self._reader = reader
        self._events = events
        self._org_id = org_id
        self._now = clock
        self._turn = turn
        self._ids: dict[str, int] = {}
        self._ahead: dict[str, Ahead] = {}
        self._guard = threading.Lock()

    def register(self, handlers: Sequence[str]) -> None:
        wanted = set(handlers)
        with self._database.reading() as conn:
            known = driver_of(conn).execute("SELECT name, active FROM handler").fetchall()
        if {name for name, active in known if active} == wanted:
            return
        with self._database.writing() as conn:
            raw = driver_of(conn)
            newest, _ = self._reader.newest(raw)
            raw.execute("UPDATE handler SET active = 0")
            raw.executemany(_REGISTER, [(name, newest, ORDINAL_LAST, self._now()) for name in sorted(wanted)])

    def reminds(self) -> bool:
        return self._turn.have()

    def _id(self, raw: sqlite3.Connection, handler: str) -> int:
        known = self._ids.get(handler)
        if known is None:
            row = raw.execute(_HANDLER, (handler,)).fetchone()
            if row is None:
                raise NotFoundError("handler-not-found", f"There is no handler {handler[:200]!r}.")
            known = self._ids[handler] = row[0]
        return known

    # From events to deliveries

    def fan_out(
        self,
        handler: str,
        wanted: Callable[[EventRow], NDArray[np.bool_]],
        *,
        ordered: bool = False,
        limit: int = 1000,
    ) -> bool:
        look = self._look(handler, wanted, limit)
        more = look.looked >= limit or look.rows >= ROWS_AHEAD_MAX
        if not look.rows or (not look.found and self._may_wait(handler, look)):
            return more
        with self._database.writing(maintenance=True) as conn:
            raw = driver_of(conn)
            new, old = look.place, look.written
            moved = raw.execute(_MOVE, (new.row, new.ordinal, look.handler, old.row, old.ordinal)).rowcount
            if moved:  # else another worker was faster
                self._make(raw, look, ordered=ordered)
        with self._guard:
            self._ahead.pop(handler, None)
        return more or not moved

    def _look(self, handler: str, wanted: Callable[[EventRow], NDArray[np.bool_]], limit: int) -> Look:
        with self._database.reading() as conn:
            raw = driver_of(conn)
            self._id(raw, handler)
            id_, *cursor = raw.execute(_HANDLER, (handler,)).fetchone()
            place = written = EventPlace(*cursor)
            with self._guard:
                ahead = self._ahead.get(handler)
            if ahead is not None and ahead.written == written:
                place = ahead.place
            look = Look(id_, written, place)
            first = place.row + (place.ordinal == ORDINAL_LAST)
            for columns in islice(self._reader.rows(raw, first), ROWS_AHEAD_MAX):
                row = self._reader.opened(raw, columns) if columns[4] else None
                if row is None:  # only quiet ones, or damaged
                    look.passed(columns[0])
                else:
                    look.at(row, wanted, limit)
                if look.looked >= limit:
                    break
        return look

    def _may_wait(self, handler: str, look: Look) -> bool:
        """Nothing was wanted: where the cursor stands is remembered, and needn't be written yet."""
        now_us = self._now()
        with self._guard:
            ahead = self._ahead.get(handler)
            if ahead is None or ahead.written != look.written:
                ahead = self._ahead[handler] = Ahead(look.written, look.place, now_us)
            ahead.place = look.place
            ahead.rows += look.rows
            return ahead.rows < ROWS_AHEAD_MAX and now_us - ahead.since_us < AHEAD_US

    def _make(self, raw: sqlite3.Connection, look: Look, *, ordered: bool) -> None:
        now_us = self._now()
        if not ordered:
            raw.executemany(
                _INSERT,
                [(look.handler, row, n, org, None, PENDING, now_us) for row, n, org, _ in look.found],
            )
            return
        busy: set[int] = set()
        rows = []
        for row, ordinal, org, key in look.found:
            if key not in busy and raw.execute(_OLDEST_OF_SERIES, (look.handler, key)).fetchone() is None:
                state = PENDING
            else:
                state = WAITING
            busy.add(key)
            rows.append((look.handler, row, ordinal, org, key, state, now_us))
        raw.executemany(_INSERT, rows)

    # From deliveries to outcomes

    def claim(self, owner: str, handler: str, limit: int) -> list[Delivery]:
        now_us = self._now()
        with self._database.reading() as conn:
            id_ = self._id(driver_of(conn), handler)
            if driver_of(conn).execute(_DUE, (id_, now_us, 1)).fetchone() is None:
                return []
        with self._database.writing(maintenance=True) as conn:
            raw = driver_of(conn)
            due = raw.execute(_DUE, (id_, now_us, limit)).fetchall()
            changes = [
                (owner, now_us + LEASE_US, now_us, id_, row, ordinal, now_us) for row, ordinal, _, _ in due
            ]
            claimed = raw.executemany(_CLAIM, changes).rowcount if due else 0
            assert claimed == len(due)
        return self._readable(owner, handler, id_, due, now_us)

    def _readable(
        self, owner: str, handler: str, id_: int, due: list[tuple[int, int, int, int]], now_us: int
    ) -> list[Delivery]:
        """With their events; those whose event can't be read are dead."""
        with self._database.reading() as conn:
            raw = driver_of(conn)
            found = [(self._reader.row(raw, row_id), ordinal) for row_id, ordinal, _, _ in due]
            places = [(row, ordinal) for row, ordinal in found if row is not None]
            events = iter(self._reader.render(raw, places))
        claimed: list[Delivery] = []
        lost: list[Key] = []
        for (row_id, ordinal, attempts, first_at), (row, _) in zip(due, found, strict=True):
            if row is None:
                lost.append((id_, row_id, ordinal))
                continue
            place = EventPlace(row_id, ordinal)
            claimed.append(Delivery(handler, place, next(events), attempts, first_at or now_us))
        if lost:
            with self._database.writing(maintenance=True) as conn:
                raw = driver_of(conn)
                raw.executemany(_DEAD, [(now_us, _DAMAGED, *key, owner) for key in lost])
                self._unblock(raw, lost, now_us)
        return claimed

    def renew(self, owner: str, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        until = self._now() + LEASE_US
        with self._database.writing(maintenance=True) as conn:
            raw = driver_of(conn)
            raw.executemany(_RENEW, [(until, *self._key(raw, each), owner) for each in deliveries])

    def _key(self, raw: sqlite3.Connection, delivery: Delivery) -> Key:
        return self._id(raw, delivery.handler), delivery.place.row, delivery.place.ordinal

    def finish(self, owner: str, results: Sequence[Result]) -> None:
        if not results:
            return
        now_us = self._now()
        by_outcome: dict[Outcome, list[Result]] = {}
        for result in results:
            by_outcome.setdefault(result.outcome, []).append(result)
        with self._database.writing(maintenance=True) as conn:
            raw = driver_of(conn)
            taken = by_outcome.get(Outcome.DONE, ())
            done = [self._key(raw, r.delivery) for r in taken]
            notes = [r.error or None for r in taken]
            raw.executemany(_DONE, [(now_us, note, *key) for note, key in zip(notes, done, strict=True)])
            again = by_outcome.get(Outcome.RETRY, ())
            changes = [(r.retry_at_us, r.error, *self._key(raw, r.delivery), owner) for r in again]
            raw.executemany(_RETRY, changes)
            released = by_outcome.get(Outcome.RELEASED, ())
            raw.executemany(
                _RELEASE,
                [(max(now_us, r.retry_at_us), *self._key(raw, r.delivery), owner) for r in released],
            )
            dead = self._bury(conn, owner, by_outcome.get(Outcome.DEAD, ()), now_us)
            self._unblock(raw, done + dead, now_us)

    def _bury(self, conn: Connection, owner: str, results: Iterable[Result], now_us: int) -> list[Key]:
        """Those that were still the owner's; each raises an event, but for those that are such an event."""
        raw = driver_of(conn)
        buried: list[Key] = []
        told: list[tuple[int, Result]] = []
        for result in results:
            key = self._key(raw, result.delivery)
            if not raw.execute(_DEAD, (now_us, result.error, *key, owner)).rowcount:
                continue
            buried.append(key)
            if result.delivery.event.type != EventType.DEAD:
                told.append((raw.execute(_ORG_AND_SERIES, key).fetchone()[0], result))
        told.sort(key=lambda each: each[0])
        for org_id, group in groupby(told, key=lambda each: each[0]):
            mine = [result for _, result in group]
            names = dict(_named(result.delivery.event) for result in mine)
            self._events.tell(conn, org_id, [_death(result) for result in mine], names)
        return buried

    def _unblock(self, raw: sqlite3.Connection, finished: Iterable[Key], now_us: int) -> None:
        """What waited behind those, and is the oldest of its series now, can be claimed."""
        for key in finished:
            _, series = raw.execute(_ORG_AND_SERIES, key).fetchone() or (0, None)
            if series is None:
                continue
            oldest = raw.execute(_OLDEST_OF_SERIES, (key[0], series)).fetchone()
            if oldest is not None and oldest[2] == WAITING:
                raw.execute(_UNBLOCK, (now_us, key[0], *oldest[:2]))

    # One a while of each series

    def last_done(self, handler: str, deliveries: Sequence[Delivery]) -> list[int | None]:
        found: list[int | None] = []
        with self._database.reading() as conn:
            raw = driver_of(conn)
            for delivery in deliveries:
                key = self._key(raw, delivery)
                _, series = raw.execute(_ORG_AND_SERIES, key).fetchone() or (0, None)
                found.append(raw.execute(_LAST_DONE, (self._id(raw, handler), series)).fetchone()[0])
        return found

    def supersede(self, owner: str, delivery: Delivery) -> bool:
        now_us = self._now()
        with self._database.writing(maintenance=True) as conn:
            raw = driver_of(conn)
            key = self._key(raw, delivery)
            mine = raw.execute(_IS_MINE, (*key, owner)).fetchone()
            if mine is None:
                return True  # somebody else claimed it meanwhile
            newest = raw.execute(_NEWEST_OF_SERIES, (key[0], mine[0])).fetchone()
            if newest is None or newest == key[1:]:
                return False
            note = f"superseded by {self._event_id(raw, EventPlace(*newest))}"
            raw.execute(_SUPERSEDE, (now_us, note, key[0], mine[0], *newest))
            raw.execute(_UNBLOCK, (now_us, key[0], *newest))
        return True

    def _event_id(self, raw: sqlite3.Connection, place: EventPlace) -> str:
        (recorded_at,) = raw.execute("SELECT recorded_at FROM event WHERE id = ?", (place.row,)).fetchone()
        return event_id(recorded_at, place)

    # Once more

    def retry(self, org: str, event_id: str, handler: str) -> None:
        org_id = self._org_id(org)
        with self._database.writing() as conn:
            raw = driver_of(conn)
            event_row, ordinal = self._events.find(raw, org_id, event_id)
            row = raw.execute(_FIND, (handler, event_row.id, ordinal)).fetchone()
            if row is None:
                raise NotFoundError(
                    "delivery-not-found", f"The event was not meant for a handler {handler[:200]!r}."
                )
            if row[1] != DEAD:
                raise ConflictError("delivery-not-dead", "It is done, or will be tried again by itself.")
            raw.execute(_REVIVE, (self._now(), row[0], event_row.id, ordinal))

    def retry_dead(self, handler: str | None = None) -> int:
        begun_us = self._now()
        with self._database.reading() as conn:
            raw = driver_of(conn)
            ids = [row[0] for row in raw.execute("SELECT id FROM handler")]
            if handler is not None:
                ids = [self._id(raw, handler)]
        return sum(self._retry_dead(id_, begun_us) for id_ in ids)

    def _retry_dead(self, id_: int, begun_us: int) -> int:
        """In short transactions. What dies meanwhile stays dead."""
        count = 0
        while True:
            with self._database.writing() as conn:
                raw = driver_of(conn)
                keys = raw.execute(_DEAD_ONES, (id_, begun_us, _RETRIED_AT_ONCE)).fetchall()
                raw.executemany(_REVIVE, [(self._now(), *key) for key in keys])
            count += len(keys)
            if len(keys) < _RETRIED_AT_ONCE:
                return count

    def counts(self) -> list[HandlerCounts]:
        with self._database.reading() as conn:
            raw = driver_of(conn)
            return [
                HandlerCounts(name, open_, dead, self._reader.count(raw, cursor + 1))
                for name, open_, dead, cursor in raw.execute(_COUNTS).fetchall()
            ]


def _named(event: Event) -> tuple[int, MetricName]:
    metric = event.data.get("metric") or {"id": 0, "code": "", "name": "", "unit": None}
    return metric["id"], MetricName(metric["code"], metric["name"], metric["unit"])


def _death(result: Result) -> Document:
    delivery, event = result.delivery, result.delivery.event
    data = {
        "handler": delivery.handler,
        "event": {"id": event.id, "type": event.type, "subject": event.subject, "time": event.time},
        "attempts": delivery.attempts + 1,
        "first_at": format_rfc3339(delivery.first_at_us),
        "error": result.error,
    }
    return Document(EventType.DEAD, _named(event)[0], data, event.subject)
