"""Every event row, snapshot of alarms, delivery and acknowledgement, against its checksum and against the others.

What this file guarantees: nothing is written; what is wrong comes out as sentences, and the search goes on behind it.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from meterite.model.errors import DamagedError
from meterite.storage.alarm_snapshot import decode_part
from meterite.storage.database import driver_of
from meterite.storage.event_reader import open_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meterite.storage.database import Database
    from meterite.storage.event_reader import EventReader

_ROWS: Final = 20
_ORPHANS_TOLD: Final = 100
_ORPHANS: Final = (
    (
        "delivery of event row",
        "SELECT DISTINCT event_row FROM delivery WHERE event_row NOT IN (SELECT id FROM event)",
    ),
    (
        "acknowledgement of event row",
        "SELECT event_row FROM ack WHERE event_row NOT IN (SELECT id FROM event)",
    ),
    (
        "delivery for handler",
        "SELECT DISTINCT handler FROM delivery WHERE handler NOT IN (SELECT id FROM handler)",
    ),
)


class EventAudit:
    """Counts the event rows that it saw."""

    def __init__(self, database: Database, reader: EventReader) -> None:
        self._database = database
        self._reader = reader
        self._orgs: dict[int, int | None] = {}
        self.rows = 0

    def faults(self) -> Iterator[str]:
        yield from self._events()
        yield from self._alarms()
        for what, query in _ORPHANS:
            with self._database.reading() as conn:
                found = driver_of(conn).execute(f"{query} LIMIT {_ORPHANS_TOLD}").fetchall()
            for (row_id,) in found:
                yield f"{what} {row_id} is an orphan: what it belongs to isn't there."

    def _events(self) -> Iterator[str]:
        last, recorded_at = -1, 0
        while True:
            with self._database.reading() as conn:
                raw = driver_of(conn)
                rows = list(islice(self._reader.rows(raw, last + 1), _ROWS))
                bad = {r[0] for r in raw.execute("SELECT row_id FROM quarantine WHERE kind = 'event'")}
            if not rows:
                return
            for row in rows:
                self.rows += 1
                if row[0] not in bad:
                    yield from self._event(row)
                if row[6] < recorded_at:
                    yield f"event row {row[0]} was recorded before the one before it."
                recorded_at = row[6]
            last = rows[-1][0]

    def _event(self, columns: tuple[Any, ...]) -> Iterator[str]:
        try:
            row = open_row(columns, "")
        except DamagedError as exc:
            yield f"event row {columns[0]}: {exc.message}"
            return
        about = set(row.metrics().tolist()) - {0}
        if not about <= row.names.keys():
            yield f"event row {row.id} doesn't say what its metrics were called."
        if any(self._org_of(metric_id) != row.org_id for metric_id in about):
            yield f"event row {row.id} is about metrics that aren't its org's."

    def _org_of(self, metric_id: int) -> int | None:
        if metric_id not in self._orgs:
            with self._database.reading() as conn:
                row = driver_of(conn).execute("SELECT org FROM metric WHERE id = ?", (metric_id,)).fetchone()
            self._orgs[metric_id] = None if row is None else row[0]
        return self._orgs[metric_id]

    def _alarms(self) -> Iterator[str]:
        with self._database.reading() as conn:
            query = "SELECT org, event_row, number FROM alarm ORDER BY org, event_row, number"
            keys = driver_of(conn).execute(query).fetchall()
        query = "SELECT data FROM alarm WHERE org = ? AND event_row = ? AND number = ?"
        for key in keys:
            with self._database.reading() as conn:
                row = driver_of(conn).execute(query, key).fetchone()
            if row is not None:
                yield from _part(key, row[0])


def _part(key: tuple[int, int, int], data: bytes) -> Iterator[str]:
    name = f"alarm part {key[2]} of org {key[0]} as of event row {key[1]}"
    try:
        alarms, _ = decode_part(data)
    except DamagedError as exc:
        yield f"{name}: {exc.message}"
        return
    series = alarms["series"]
    if not bool((series[1:] > series[:-1]).all()):
        yield f"{name}: its series don't ascend."
    if (alarms["event_row"] > key[1]).any():
        yield f"{name} tells of events that came later."
