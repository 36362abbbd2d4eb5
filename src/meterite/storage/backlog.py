"""What waits in the journal, by org, in memory: the journal is keyed by id alone.

What this file guarantees: after :meth:`Backlog.refresh` every row that the connection sees is known, and those that
compaction took are told apart from those that wait. Numbers of a damaged row are kept within what its bytes can hold:
whoever reads the row finds its checksum wrong.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from meterite.storage.database import PAGE_BYTES
from meterite.storage.journal import driver
from meterite.storage.journal_index import NO_ORG
from meterite.storage.journalrow import READING_BYTES_MIN
from meterite.storage.schema import JOURNAL_ROW_BITS

if TYPE_CHECKING:
    from sqlalchemy import Connection

COMMIT_WAL_BYTES: Final = 3 * PAGE_BYTES
"""Pages that a commit writes into the log beside its blobs, about."""

_ROWS: Final = (
    "SELECT id, org, count, length(data), coalesce(length(events), 0), recorded_at"
    " FROM journal WHERE id > ? ORDER BY id"
)


def last_id_of(seq: int) -> int:
    return (seq + 1 << JOURNAL_ROW_BITS) - 1


def _longs() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Waiting:
    """An org's journal rows in the order of ids, and their sums."""

    ids: array[int] = field(default_factory=_longs)
    counts: array[int] = field(default_factory=_longs)
    sizes: array[int] = field(default_factory=_longs)
    recorded_at: array[int] = field(default_factory=_longs)
    readings: int = 0
    bytes: int = 0

    def append(self, row_id: int, count: int, size: int, recorded_at: int) -> None:
        self.ids.append(row_id)
        self.counts.append(count)
        self.sizes.append(size)
        self.recorded_at.append(recorded_at)
        self.readings += count
        self.bytes += size

    def take_until(self, seq: int) -> array[int]:
        """Remove the rows of commits up to ``seq``; answers their ids."""
        place = bisect_right(self.ids, last_id_of(seq))
        taken = self.ids[:place]
        self.readings -= sum(self.counts[:place])
        self.bytes -= sum(self.sizes[:place])
        for column in (self.ids, self.counts, self.sizes, self.recorded_at):
            del column[:place]
        return taken

    def prefix(self, readings: int, rows: int, size: int) -> int:
        """How many rows make a prefix of whole commits within these bounds; at least one commit."""
        taken = place = 0
        count = total = 0
        while place < len(self.ids):
            seq = self.ids[place] >> JOURNAL_ROW_BITS
            place += 1
            count += self.counts[place - 1]
            total += self.sizes[place - 1]
            if place < len(self.ids) and self.ids[place] >> JOURNAL_ROW_BITS == seq:
                continue
            if taken and (count > readings or place > rows or total > size):
                break
            taken = place
        return taken


class Backlog:
    """All orgs' waiting rows, and the ids of dead ones that are to be removed."""

    def __init__(self) -> None:
        self.orgs: dict[int, Waiting] = {}
        self._dead: dict[int, array[int]] = {}
        self._seen = -1

    def refresh(self, conn: Connection) -> int:
        """Learn of new rows; answers about how many bytes of log they took."""
        rows = driver(conn).execute(_ROWS, (self._seen,))
        logged = 0
        seq = self._seen >> JOURNAL_ROW_BITS
        for row in rows:
            row_id, org_id, count, size, recorded_at = _sane(row)
            waiting = self.orgs.get(org_id)
            if waiting is None:
                waiting = self.orgs[org_id] = Waiting()
            waiting.append(row_id, count, size, recorded_at)
            logged += size
            if row_id >> JOURNAL_ROW_BITS != seq:
                seq = row_id >> JOURNAL_ROW_BITS
                logged += COMMIT_WAL_BYTES
            self._seen = row_id
        return logged

    def drop(self, org_id: int) -> array[int]:
        """Forget an org that isn't there; answers the ids of its rows."""
        waiting = self.orgs.pop(org_id, None)
        return _longs() if waiting is None else waiting.ids

    def bury(self, org_id: int, seq: int) -> None:
        """Rows of the org up to ``seq`` wait no more."""
        waiting = self.orgs.get(org_id)
        if waiting is not None:
            self._dead.setdefault(org_id, _longs()).extend(waiting.take_until(seq))
            if not waiting.ids:
                del self.orgs[org_id]

    def dead(self, org_id: int, seq: int) -> list[int]:
        """Ids of dead rows up to ``seq``, still in the journal as far as is known."""
        self.bury(org_id, seq)
        ids = self._dead.get(org_id, _longs())
        return ids[: bisect_right(ids, last_id_of(seq))].tolist()

    def removed(self, org_id: int, seq: int) -> None:
        ids = self._dead.get(org_id)
        if ids is not None:
            del ids[: bisect_right(ids, last_id_of(seq))]
            if not ids:
                del self._dead[org_id]

    def forget_dead_but(self, org_ids: set[int]) -> None:
        """Another process removed the dead rows of all other orgs."""
        for org_id in self._dead.keys() - org_ids:
            del self._dead[org_id]


def _sane(row: tuple[Any, ...]) -> tuple[int, int, int, int, int]:
    row_id, org_id, count, size, events_bytes, recorded_at = row
    if type(org_id) is not int or type(size) is not int or type(recorded_at) is not int:
        org_id = org_id if isinstance(org_id, int) else NO_ORG
        size = size if isinstance(size, int) else 0
        recorded_at = recorded_at if isinstance(recorded_at, int) else 0
    if type(count) is not int or not 0 <= count * READING_BYTES_MIN <= size:
        count = size // READING_BYTES_MIN
    return row_id, org_id, count, size + events_bytes, recorded_at
