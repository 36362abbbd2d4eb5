"""Event rows read back: checked, decoded once, and made into events with their series' labels.

What this file guarantees: a row whose checksum doesn't hold is reported and left out; decoded rows are kept in bounded
memory, since pages and deliveries come back to large ones.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from heapq import merge
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from meterite.model.check import parse_labels
from meterite.model.errors import DamagedError
from meterite.model.event_row import EventRow
from meterite.model.standing import Judged
from meterite.storage.event_index import EventIndex
from meterite.storage.event_rows import bounds_of, decode_events, is_whole
from meterite.storage.sections import damaged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from meterite.model.columns import Labels
    from meterite.model.event import Event

EVENT_COLUMNS: Final = "id, org, metric_first, metric_last, types, count, recorded_at, data, checksum"
ROWS_BYTES_KEPT: Final = 16 << 20
_ROW_BYTES: Final = 2048
_NEWEST: Final = "SELECT id, recorded_at FROM event_apart ORDER BY id DESC LIMIT 1"
_BESIDE: Final = "SELECT id, recorded_at FROM event_beside WHERE id = ?"
_GIVEN: Final = "SELECT value FROM json_each(?)"
_COUNT: Final = f"SELECT count(*) FROM event_beside WHERE id IN ({_GIVEN})"  # noqa: S608 -- our own names
_IDS_CHUNK: Final = 256
_SERIES_CHUNK: Final = 500
_NO_BOUNDS: Final = (1, 0, 1 << 52, 0)
"""Of readings: a damaged event row is no gap in any."""


class EventReader:
    """What all who read event rows of one store share. Any thread may use it."""

    def __init__(self, damage: Callable[[str, int, int, Sequence[int], str], None]) -> None:
        self._damage = damage
        self._index = EventIndex()
        self._kept: OrderedDict[int, tuple[EventRow, int]] = OrderedDict()
        self._bytes = 0
        self._orgs: dict[int, str] = {}
        self._guard = threading.Lock()

    def begin(self, raw: sqlite3.Connection) -> None:
        """Before anybody's transaction, so that none is older than what is known."""
        self._index.ids(raw)

    def rows(
        self,
        raw: sqlite3.Connection,
        first: int,
        org_id: int | None = None,
        *,
        columns: str = EVENT_COLUMNS,
        values: Sequence[int] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """``columns``, the id first, of the rows from ``first`` on, oldest first, of one org or of all.

        ``values`` are those of question marks among the columns; in them the row is called ``event``.
        """
        own, owner = ("", ()) if org_id is None else (" AND org = ?", (org_id,))
        apart = f"SELECT {columns} FROM event_apart AS event WHERE id >= ?{own} ORDER BY id"  # noqa: S608 -- our own names
        beside = f"SELECT {columns} FROM event_beside AS event WHERE id IN ({_GIVEN}) ORDER BY id"  # noqa: S608 -- our own names
        each = (raw.execute(beside, (*values, ids)) for ids in self._beside(raw, first, org_id))
        yield from merge(
            raw.execute(apart, (*values, first, *owner)), chain.from_iterable(each), key=itemgetter(0)
        )

    def newest(self, raw: sqlite3.Connection) -> tuple[int, int]:
        """The newest row's id, and when it was recorded, µs; 0 where there is none."""
        apart: tuple[int, int] = raw.execute(_NEWEST).fetchone() or (0, 0)
        for id_ in reversed(self._index.ids(raw, apart[0])):
            beside: tuple[int, int] | None = raw.execute(_BESIDE, (id_,)).fetchone()
            if beside is not None:
                return beside
        return apart

    def count(self, raw: sqlite3.Connection, first: int) -> int:
        """Of rows from ``first`` on."""
        counts = [raw.execute("SELECT count(*) FROM event_row WHERE id >= ?", (first,)).fetchone()]
        counts += [raw.execute(_COUNT, (ids,)).fetchone() for ids in self._beside(raw, first)]
        return sum(count for (count,) in counts)

    def _beside(self, raw: sqlite3.Connection, first: int, org_id: int | None = None) -> Iterator[str]:
        """Ids of rows of the journal, as JSON, some at a time."""
        ids = self._index.ids(raw, first, org_id)
        for start in range(0, len(ids), _IDS_CHUNK):
            yield json.dumps(ids[start : start + _IDS_CHUNK].tolist())

    def row(self, raw: sqlite3.Connection, row_id: int) -> EventRow | None:
        """None where there is no such row, or it is damaged."""
        with self._guard:
            found = self._kept.get(row_id)
            if found is not None:
                self._kept.move_to_end(row_id)
                return found[0]
        query = f"SELECT {EVENT_COLUMNS} FROM event WHERE id = ?"  # noqa: S608 -- our own names
        columns = raw.execute(query, (row_id,)).fetchone()
        return None if columns is None else self.opened(raw, columns)

    def opened(self, raw: sqlite3.Connection, columns: tuple[Any, ...]) -> EventRow | None:
        """The row of these :data:`EVENT_COLUMNS`; None where it is damaged."""
        row_id, org_id, data = columns[0], columns[1], columns[7]
        with self._guard:
            found = self._kept.get(row_id)
        if found is not None:
            return found[0]
        try:
            row = open_row(columns, self._org(raw, org_id))
        except DamagedError as exc:
            self._damage("event", row_id, org_id, _NO_BOUNDS, exc.message)
            return None
        with self._guard:
            if row_id not in self._kept:
                size = len(data) + _ROW_BYTES
                self._kept[row_id] = row, size
                self._bytes += size
            while self._bytes > ROWS_BYTES_KEPT and len(self._kept) > 1:
                _, (_, size) = self._kept.popitem(last=False)
                self._bytes -= size
        return row

    def _org(self, raw: sqlite3.Connection, org_id: int) -> str:
        name = self._orgs.get(org_id)
        if name is None:
            found = raw.execute("SELECT name FROM org WHERE id = ?", (org_id,)).fetchone()
            name = self._orgs[org_id] = found[0] if found else ""
        return name

    def render(self, raw: sqlite3.Connection, places: Sequence[tuple[EventRow, int]]) -> list[Event]:
        """The events of these rows and ordinals."""
        series = [
            int(row.transitions["series"][ordinal]) if ordinal < len(row.transitions) else 0
            for row, ordinal in places
        ]
        labels = read_labels(raw, set(series) - {0})
        return [
            row.event(ordinal, labels.get(id_, ()))
            for (row, ordinal), id_ in zip(places, series, strict=True)
        ]


def open_row(columns: tuple[Any, ...], org: str) -> EventRow:
    """DamagedError where the row's columns and its bytes don't agree."""
    row_id, org_id, metric_first, metric_last, types, count, recorded_at, data, checksum = columns
    if not is_whole(columns[:8], checksum):
        raise damaged("an event row fails its checksum")
    transitions, documents, names = decode_events(data)
    bounds = bounds_of(Judged.of(transitions), documents)
    if (*bounds, len(transitions) + len(documents)) != (metric_first, metric_last, types, count):
        raise damaged("an event row's bounds aren't its events'")
    return EventRow(row_id, org, recorded_at, transitions, documents, names, org_id)


def read_labels(raw: sqlite3.Connection, series: Iterable[int]) -> dict[int, Labels]:
    """Of those that have any."""
    ids = sorted(series)
    found: dict[int, Labels] = {}
    for start in range(0, len(ids), _SERIES_CHUNK):
        some = ids[start : start + _SERIES_CHUNK]
        marks = ",".join("?" * len(some))
        query = f"SELECT id, labels FROM series WHERE id IN ({marks})"  # noqa: S608 -- question marks
        found.update((id_, parse_labels(text)) for id_, text in raw.execute(query, some))
    return found
